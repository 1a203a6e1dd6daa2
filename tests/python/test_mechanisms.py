"""Every mechanism besides the sampled Gaussian: against its definition by brute force, published values, and dp_accounting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

from hushgrad import accounting
from hushgrad.accounting import (
    AdaptiveClippingDpEvent,
    BallsInBinsDpEvent,
    ComposedDpEvent,
    DiscreteGaussianDpEvent,
    DpEvent,
    FinitePrecisionDpEvent,
    GaussianDpEvent,
    GroupDpEvent,
    LaplaceDpEvent,
    MatrixFactorizationDpEvent,
    MixtureOfGaussiansDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    RepeatAndSelectDpEvent,
    SampledWithoutReplacementDpEvent,
    SelfComposedDpEvent,
    ShuffledEpochDpEvent,
    SingleEpochTreeAggregationDpEvent,
    TruncatedSubsampledGaussianDpEvent,
    delta,
    epsilon,
)
from hushgrad.accounting.dp_accounting import from_dp_accounting, to_dp_accounting
from hushgrad.errors import InvalidArgument, Unsupported

Density = Callable[[np.ndarray], np.ndarray]
GAUSS = GaussianDpEvent(1.0)


def hockey_stick(p: Density, q: Density, eps: float, low: float = -60, high: float = 60) -> float:
    """The larger of both integrals of max(0, p - e^eps q), by a fine midpoint rule; right to about 1e-6."""
    x = np.linspace(low, high, 120_001)
    x = (x[1:] + x[:-1]) / 2
    width = (high - low) / 120_000
    a, b = p(x), q(x)
    growth = math.exp(eps)
    return float(max(np.maximum(a - growth * b, 0).sum(), np.maximum(b - growth * a, 0).sum()) * width)


def mixture(weights: Sequence[float], centres: Sequence[float], s: float) -> Density:
    return lambda x: sum(w * norm.pdf(x, c, s) for w, c in zip(weights, centres, strict=True))  # type: ignore[return-value]


def check(event: DpEvent, p: Density, q: Density, adjacency: str = "add_or_remove_one", tight: bool = True) -> None:
    for eps in (0.0, 0.3, 1.0, 2.5):
        expected = hockey_stick(p, q, eps)
        lower, upper = delta(event, eps, adjacency=adjacency)
        assert lower <= expected + 3e-6
        assert expected - 3e-6 <= upper
        if tight:
            assert upper - lower <= 0.01 * upper + 3e-6


def test_laplace_against_the_definition() -> None:
    def density(centre: float, b: float) -> Density:
        return lambda x: np.exp(-np.abs(x - centre) / b) / (2 * b)

    for b in (0.5, 1.0, 4.0):
        check(LaplaceDpEvent(b), density(1, b), density(0, b))
        check(LaplaceDpEvent(b), density(2, b), density(0, b), "replace_one")
    q, one, other = 0.3, density(1, 0.7), density(0, 0.7)
    check(PoissonSampledDpEvent(q, LaplaceDpEvent(0.7)), lambda x: q * one(x) + (1 - q) * other(x), other)
    lower, upper = epsilon(
        ComposedDpEvent([SelfComposedDpEvent(LaplaceDpEvent(1.0), 3), SelfComposedDpEvent(LaplaceDpEvent(2.0), 2)]), 1e-14
    )
    assert lower <= 4.0 <= upper <= 4.0001  # golden/accounting.json, dpacct_pld_laplace_1x3_2x2


def test_mixtures_against_the_definition_and_published_values() -> None:
    event = MixtureOfGaussiansDpEvent(1.5, (0.0, 0.5, 2.0), (0.7, 0.2, 0.1))
    check(event, mixture((0.7, 0.2, 0.1), (0, 0.5, 2), 1.5), mixture((1,), (0,), 1.5))
    # golden/accounting.json, dpacct_mog_*: the larger direction.
    for sensitivities, probs, published in (((1, 2), (0.2, 0.8), 0.433276675545065), ((0, 1, 2), (0.2, 0.6, 0.2), 0.15768284088654105)):
        lower, upper = delta(MixtureOfGaussiansDpEvent(1.0, sensitivities, probs), 1.0)
        assert lower <= published <= upper <= published * 1.001


def test_sampled_gaussian_where_a_record_is_replaced() -> None:
    for q, s in ((0.2, 1.0), (0.7, 0.6), (0.01, 2.0)):
        check(
            PoissonSampledDpEvent(q, GaussianDpEvent(s)),
            mixture((1 - q, q), (0, 1), s),
            mixture((1 - q, q), (0, -1), s),
            "replace_one",
        )
    # golden/accounting.json: dpacct_gauss1_replace_* (sigma / sensitivity) and fourier_S_s2.0_q0.01_T10000_d1e-06.
    for multiplier, q, eps, published in (
        (2.0, 0.8, 1.0, 0.05808665654484252),
        (1.5, 0.8, 1.0, 0.13711260900644096),
        (2 / 3, 0.7, 1.0, 0.4013057526509164),
        (0.5, 0.4, 1.0, 0.20752885274183325),
        (2.0, 0.3, 2.0, 2.4770380148941894e-09),
        (1.0, 1.0, 1.0, 0.50986166),
        (1.0, 1.0, 2.0, 0.331897999),
        (1.0, 0.2, 0.5, 0.0250311655),
    ):
        event = PoissonSampledDpEvent(q, GaussianDpEvent(multiplier))
        lower, upper = delta(event, eps, adjacency="replace_one")
        assert lower <= published * (1 + 1e-7) and published * (1 - 1e-7) <= upper <= published * 1.002
    many = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(2.0)), 10_000)
    lower, upper = epsilon(many, 1e-6, adjacency="replace_one")
    assert lower <= 4.907397523232251 <= upper <= 4.9074 * 1.001


def test_no_data_beats_the_pair_where_a_record_is_replaced() -> None:
    """Vectors u, u' of norm at most 1 in the plane, at random: the pair of the proof is the worst."""
    rng = np.random.default_rng(1)
    q, s, eps = 0.3, 0.8, 0.4
    _, bound = delta(PoissonSampledDpEvent(q, GaussianDpEvent(s)), eps, adjacency="replace_one")
    grid = np.linspace(-7, 7, 401)
    x, y = np.meshgrid(grid, grid)

    def density(u: np.ndarray) -> np.ndarray:
        def one(c: Sequence[float]) -> np.ndarray:
            return norm.pdf(x, c[0], s) * norm.pdf(y, c[1], s)

        return (1 - q) * one((0, 0)) + q * one(u)

    for _ in range(30):
        u, v = rng.normal(size=2), rng.normal(size=2)
        u, v = u / max(1, np.hypot(*u)), v / max(1, np.hypot(*v))
        excess = np.maximum(density(u) - math.exp(eps) * density(v), 0).sum() * (grid[1] - grid[0]) ** 2
        assert excess <= bound * (1 + 1e-3)


