"""PrivacyEngine: the user's own loop and objects, the noise it gets and the charge it pays."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from charges import charged
from hushgrad import PrivacyEngine
from hushgrad.accounting import (
    ComposedDpEvent,
    GaussianDpEvent,
    NonPrivateDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    epsilon,
)
from hushgrad.engine import session_of
from hushgrad.errors import BudgetExceeded, InvalidArgument, InvalidState, PrivacyViolation, Unsupported
from hushgrad.ledger import Ledger

DELTA = 1e-5
RECORDS, BATCH = 64, 16


def data(records: int = RECORDS, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(records, 6, generator=generator)
    return TensorDataset(x, (x[:, :1] > 0).float())


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


class Training:
    """A model, its optimizer and its loader, private under one engine."""

    def __init__(
        self,
        ledger: str | Path = ":memory:",
        *,
        build: Callable[[], nn.Module] = network,
        optimizer: Callable[..., Optimizer] = torch.optim.SGD,
        records: int = RECORDS,
        batch: int = BATCH,
        engine: PrivacyEngine | None = None,
        **options: Any,
    ) -> None:
        self.engine = engine or PrivacyEngine(ledger=ledger, dataset="ward-7", actor="ada")
        self.module = build()
        self.optimizer = optimizer(self.module.parameters(), lr=0.1)
        self.loader: DataLoader[Any] = DataLoader(data(records), batch_size=batch, shuffle=True)
        options = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, **options}
        self.engine.make_private(module=self.module, optimizer=self.optimizer, data_loader=self.loader, **options)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(self.module(x), y)

    def epoch(self) -> int:
        steps = 0
        for x, y in self.loader:
            self.optimizer.zero_grad()
            self.loss(x, y).backward()
            self.optimizer.step()
            steps += 1
        return steps

    def weights(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.module.parameters()).detach().clone()

    def gradients(self) -> list[torch.Tensor | None]:
        return [p.grad for p in self.module.parameters()]


# The user's objects.


def test_the_same_objects_come_back() -> None:
    module, loader = network(), DataLoader(data(), batch_size=BATCH)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    names = list(module.state_dict())
    back = PrivacyEngine(ledger=":memory:").make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
    )
    assert back[0] is module and back[1] is optimizer and back[2] is loader
    assert list(module.state_dict()) == names
    assert type(module) is nn.Sequential and isinstance(loader, DataLoader) and type(optimizer) is torch.optim.SGD


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD,
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=0.1, nesterov=True),
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.RMSprop,
        torch.optim.Adagrad,
        lambda p, lr: torch.optim.Adam(p, lr, foreach=True),
    ],
    ids=["sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad", "foreach"],
)
@pytest.mark.parametrize("scheduler_first", [True, False])
def test_optimizers_and_schedulers(optimizer: Callable[..., Optimizer], scheduler_first: bool) -> None:
    engine, module = PrivacyEngine(ledger=":memory:"), network()
    steps = optimizer(module.parameters(), lr=0.1)
    if scheduler_first:
        scheduler = torch.optim.lr_scheduler.StepLR(steps, 1, 0.5)
    loader = DataLoader(data(), batch_size=BATCH)
    engine.make_private(module=module, optimizer=steps, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)
    if not scheduler_first:
        scheduler = torch.optim.lr_scheduler.StepLR(steps, 1, 0.5)
    before = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    for x, y in loader:
        steps.zero_grad()
        F.binary_cross_entropy_with_logits(module(x), y).backward()
        steps.step()
        scheduler.step()
    assert engine.steps == 4
    assert steps.param_groups[0]["lr"] == pytest.approx(0.1 / 16)
    after = nn.utils.parameters_to_vector(module.parameters())
    assert bool((before != after).all())


@pytest.mark.parametrize("zero_grad", ["before forward", "before backward", "after step", "never"])
def test_loop_orders(zero_grad: str) -> None:
    training = Training(noise_multiplier=0.0, max_grad_norm=1e6)
    for x, y in training.loader:
        before = training.weights()
        plain = network()
        nn.utils.vector_to_parameters(before, plain.parameters())
        F.binary_cross_entropy_with_logits(plain(x), y, reduction="sum").backward()
        expected = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None]) / BATCH
        if zero_grad == "before forward":
            training.optimizer.zero_grad()
        loss = training.loss(x, y)
        if zero_grad == "before backward":
            training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        if zero_grad == "after step":
            training.optimizer.zero_grad()
        # One batch's gradient and no other's: nothing adds up over steps.
        torch.testing.assert_close((before - training.weights()) / 0.1, expected, rtol=1e-3, atol=1e-5)
    assert training.engine.steps == 4


def test_zero_grad_drops_a_batch() -> None:
    training = Training()
    before = training.weights()
    for x, y in training.loader:
        training.loss(x, y).backward()
        training.optimizer.zero_grad()
    assert training.engine.steps == 0
    assert torch.equal(before, training.weights())
    with pytest.raises(InvalidState):
        training.optimizer.step()


def test_zero_grad_keeps_its_arguments() -> None:
    training = Training()
    training.epoch()
    training.optimizer.zero_grad(set_to_none=False)
    assert all(g is not None and not g.any() for g in training.gradients())
    training.optimizer.zero_grad()
    assert all(g is None for g in training.gradients())


def test_evaluation_between_steps_is_free() -> None:
    training = Training()
    x, y = data().tensors
    for batch in training.loader:
        training.module.eval()
        with torch.no_grad():
            training.module(x)
        training.module(x)
        training.module.train()
        training.optimizer.zero_grad()
        training.loss(*batch).backward()
        with torch.no_grad():
            training.module(x)
        training.optimizer.step()
    assert training.engine.steps == 4


def test_a_backward_pass_outside_of_training_gives_no_gradient() -> None:
    training = Training()
    x, y = data().tensors
    training.loss(x, y).backward()  # not a batch of the loader
    assert all(g is None for g in training.gradients())
    with pytest.raises(InvalidState, match="private data loader"):
        training.optimizer.step()
    training.module.eval()
    for x, y in training.loader:
        with pytest.raises(RuntimeError, match="per-sample clipping"):
            training.loss(x, y).backward()
        break
    assert all(g is None for g in training.gradients())


def test_a_pass_between_steps_gives_inputs_their_gradient_and_parameters_none() -> None:
    # A generator that learns from a private discriminator, after the discriminator's step.
    training = Training()
    reference = network()
    for x, y in training.loader:
        training.optimizer.zero_grad()
        training.loss(x, y).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
        reference.load_state_dict(training.module.state_dict())
        seen, wanted = (torch.randn(3, 6, generator=torch.Generator().manual_seed(2)).requires_grad_() for _ in range(2))
        training.module(seen).sum().backward()
        reference(wanted).sum().backward()
        torch.testing.assert_close(seen.grad, wanted.grad)
        assert all(g is None for g in training.gradients())
    assert training.engine.steps == 4


def test_a_closed_session_leaves_an_ordinary_module_and_the_charges() -> None:
    training = Training()
    for x, y in training.loader:
        training.optimizer.zero_grad()
        training.loss(x, y).backward()
        training.optimizer.step()
    spent, run = training.engine.get_epsilon(DELTA), training.engine.run_id
    session_of(training.optimizer).close()
    training.module(torch.randn(3, 6)).sum().backward()
    assert all(g is not None for g in training.gradients())
    assert (training.engine.get_epsilon(DELTA), training.engine.run_id, training.engine.steps) == (spent, run, 4)
    with pytest.raises(InvalidState, match="was closed"):
        next(iter(training.loader))
    with pytest.raises(InvalidArgument):
        session_of(training.optimizer)


def test_the_latest_make_private_owns_the_parameters() -> None:
    first = Training()
    second = Training(build=lambda: first.module)
    for x, y in second.loader:
        second.optimizer.zero_grad()
        second.loss(x, y).backward()
        second.optimizer.step()
    assert (first.engine.steps, second.engine.steps) == (0, 4)


@pytest.mark.parametrize("keyword", [True, False])
def test_closures_get_the_noisy_gradient(keyword: bool) -> None:
    # A closure that the optimizer called would leave the clean gradient of its own backward pass.
    calls = 0
    training = Training(noise_multiplier=1000.0)
    for x, y in training.loader:

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            nonlocal calls
            calls += 1
            training.optimizer.zero_grad()
            loss = training.loss(x, y)
            loss.backward()
            return loss

        loss = training.optimizer.step(closure=closure) if keyword else training.optimizer.step(closure)
        assert isinstance(loss, torch.Tensor) and bool(loss.isfinite())
        # Chi-square of 65 coordinates: outside of this with probability below 1e-12.
        noise = torch.cat([g.flatten() for g in training.gradients() if g is not None])
        assert 0.3 < float(noise.square().mean().sqrt()) / (1000 / BATCH) < 1.9
    assert calls == training.engine.steps == 4


# What is refused.


def test_a_step_without_a_backward_pass_is_refused() -> None:
    training = Training()
    before = training.weights()
    with pytest.raises(InvalidState, match="batch"):
        training.optimizer.step()
    for x, y in training.loader:
        if len(x) == 0:
            continue
        with pytest.raises(InvalidState, match="backward"):
            training.optimizer.step()
        training.module(x)
        with pytest.raises(InvalidState, match="backward"):
            training.optimizer.step()
        break
    assert torch.equal(before, training.weights())
    assert training.engine.steps == 0


def test_a_second_step_on_one_batch_is_refused() -> None:
    training = Training()
    for x, y in training.loader:
        training.loss(x, y).backward()
        training.optimizer.step()
        after = training.weights()
        with pytest.raises(InvalidState):
            training.optimizer.step()
        assert torch.equal(after, training.weights())
        break
    assert training.engine.steps == 1


def test_two_batches_before_a_step_are_refused() -> None:
    training = Training()
    with pytest.raises(InvalidState, match="BatchMemoryManager"):
        for x, y in training.loader:
            training.loss(x, y).backward()
    assert training.engine.steps == 0


def test_a_refused_step_can_be_followed_by_a_good_one() -> None:
    training = Training()
    with pytest.raises(InvalidState):
        for x, y in training.loader:
            training.loss(x, y).backward()
    training.optimizer.zero_grad()
    assert training.epoch() == training.engine.steps == 4


def test_parameters_of_others_are_refused() -> None:
    module, other = network(), nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*module.parameters(), *other.parameters()], 0.1)
    with pytest.raises(InvalidArgument, match="the module's"):
        PrivacyEngine(ledger=":memory:").make_private(
            module=module, optimizer=optimizer, data_loader=DataLoader(data(), batch_size=8), noise_multiplier=1.0, max_grad_norm=1.0
        )


@pytest.mark.parametrize("how", ["added group", "unfrozen"])
def test_parameters_that_join_later_are_refused_at_the_step(how: str) -> None:
    def build() -> nn.Module:
        module = network()
        if how == "unfrozen":
            module[2].bias.requires_grad_(False)  # type: ignore[index,operator,union-attr]
        return module

    training = Training(build=build)
    extra = nn.Linear(1, 1)
    if how == "unfrozen":
        training.module[2].bias.requires_grad_(True)  # type: ignore[index,operator,union-attr]
    else:
        training.optimizer.add_param_group({"params": extra.parameters()})
    before = training.weights()
    for x, y in training.loader:
        with pytest.raises((PrivacyViolation, Unsupported, RuntimeError)):
            (training.loss(x, y) + extra(torch.ones(1)).sum()).backward()
            training.optimizer.step()
        break
    assert torch.equal(before, training.weights())
    assert training.engine.steps == 0


def test_parameters_without_the_optimizer_get_no_gradient() -> None:
    def only_the_last(parameters: Any, lr: float) -> Optimizer:
        return torch.optim.SGD(list(parameters)[2:], lr)

    training = Training(optimizer=only_the_last)
    before = training.weights()
    training.epoch()
    after = training.weights()
    assert torch.equal(before[:56], after[:56])
    assert bool((before[56:] != after[56:]).all())
    assert [g is None for g in training.gradients()] == [True, True, False, False]


def test_several_parameter_groups() -> None:
    def groups(parameters: Any, lr: float) -> Optimizer:
        p = list(parameters)
        return torch.optim.SGD([{"params": p[:2], "lr": 0.0}, {"params": p[2:]}], lr)

    training = Training(optimizer=groups)
    before = training.weights()
    training.epoch()
    assert torch.equal(before[:56], training.weights()[:56])
    assert all(g is not None and bool(g.any()) for g in training.gradients())


BAD_OPTIONS: list[dict[str, Any]] = [
    {"noise_multiplier": -1.0},
    {"noise_multiplier": math.nan},
    {"noise_multiplier": math.inf},
    {"max_grad_norm": 0.0},
    {"max_grad_norm": -1.0},
    {"max_grad_norm": math.nan},
    {"max_grad_norm": math.inf},
    {"clipping": "ghost"},
    {"loss_reduction": "none"},
    {"noise_generator": torch.Generator()},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=lambda o: "-".join(f"{k}={v}"[:30] for k, v in o.items()))
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Training(**options)


def test_an_optimizer_is_made_private_once() -> None:
    training = Training()
    with pytest.raises(InvalidState, match="not private yet"):
        training.engine.make_private(
            module=training.module, optimizer=training.optimizer, data_loader=DataLoader(data(), batch_size=8), noise_multiplier=1.0, max_grad_norm=1.0
        )  # fmt: skip


def test_lbfgs_is_refused() -> None:
    with pytest.raises(Unsupported, match="LBFGS"):
        Training(optimizer=torch.optim.LBFGS)


# The noise.


def pure_noise(steps: int, **options: Any) -> torch.Tensor:
    """[steps, parameters]: gradients of a model whose loss is constant."""
    training = Training(build=lambda: nn.Sequential(nn.Linear(6, 300), nn.Linear(300, 1)), **options)
    rows: list[torch.Tensor] = []
    while len(rows) < steps:
        for x, _ in training.loader:
            training.optimizer.zero_grad()
            (training.module(x) * 0).mean().backward()
            training.optimizer.step()
            rows.append(torch.cat([g.flatten().double() for g in training.gradients() if g is not None]))
    return torch.stack(rows[:steps])


@pytest.mark.parametrize("clip", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_noise_has_the_promised_deviation(clip: float, reduction: str) -> None:
    rows = pure_noise(8, noise_multiplier=1.5, max_grad_norm=clip, loss_reduction=reduction)
    promised = 1.5 * clip / (BATCH if reduction == "mean" else 1)
    # 19208 draws: the ratio's standard error is 1 / sqrt(2 * 19208) = 0.0051, six of them are a false alarm of 2e-9.
    assert float(rows.square().mean().sqrt()) / promised == pytest.approx(1, abs=6 * 0.0051)
    assert abs(float(rows.mean())) < 6 * promised / math.sqrt(rows.numel())
    # Steps and parameters share no noise: each correlation has standard error 1 / sqrt(2401).
    correlations = torch.corrcoef(rows) - torch.eye(8, dtype=torch.float64)
    assert float(correlations.abs().max()) < 7 / math.sqrt(rows.size(1))


def test_noise_differs_between_runs_whatever_the_seed() -> None:
    runs, sizes = [], []
    for _ in range(2):
        torch.manual_seed(1234)
        training = Training(build=lambda: nn.Linear(6, 1))
        sizes.append([len(x) for _ in range(5) for x, _ in training.loader])
        torch.manual_seed(1234)
        runs.append(pure_noise(1, noise_multiplier=1.0)[0])
    assert not bool((runs[0] == runs[1]).any())
    # 20 batch sizes agree by chance with probability below 0.12^20.
    assert sizes[0] != sizes[1]


def test_much_noise_destroys_the_model() -> None:
    quiet, loud = Training(noise_multiplier=0.0, max_grad_norm=100.0), Training(noise_multiplier=1000.0, max_grad_norm=100.0)
    x, y = data().tensors
    for training in (quiet, loud):
        for _ in range(10):
            training.epoch()
    with torch.no_grad():
        assert float(quiet.loss(x, y)) < 0.5
        assert float(loud.loss(x, y)) > 5
    assert float(loud.weights().abs().max()) > 100 * float(quiet.weights().abs().max())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_without_noise_it_is_clipped_sgd(reduction: str) -> None:
    training = Training(noise_multiplier=0.0, max_grad_norm=1.0, loss_reduction=reduction)
    twin = network()
    clipped = seen = 0
    for _ in range(3):
        for x, y in training.loader:
            total = [torch.zeros_like(p) for p in twin.parameters()]
            seen += len(x)
            for b in range(len(x)):
                loss = F.binary_cross_entropy_with_logits(twin(x[b : b + 1]), y[b : b + 1])
                gradient = torch.autograd.grad(loss, list(twin.parameters()))
                norm = float(torch.cat([g.flatten() for g in gradient]).norm())
                clipped += norm > 1.0
                for t, g in zip(total, gradient):
                    t += g * min(1.0, 1.0 / norm)
            with torch.no_grad():
                for p, t in zip(twin.parameters(), total):
                    p -= 0.1 * t / (BATCH if reduction == "mean" else 1)
            training.optimizer.zero_grad()
            output = training.module(x)
            F.binary_cross_entropy_with_logits(output, y, reduction=reduction).backward()
            training.optimizer.step()
            expected = nn.utils.parameters_to_vector(twin.parameters()).detach()
            torch.testing.assert_close(training.weights(), expected, rtol=1e-5, atol=1e-6)
    assert 0.1 * seen < clipped < 0.9 * seen


def test_no_noise_is_said_to_be_no_privacy(tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", noise_multiplier=0.0)
    training.epoch()
    assert training.engine.get_epsilon(DELTA) == math.inf
    ledger = Ledger(tmp_path / "l.db")
    assert {step.event for step in ledger.steps()} == {NonPrivateDpEvent()}
    assert ledger.spent(dataset="ward-7", delta=DELTA)[1] == math.inf


# The charge.


def test_every_step_is_charged_as_what_it_was(tmp_path: Path) -> None:
    # 67 is no multiple of 16: the last, partial batch counts.
    training = Training(tmp_path / "l.db", records=67, noise_multiplier=1.3)
    assert len(training.loader) == 5
    steps = sum(training.epoch() for _ in range(3))
    ledger = Ledger(tmp_path / "l.db")
    assert ledger.runs()[0].steps >= 15  # what is reserved is spent
    before = training.engine.epsilon_interval(DELTA)
    training.engine.finish()
    assert training.engine.epsilon_interval(DELTA) == before
    rate = math.nextafter(BATCH / 67, 1.0)  # the nearest float is below 16/67
    event = charged(PoissonSampledDpEvent(rate, GaussianDpEvent(1.3)), 1.3, training.module)
    assert steps == training.engine.steps == 15
    assert [step.event for step in ledger.steps()] == [event] * 15
    expected = epsilon(SelfComposedDpEvent(event, 15), DELTA)
    assert training.engine.get_epsilon(DELTA) == expected[1]
    assert training.engine.epsilon_interval(DELTA) == expected
    assert ledger.spent(dataset="ward-7", delta=DELTA) == expected
    (run,) = ledger.runs()
    assert (run.run_id, run.actor, run.steps) == (training.engine.run_id, "ada", 15)
    assert (run.plan["noise_multiplier"], run.plan["expected_batch_size"]) == (1.3, BATCH)
    assert ledger.verify()


def test_the_charge_is_in_the_ledger_before_the_gradient_exists(tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db")
    reader = Ledger(tmp_path / "l.db")
    seen: list[int] = []
    training.optimizer.register_step_pre_hook(lambda *_: seen.append(len(reader.steps())))  # after the engine's own
    for x, y in training.loader:
        training.optimizer.zero_grad()
        training.loss(x, y).backward()
        assert all(g is None for g in training.gradients())
        assert seen or reader.steps() == []
        training.optimizer.step()
    assert len(seen) == 4 and all(charged >= number for number, charged in enumerate(seen, 1))


def test_reading_epsilon_changes_nothing_and_it_never_falls() -> None:
    training = Training()
    assert training.engine.get_epsilon(DELTA) == 0
    last = 0.0
    for x, y in training.loader:
        training.optimizer.zero_grad()
        training.loss(x, y).backward()
        training.optimizer.step()
        now = training.engine.get_epsilon(DELTA)
        assert now == training.engine.get_epsilon(DELTA) > last
        last = now
    assert training.engine.get_epsilon(1e-8) > last > training.engine.get_epsilon(1e-2)


def test_empty_batches_are_steps(tmp_path: Path) -> None:
    # At a rate of 1/200 a batch of 200 records is empty with probability 0.37; none of 200 with probability below 1e-39.
    training = Training(tmp_path / "l.db", records=200, batch=1, build=lambda: nn.Linear(6, 1))
    empty = 0
    for x, y in training.loader:
        before = training.weights()
        training.optimizer.zero_grad()
        training.loss(x, y).backward()
        training.optimizer.step()
        if len(x) == 0:
            empty += 1
            assert bool((before != training.weights()).all())
    assert empty > 0
    training.engine.finish()
    assert training.engine.steps == len(Ledger(tmp_path / "l.db").steps()) == 200
    assert bool(torch.isfinite(training.weights()).all())


def test_an_empty_batch_adds_nothing_but_noise() -> None:
    training = Training(records=50, batch=1, noise_multiplier=0.0, build=lambda: nn.Linear(6, 1))
    sizes = []
    for _ in range(4):
        for x, y in training.loader:
            before = training.weights()
            training.optimizer.zero_grad()
            if len(x):  # a loop may skip forward and backward for a batch of nothing
                training.loss(x, y).backward()
            training.optimizer.step()
            assert bool((before == training.weights()).all()) == (len(x) == 0)
            sizes.append(len(x))
    assert 0 in sizes and training.engine.steps == 200


def test_calibration_stays_within_the_target() -> None:
    for target, epochs in ((0.5, 3), (2.0, 1), (8.0, 5)):
        engine, module = PrivacyEngine(ledger=":memory:"), nn.Linear(6, 1)
        optimizer, loader = torch.optim.SGD(module.parameters(), 0.1), DataLoader(data(), batch_size=BATCH)
        engine.make_private_with_epsilon(
            module=module, optimizer=optimizer, data_loader=loader, target_epsilon=target, target_delta=DELTA, epochs=epochs, max_grad_norm=1.0
        )  # fmt: skip
        for _ in range(epochs):
            for x, y in loader:
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(module(x), y).backward()
                optimizer.step()
        assert 0.98 * target < engine.get_epsilon(DELTA) <= target


@pytest.mark.parametrize("first", ["make_private", "make_private_with_epsilon"])
def test_a_target_is_for_a_new_engine(first: str) -> None:
    engine = PrivacyEngine(ledger=":memory:")

    def targeted(module: nn.Module) -> None:
        engine.make_private_with_epsilon(
            module=module, optimizer=torch.optim.SGD(module.parameters(), 0.1), data_loader=DataLoader(data(), batch_size=BATCH),
            target_epsilon=1.0, target_delta=DELTA, epochs=1, max_grad_norm=1.0,
        )  # fmt: skip

    if first == "make_private":
        Training(engine=engine)
    else:
        targeted(network())
    with pytest.raises(InvalidState, match="new engine"):
        targeted(network())


def test_own_batches_cost_more_than_poisson() -> None:
    poisson, own = Training(), Training(poisson_sampling=False)
    assert poisson.epoch() == own.epoch() == 4
    # One record more takes another's place in one batch, and the other joins the last: root of five clip norms an epoch.
    event = GaussianDpEvent(math.nextafter(1 / math.sqrt(5), 0.0))
    expected = epsilon(charged(event, 1.0, own.module, steps=4), DELTA)[1]
    assert own.engine.get_epsilon(DELTA) == expected > poisson.engine.get_epsilon(DELTA)


def test_own_batches_are_left_as_they_are() -> None:
    training = Training(poisson_sampling=False, records=60)
    assert [len(x) for x, _ in DataLoader(data(60), batch_size=BATCH)] == [16, 16, 16, 12]
    sizes = []
    for x, y in training.loader:
        sizes.append(len(x))
        training.loss(x, y).backward()
        training.optimizer.step()
    assert sizes == [16, 16, 16, 12]


def test_a_target_holds_for_own_batches() -> None:
    engine, module = PrivacyEngine(ledger=":memory:"), nn.Linear(6, 1)
    optimizer, loader = torch.optim.SGD(module.parameters(), 0.1), DataLoader(data(), batch_size=BATCH, shuffle=True)
    engine.make_private_with_epsilon(
        module=module, optimizer=optimizer, data_loader=loader, target_epsilon=2.0, target_delta=DELTA, epochs=2, max_grad_norm=1.0,
        poisson_sampling=False,
    )  # fmt: skip
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(module(x), y).backward()
            optimizer.step()
    assert 1.9 < engine.get_epsilon(DELTA) <= 2.0


def test_runs_on_one_dataset_add_up(tmp_path: Path) -> None:
    first = Training(tmp_path / "l.db")
    first.epoch()
    alone = first.engine.get_epsilon(DELTA)
    second = Training(tmp_path / "l.db", noise_multiplier=2.0)
    second.epoch()
    for training in (first, second):
        training.engine.finish()
    ledger = Ledger(tmp_path / "l.db")
    steps = (charged(PoissonSampledDpEvent(0.25, GaussianDpEvent(noise)), noise, first.module) for noise in (1.0, 2.0))
    both = ComposedDpEvent([SelfComposedDpEvent(step, 4) for step in steps])
    assert ledger.spent(dataset="ward-7", delta=DELTA)[1] == pytest.approx(epsilon(both, DELTA)[1], rel=1e-6)
    assert ledger.spent(dataset="ward-7", delta=DELTA)[1] > max(alone, second.engine.get_epsilon(DELTA))
    assert first.engine.get_epsilon(DELTA) == alone
    assert len(ledger.runs("ward-7")) == 2


def test_two_models_of_one_engine_add_up() -> None:
    first = Training()
    second = Training(engine=first.engine)
    first.epoch()
    one = first.engine.get_epsilon(DELTA)
    second.epoch()
    step = charged(PoissonSampledDpEvent(0.25, GaussianDpEvent(1.0)), 1.0, first.module)
    both = epsilon(SelfComposedDpEvent(step, 8), DELTA)[1]
    assert one < first.engine.get_epsilon(DELTA) == pytest.approx(both, rel=1e-6)


def test_a_spent_budget_stops_before_anything_is_released(tmp_path: Path) -> None:
    event = charged(PoissonSampledDpEvent(0.25, GaussianDpEvent(1.0)), 1.0, network())
    allowed = epsilon(SelfComposedDpEvent(event, 6), DELTA)[1]
    Ledger(tmp_path / "l.db").set_budget(dataset="ward-7", epsilon=allowed * 1.0001, delta=DELTA)
    training = Training(tmp_path / "l.db", optimizer=lambda p, lr: torch.optim.Adam(p, lr))
    training.epoch()
    steps = 0
    with pytest.raises(BudgetExceeded):
        for x, y in training.loader:
            training.optimizer.zero_grad()
            training.loss(x, y).backward()
            before = training.weights()
            state = str(training.optimizer.state_dict())
            training.optimizer.step()
            steps += 1
    assert steps == 2 and training.engine.steps == 6
    assert torch.equal(before, training.weights())
    assert state == str(training.optimizer.state_dict())
    assert all(g is None for g in training.gradients())
    assert training.engine.get_epsilon(DELTA) <= allowed
    ledger = Ledger(tmp_path / "l.db")
    assert len(ledger.steps()) == 6 and ledger.runs()[0].refusals == 1
    # The batch is gone: trying again without a new one is no way around.
    with pytest.raises((InvalidState, BudgetExceeded)):
        training.optimizer.step()
    assert torch.equal(before, training.weights())


def test_a_ledger_in_memory_says_so(tmp_path: Path) -> None:
    memory, disk = Training().engine, Training(tmp_path / "l.db").engine
    assert (memory.ledger_path, memory.durable) == (":memory:", False)
    assert disk.ledger_path == str(tmp_path / "l.db")
    assert disk.durable == Ledger(tmp_path / "l.db").durable


def test_rdp_is_never_tighter() -> None:
    events = []
    for accountant in ("pld", "rdp"):
        training = Training(engine=PrivacyEngine(accountant=accountant, ledger=":memory:"))
        training.epoch()
        events.append(training.engine.get_epsilon(DELTA))
    assert events[0] < events[1]
    with pytest.raises(InvalidArgument, match="gdp"):
        PrivacyEngine(accountant="gdp", ledger=":memory:")


def test_the_engine_as_a_context_records_how_it_ended(tmp_path: Path) -> None:
    with PrivacyEngine(ledger=tmp_path / "l.db", dataset="d") as engine:
        Training(engine=engine).epoch()
    with pytest.raises(ZeroDivisionError), PrivacyEngine(ledger=tmp_path / "l.db", dataset="d") as engine:
        Training(engine=engine).epoch()
        raise ZeroDivisionError
    runs = Ledger(tmp_path / "l.db").runs()
    assert [(run.status, run.steps) for run in runs] == [("completed", 4), ("failed", 4)]


def test_an_engine_without_a_run_says_what_to_do() -> None:
    engine = PrivacyEngine(ledger=":memory:")
    assert engine.get_epsilon(DELTA) == 0
    with pytest.raises(InvalidState, match="make_private"):
        _ = engine.steps


def test_messages_hold_no_data() -> None:
    training = Training(records=64)
    secret = 123456.789
    training.loader.dataset.tensors[0].fill_(secret)  # type: ignore[attr-defined]
    for x, _ in training.loader:
        with pytest.raises(RuntimeError) as error:
            (training.module(x).mean() + training.module[0].weight.sum()).backward()  # type: ignore[index,operator,union-attr]
        assert "12345" not in str(error.value)
        break


def test_a_compiled_part_without_parameters_and_eager_graphs_train() -> None:
    torch.manual_seed(0)
    squash = torch.compile(nn.Sequential(nn.Tanh(), nn.Softplus()), backend="aot_eager")
    module = torch.compile(nn.Sequential(nn.Linear(4, 6), squash, nn.Linear(6, 1)), backend="eager")
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loader = DataLoader(TensorDataset(torch.randn(16, 4)), batch_size=8)
    module, optimizer, loader = PrivacyEngine(ledger=":memory:").make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False
    )
    for (x,) in loader:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_of_a_private_model_can_be_evaluated_and_refuse_to_train(how: str) -> None:
    training = Training(noise_multiplier=1.0)
    x = next(iter(training.loader))[0]
    module = copy.deepcopy(training.module) if how == "deepcopy" else pickle.loads(pickle.dumps(training.module))
    with torch.no_grad():
        assert torch.equal(module(x), training.module(x))
    assert module.eval()(x).requires_grad
    with pytest.raises(Unsupported, match="a copy of one in training mode"):
        module.train()(x)


@pytest.mark.parametrize("value", [None, "1.0", True, [1.0]])
def test_what_is_no_number_is_said_by_name(value: Any) -> None:
    module = network()
    made = {"module": module, "optimizer": torch.optim.SGD(module.parameters(), 0.1), "data_loader": DataLoader(data(), batch_size=8), "max_grad_norm": 1.0}
    engine = PrivacyEngine(ledger=":memory:")
    with pytest.raises(InvalidArgument, match="noise_multiplier to be a number, received .*make_private_with_epsilon"):
        engine.make_private(**made, noise_multiplier=value)
    for name in ("target_epsilon", "target_delta"):
        targets = {"target_epsilon": 1.0, "target_delta": 1e-4, name: value}
        with pytest.raises(InvalidArgument, match=f"{name} to be a number"):
            engine.make_private_with_epsilon(**made, **targets, epochs=1)