@pytest.mark.parametrize(("s", "shift"), [(1.0, 1), (5.0, 3), (0.7, 2)])
def test_discrete_gaussian_against_its_sum(s: float, shift: int) -> None:
    x = np.arange(-200, 201)
    weights = np.exp(-(x**2) / (2 * s * s))
    q = weights / weights.sum()
    p = np.roll(q, shift)
    for eps in (0.0, 0.3, 1.0, 2.5):
        expected = float(np.maximum(p - math.exp(eps) * q, 0).sum())
        lower, upper = delta(DiscreteGaussianDpEvent(s, shift), eps)
        assert lower <= expected * (1 + 1e-9) + 1e-15 and expected * (1 - 1e-9) <= upper + 1e-15
    # Two of them, by convolving outputs.
    event = SelfComposedDpEvent(DiscreteGaussianDpEvent(s, shift), 2)
    p2, q2 = np.outer(p, p).ravel(), np.outer(q, q).ravel()
    expected = float(np.maximum(p2 - math.e * q2, 0).sum())
    lower, upper = delta(event, 1.0)
    assert lower <= expected + 1e-12 and expected - 1e-12 <= upper


def test_fixed_size_batches_dominate_a_small_instance() -> None:
    """One of three numbers is drawn: 0.9, -1, and 1 or its replacement; every outcome by its definition."""
    s = 1.2
    event = SampledWithoutReplacementDpEvent(3, 1, GaussianDpEvent(s))
    for a, b, replacement in itertools.product((-1.0, 0.9), (-1.0, 1.0), (-1.0, 0.0)):
        third = 1 / 3
        p, q = mixture((third,) * 3, (a, b, 1), s), mixture((third,) * 3, (a, b, replacement), s)
        check(event, p, q, "replace_one", tight=False)
    assert epsilon(SampledWithoutReplacementDpEvent(5, 5, GAUSS), 1e-5, adjacency="replace_one") == pytest.approx(
        epsilon(GaussianDpEvent(0.5), 1e-5), rel=1e-9
    )
    with pytest.raises(Unsupported, match="sizes are public"):
        epsilon(event, 1e-5)


def truncated(values: Sequence[float], q: float, size: int, s: float) -> Density:
    """Every subset, and every way to cut it."""
    weights: dict[float, float] = {}
    for drawn in itertools.product((0, 1), repeat=len(values)):
        chosen = [v for v, d in zip(values, drawn, strict=True) if d]
        probability = q ** len(chosen) * (1 - q) ** (len(values) - len(chosen))
        kept = list(itertools.combinations(chosen, min(size, len(chosen))))
        for batch in kept:
            weights[sum(batch)] = weights.get(sum(batch), 0) + probability / len(kept)
    return mixture(list(weights.values()), list(weights), s)


def test_truncated_batches_dominate_small_instances() -> None:
    q, s = 0.5, 1.3
    for size, others in itertools.product((1, 2), ((-1.0, -1.0, 1.0), (-1.0, -1.0, -1.0), (1.0, 0.5, -1.0))):
        event = TruncatedSubsampledGaussianDpEvent(4, q, size, s)
        with_record = truncated((*others, 1.0), q, size, s)
        check(event, with_record, truncated(others, q, size, s), tight=False)
        check(event, with_record, truncated((*others, 0.0), q, size, s), "zero_out", tight=False)
        check(event, with_record, truncated((*others, -1.0), q, size, s), "replace_one", tight=False)


def test_rare_truncation_costs_next_to_nothing() -> None:
    plain = SelfComposedDpEvent(PoissonSampledDpEvent(256 / 60000, GaussianDpEvent(1.1)), 1000)
    cut = SelfComposedDpEvent(TruncatedSubsampledGaussianDpEvent(60000, 256 / 60000, 450, 1.1), 1000)
    assert epsilon(cut, 1e-6)[1] == pytest.approx(epsilon(plain, 1e-6)[1], rel=1e-3)


def test_balls_in_bins_against_published_values_and_samples() -> None:
    # golden/accounting.json, derived_balls_in_bins_*: exact for two bins.
    for s, eps, exact in (
        (0.5, 1.0, 0.40457750038),
        (0.5, 2.0, 0.23232134346),
        (1.0, 0.25, 0.21684514555),
        (1.0, 0.5, 0.14917752314),
        (1.0, 1.0, 0.059206501086),
        (1.0, 2.0, 0.0047457776332),
        (2.0, 0.5, 0.018326594761),
        (2.0, 1.0, 0.00064612837198),
        (2.0, 2.0, 2.8811862748e-08),
    ):
        lower, upper = delta(BallsInBinsDpEvent(2, GaussianDpEvent(s)), eps)
        assert lower <= exact <= upper <= exact * 1.01
    # 13 bins, both directions by sampling: within six standard errors, a false alarm in less than one of 10^8 runs.
    rng = np.random.default_rng(7)
    losses = rng.normal(-0.5, 1.0, size=(400_000, 13))
    ratio = np.exp(losses).mean(axis=1)
    for eps in (0.1, 0.5):
        _, upper = delta(BallsInBinsDpEvent(13, GAUSS), eps)
        for sample in (np.maximum(ratio - math.exp(eps), 0), np.maximum(1 - math.exp(eps) * ratio, 0)):
            assert upper >= sample.mean() - 6 * sample.std() / math.sqrt(len(sample))
        assert upper <= np.maximum(ratio - math.exp(eps), 0).mean() * 1.1
    assert epsilon(BallsInBinsDpEvent(1, GAUSS), 1e-5) == pytest.approx(epsilon(GAUSS, 1e-5), rel=1e-9)
    passes = SelfComposedDpEvent(BallsInBinsDpEvent(50, GAUSS), 4)
    assert epsilon(passes, 1e-5)[1] <= epsilon(SelfComposedDpEvent(GAUSS, 4), 1e-5)[1]
    with pytest.raises(Unsupported):
        epsilon(passes, 1e-5, adjacency="replace_one")


def test_shuffled_epochs_claim_no_amplification() -> None:
    epochs = SelfComposedDpEvent(ShuffledEpochDpEvent(GaussianDpEvent(2.0)), 5)
    for adjacency, multiplier in (("zero_out", 2.0), ("replace_one", 1.0), ("add_or_remove_one", 2 / math.sqrt(5))):
        upper = epsilon(SelfComposedDpEvent(GaussianDpEvent(multiplier), 5), 1e-6)[1]
        assert epsilon(epochs, 1e-6, adjacency=adjacency) == (0, pytest.approx(upper, rel=1e-9))


def test_matrix_mechanism_against_all_participations() -> None:
    for coefficients, steps, separation, most in (
        ((1.0, 0.5, 0.25), 9, 2, 3),
        ((1.0, 0.9, 0.8, 0.7, 0.6), 8, 1, 2),
        ((1.0,), 7, 3, 9),
        ((2.0, 1.0, 1.0, 0.1), 10, 4, 1),
        (tuple(0.9**i for i in range(10)), 10, 3, 4),
    ):
        matrix = np.zeros((steps, steps))
        for i, j in itertools.product(range(steps), repeat=2):
            if 0 <= i - j < len(coefficients):
                matrix[i, j] = coefficients[i - j]
        worst = 0.0
        for pattern in itertools.product((0, 1), repeat=steps):
            at = [i for i, taken in enumerate(pattern) if taken]
            if len(at) <= most and all(b - a >= separation for a, b in itertools.pairwise(at)):
                worst = max(worst, float(np.linalg.norm(matrix[:, at].sum(axis=1))))
        event = MatrixFactorizationDpEvent(3.0, coefficients, steps, separation, most)
        assert epsilon(event, 1e-5) == pytest.approx(epsilon(GaussianDpEvent(3.0 / worst), 1e-5), rel=1e-6)


def test_tree_aggregation() -> None:
    tree = SingleEpochTreeAggregationDpEvent(1.13, (1600, 3))
    assert epsilon(tree, 1e-6, adjacency="zero_out")[1] < 19.74  # golden/accounting.json, dpacct_tree_1600_s1.13
    one_level = SingleEpochTreeAggregationDpEvent(1.0, (1,))
    assert epsilon(one_level, 1e-6, adjacency="zero_out") == pytest.approx(epsilon(GAUSS, 1e-6), rel=1e-9)
    with pytest.raises(Unsupported):
        epsilon(tree, 1e-6)


def test_groups_of_a_user() -> None:
    assert epsilon(GroupDpEvent(3, GaussianDpEvent(3.0)), 1e-6) == pytest.approx(epsilon(GAUSS, 1e-6), rel=1e-9)
    # golden/accounting.json, tfp_statement_user_k2_pld_nopoisson
    assert epsilon(GroupDpEvent(2, SelfComposedDpEvent(GAUSS, 5)), 1e-6)[1] == pytest.approx(30.579, abs=1e-3)
    q, s, k = 0.1, 1.0, 3
    weights = [binom.pmf(i, k, q) for i in range(k + 1)]
    check(GroupDpEvent(k, PoissonSampledDpEvent(q, GaussianDpEvent(s))), mixture(weights, range(k + 1), s), mixture((1,), (0,), s))
    assert GroupDpEvent(2, GroupDpEvent(3, GAUSS)) != GroupDpEvent(6, GAUSS)
    assert epsilon(GroupDpEvent(2, GroupDpEvent(3, GAUSS)), 1e-6) == epsilon(GroupDpEvent(6, GAUSS), 1e-6)


def test_adaptive_clipping_is_one_gaussian_release() -> None:
    """Andrew et al. 2021, Theorem 1: z^-2 = z_sum^-2 + (2 sigma_b)^-2."""
    together = (1.0**-2 + (2 * 20.0) ** -2) ** -0.5
    for wrap in (lambda e: e, lambda e: SelfComposedDpEvent(PoissonSampledDpEvent(0.01, e), 500)):
        adaptive = epsilon(wrap(AdaptiveClippingDpEvent(1.0, 20.0)), 1e-6)
        assert adaptive == pytest.approx(epsilon(wrap(GaussianDpEvent(together)), 1e-6), rel=1e-6)
    assert epsilon(AdaptiveClippingDpEvent(1.0, 0.0), 1e-6)[1] == math.inf


@pytest.mark.parametrize("shape", [0.0, 0.5, 1.0, math.inf])
def test_selection_agrees_with_dp_accounting(shape: float) -> None:
    accountants = pytest.importorskip("dp_accounting.rdp", reason="dp_accounting is not installed")
    run = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GAUSS), 300)
    event = RepeatAndSelectDpEvent(run, 12.0, shape)
    theirs = accountants.RdpAccountant().compose(to_dp_accounting(event)).get_epsilon(1e-6)
    lower, upper = epsilon(event, 1e-6)
    assert lower == 0 and epsilon(run, 1e-6)[1] < upper
    assert upper == pytest.approx(theirs, rel=0.03)


def selected_gaussian(sigma: float, mean: float, shape: float, target: float) -> float:
    """Papernot and Steinke 2022, Theorems 2 and 6, over many more orders than the accountant has."""
    orders = [1 + 10 ** (k / 300) for k in range(-2100, 1200)]
    divergence = {order: order / (2 * sigma**2) for order in orders}
    if shape < math.inf:
        of_success = lambda g: shape * (1 - g) / (g * (1 - g**shape)) if shape else (1 / g - 1) / -math.log(g)  # noqa: E731
        success = brentq(lambda x: math.log(of_success(math.exp(x)) / mean), -20, -1e-9)
        constant = min((1 + shape) * ((1 - 1 / order) * divergence[order] - success / order) for order in orders)
        extra = dict.fromkeys(orders, constant)
    else:
        mu = 1 / sigma
        at = {order: math.log1p(1 / (order - 1)) for order in orders}
        extra = {o: mean * (norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu)) for o, e in at.items()}
    return min(
        float(divergence[o] + extra[o] + math.log(mean) / (o - 1) + math.log1p(-1 / o) - (math.log(target) + math.log(o)) / (o - 1))
        for o in orders
    )


@pytest.mark.parametrize("shape", [0.0, 1.0, math.inf])
@pytest.mark.parametrize("sigma", [10.0, 1.0, 0.1, 0.03, 1e-3, 1e-5])
def test_selections_have_a_bound_however_little_noise_there_is(sigma: float, shape: float) -> None:
    """The accountant's orders start at 1.001 and end at 1024: that costs a part, and never the bound."""
    lower, upper = epsilon(RepeatAndSelectDpEvent(GaussianDpEvent(sigma), 10.0, shape), 1e-6)
    best = selected_gaussian(sigma, 10.0, shape, 1e-6)
    # With a Poisson number of runs delta of a run is needed too, which the accountant knows by its divergences alone.
    assert lower == 0 and best * (1 - 1e-6) <= upper <= best * (1.01 if shape < math.inf else 1.25)


def test_finite_precision_is_added() -> None:
    run = lambda e: SelfComposedDpEvent(PoissonSampledDpEvent(0.01, e), 1000)  # noqa: E731
    ideal = epsilon(run(GAUSS), 1e-6)
    assert epsilon(run(FinitePrecisionDpEvent(GAUSS, 2.0, 0.0, 0.0)), 1e-6) == pytest.approx(ideal, rel=1e-9)
    order, divergence = 2.0**18, 1e-9
    lower, upper = epsilon(run(FinitePrecisionDpEvent(GAUSS, order, divergence, 0.0)), 1e-6)
    # 2 lambda with lambda = T divergence + log(1 / beta) / (order - 1), where beta is about 1e-9 / (1 + e^epsilon) here.
    gap = 2 * (1000 * divergence + math.log(1e10) / (order - 1))
    assert ideal[1] + gap < upper < ideal[1] + 1.5 * gap + 2e-4
    assert lower < ideal[0]
    # A failure costs (1 + e^epsilon) times its probability in delta.
    failing = run(FinitePrecisionDpEvent(GAUSS, order, 0.0, 1e-12))
    low, high = delta(failing, 2.0)
    assert high == pytest.approx(delta(run(GAUSS), 2.0)[1] + (1 + math.e**2) * 1e-9, rel=1e-6)
    assert low <= delta(run(GAUSS), 2.0)[0]
    assert epsilon(run(FinitePrecisionDpEvent(GAUSS, order, 0.0, 0.5)), 1e-6)[1] == math.inf
    # Around the run or within its steps, it is the same claim about each execution.
    outside = FinitePrecisionDpEvent(run(GAUSS), order, 1000 * divergence, 0.0)
    assert epsilon(outside, 1e-6)[1] == pytest.approx(upper, rel=1e-6)


CONTRACT = [
    GaussianDpEvent(3.0),
    SelfComposedDpEvent(PoissonSampledDpEvent(0.1, GaussianDpEvent(2.0)), 20),
    ComposedDpEvent([PoissonSampledDpEvent(0.1, GaussianDpEvent(2.0)), GaussianDpEvent(4.0)]),
    LaplaceDpEvent(2.0),
    DiscreteGaussianDpEvent(4.0, 2),
    MixtureOfGaussiansDpEvent(2.0, (0.0, 1.0), (0.9, 0.1)),
    PoissonSampledDpEvent(0.1, LaplaceDpEvent(2.0)),
    TruncatedSubsampledGaussianDpEvent(100, 0.1, 12, 2.0),
    SampledWithoutReplacementDpEvent(100, 10, GaussianDpEvent(2.0)),
    ShuffledEpochDpEvent(GaussianDpEvent(3.0)),
    BallsInBinsDpEvent(10, GaussianDpEvent(2.0)),
    MatrixFactorizationDpEvent(5.0, (1.0, 0.5), 10, 3, 4),
    SingleEpochTreeAggregationDpEvent(5.0, (10,)),
    GroupDpEvent(2, PoissonSampledDpEvent(0.1, GaussianDpEvent(3.0))),
    AdaptiveClippingDpEvent(3.0, 5.0),
    RepeatAndSelectDpEvent(GaussianDpEvent(5.0), 3.0, 1.0),
    FinitePrecisionDpEvent(GaussianDpEvent(3.0), 1e5, 1e-9, 1e-20),
]


@pytest.mark.parametrize("event", CONTRACT, ids=lambda event: type(event).__name__)
def test_contract(event: DpEvent) -> None:
    """What every event keeps: ordered ends, growth, agreement of the questions and of the accountants, domains."""
    asked = 0
    for adjacency in ("add_or_remove_one", "zero_out", "replace_one"):
        try:
            lower, upper = epsilon(event, 1e-5, adjacency=adjacency)
        except Unsupported:
            continue
        asked += 1
        assert 0 <= lower <= upper < math.inf
        assert upper <= epsilon(event, 1e-6, adjacency=adjacency)[1] * (1 + 1e-3)
        twice = epsilon(SelfComposedDpEvent(event, 2), 1e-5, adjacency=adjacency)
        assert lower <= twice[1] and upper <= twice[1] * (1 + 1e-3)
        assert lower <= epsilon(event, 1e-5, "rdp", adjacency=adjacency)[1] * (1 + 1e-9)
        low, high = delta(event, upper, adjacency=adjacency)
        assert 0 <= low <= 1e-5 * (1 + 1e-6) and low <= high <= 1e-5 * 1.1
        with_nothing = ComposedDpEvent([NoOpDpEvent(), event, SelfComposedDpEvent(event, 0)])
        assert epsilon(with_nothing, 1e-5, adjacency=adjacency) == (lower, upper)
        mixed = ComposedDpEvent([event, PoissonSampledDpEvent(0.01, GaussianDpEvent(1.5))])
        assert epsilon(mixed, 1e-5, adjacency=adjacency)[1] >= lower
        for bad in (0.0, 1.0, math.nan):
            with pytest.raises(InvalidArgument):
                epsilon(event, bad, adjacency=adjacency)
    assert asked >= 1
    with pytest.raises(InvalidArgument):
        epsilon(event, 1e-5, adjacency="friends")


def test_every_event_keeps_the_contract() -> None:
    spared = {"NoOpDpEvent", "NonPrivateDpEvent", "UnsupportedDpEvent", "DpEvent"}
    assert {type(event).__name__ for event in CONTRACT} == {name for name in accounting.__all__ if name.endswith("DpEvent")} - spared


def test_conversion_goes_both_ways() -> None:
    library = pytest.importorskip("dp_accounting.dp_event", reason="dp_accounting is not installed")
    converted = 0
    for event in (*CONTRACT, ComposedDpEvent([GAUSS, NoOpDpEvent()])):
        try:
            theirs = to_dp_accounting(event)
        except Unsupported:
            continue
        assert from_dp_accounting(theirs) == event
        converted += 1
    assert converted >= 7
    assert from_dp_accounting(library.SingleEpochTreeAggregationDpEvent(1.0, 5)) == SingleEpochTreeAggregationDpEvent(1.0, (5,))
    with pytest.raises(Unsupported):
        from_dp_accounting(library.ZCDpEvent(1.0))
    with pytest.raises(InvalidArgument):
        from_dp_accounting("event")
