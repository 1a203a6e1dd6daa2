"""What a training does, as the options of `epsilon` and `calibrate` say it, and the event that is charged for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from hushgrad.cli.numbers import bands_value, count, delta_value, not_negative, positive, rate
from hushgrad.errors import InvalidArgument

if TYPE_CHECKING:
    from hushgrad.accounting import DpEvent

__all__ = ["Adjacency", "Mechanism", "Sampling", "Setting", "make_setting"]


class Mechanism(str, Enum):
    """What is added to the sum of one batch."""

    gaussian = "gaussian"
    laplace = "laplace"
    discrete_gaussian = "discrete-gaussian"
    adaptive_clipping = "adaptive-clipping"
    matrix = "matrix"
    tree = "tree"


class Sampling(str, Enum):
    """How batches come to be."""

    poisson = "poisson"
    truncated_poisson = "truncated-poisson"
    fixed_size = "fixed-size"
    random_allocation = "random-allocation"
    shuffled = "shuffled"
    none = "none"


class Adjacency(str, Enum):
    """Which data sets are neighbours."""

    add_or_remove_one = "add_or_remove_one"
    replace_one = "replace_one"
    zero_out = "zero_out"


NoiseMultiplier = Annotated[
    float | None,
    typer.Option(parser=not_negative, metavar="NUMBER", help="Noise standard deviation over max_grad_norm; Laplace: scale over the largest contribution."),
]
SamplingRate = Annotated[
    float | None, typer.Option(parser=rate, metavar="RATE", help="Chance of each sample to be in a batch, as 0.01 or 256/60000.")
]
DatasetSize = Annotated[int | None, typer.Option(parser=count, metavar="COUNT", help="Number of records.")]
BatchSize = Annotated[int | None, typer.Option(parser=count, metavar="COUNT", help="Expected batch size; needs --dataset-size.")]
Steps = Annotated[int | None, typer.Option(parser=count, metavar="COUNT", help="Number of optimizer steps.")]
Epochs = Annotated[int | None, typer.Option(parser=count, metavar="COUNT", help="Number of epochs, instead of --steps.")]
Delta = Annotated[float, typer.Option(parser=delta_value, metavar="DELTA", help="Chance at which epsilon may fail, in (0, 1).")]
MechanismOption = Annotated[Mechanism, typer.Option("--mechanism", help="The noise of one batch, or of the whole training: matrix and tree.")]
SamplingOption = Annotated[
    Sampling, typer.Option("--sampling", help="How batches are drawn. none: every record may be in every batch, no amplification.")
]
AdjacencyOption = Annotated[
    Adjacency | None,
    typer.Option("--adjacency", help="Neighbours. Default: add_or_remove_one; replace_one for fixed-size, zero_out for tree."),
]
MaxBatchSize = Annotated[int | None, typer.Option(parser=count, metavar="COUNT", help="truncated-poisson: larger batches are cut to this.")]
GroupSize = Annotated[int, typer.Option(parser=count, metavar="COUNT", help="Records that one person may have: epsilon is for the person.")]
Sensitivity = Annotated[int, typer.Option(parser=count, metavar="COUNT", help="discrete-gaussian: the largest contribution of a record, an integer.")]
CountNoise = Annotated[float | None, typer.Option(parser=positive, metavar="NUMBER", help="adaptive-clipping: noise deviation of the count.")]
Bands = Annotated[int, typer.Option(parser=bands_value, metavar="COUNT", help="matrix: bands of the square-root factorisation; 1 is independent noise.")]
TuningRuns = Annotated[
    float | None, typer.Option(parser=positive, metavar="NUMBER", help="Mean of a random (geometric) number of such runs of which the best is released.")
]


@dataclass(frozen=True)
class Setting:
    """One training. ``sampling_rate`` is batch over data set; sizes are None where only the rate is known."""

    noise_multiplier: float
    steps: int
    sampling_rate: float
    dataset_size: int | None = None
    batch_size: int | None = None
    mechanism: Mechanism = Mechanism.gaussian
    sampling: Sampling = Sampling.poisson
    max_batch_size: int | None = None
    group_size: int = 1
    sensitivity: int = 1
    count_noise_stddev: float | None = None
    bands: int = 1
    tuning_runs: float | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every record once, rounded up."""
        if self.dataset_size is not None and self.batch_size is not None:
            return -(-self.dataset_size // self.batch_size)
        return max(1, math.ceil(1 / self.sampling_rate - 1e-9)) if self.sampling_rate > 0 else 1

    @property
    def adjacency(self) -> Adjacency:
        """Where none is asked for: one that the event has a bound for."""
        if self.sampling is Sampling.fixed_size and self.mechanism is not Mechanism.matrix:
            return Adjacency.replace_one
        return Adjacency.zero_out if self.mechanism is Mechanism.tree else Adjacency.add_or_remove_one

    def after(self, steps: int) -> Setting:
        """The same training, stopped or prolonged."""
        return replace(self, steps=steps)

    def event(self) -> DpEvent:
        """What is charged."""
        from hushgrad import accounting

        event = self._training()
        if self.group_size > 1:
            event = accounting.GroupDpEvent(self.group_size, event)
        return event if self.tuning_runs is None else accounting.RepeatAndSelectDpEvent(event, self.tuning_runs, 1.0)

    def _training(self) -> DpEvent:
        from hushgrad.accounting import MatrixFactorizationDpEvent, SelfComposedDpEvent, SingleEpochTreeAggregationDpEvent

        if self.mechanism is Mechanism.matrix:
            if self.bands > self.steps:
                raise InvalidArgument(f"[matrix] Expected --bands of at most the steps ({self.steps}), received {self.bands}.")
            return MatrixFactorizationDpEvent(
                self.noise_multiplier, _square_root(self.bands), self.steps, self.steps_per_epoch, self._epochs()
            )
        if self.mechanism is Mechanism.tree:
            if self._epochs() > 1:
                raise InvalidArgument(
                    f"[tree] Expected one epoch (at most {self.steps_per_epoch} steps), received {self.steps} steps. Tree aggregation is "
                    "accounted for a single pass; for more use --mechanism matrix."
                )
            return SingleEpochTreeAggregationDpEvent(self.noise_multiplier, (self.steps,))
        event, count = self._repeated()
        return SelfComposedDpEvent(event, count)

    def _repeated(self) -> tuple[DpEvent, int]:
        """One step or epoch, and how many."""
        from hushgrad import accounting

        release = self._release()
        if self.sampling is Sampling.poisson:
            return accounting.PoissonSampledDpEvent(self.sampling_rate, release), self.steps
        if self.sampling is Sampling.none:
            return release, self.steps
        if self.sampling is Sampling.shuffled:
            return accounting.ShuffledEpochDpEvent(release), self._epochs()
        if self.sampling is Sampling.random_allocation:
            return accounting.BallsInBinsDpEvent(self.steps_per_epoch, release), self._epochs()
        size, batch = self._sizes()
        if self.sampling is Sampling.fixed_size:
            return accounting.SampledWithoutReplacementDpEvent(size, batch, release), self.steps
        if self.mechanism is not Mechanism.gaussian:
            raise InvalidArgument("[truncated-poisson] Expected --mechanism gaussian, received another one. Its bound is for Gaussian noise.")
        largest = self.max_batch_size if self.max_batch_size is not None else 2 * batch
        return accounting.TruncatedSubsampledGaussianDpEvent(size, self.sampling_rate, largest, self.noise_multiplier), self.steps

    def _release(self) -> DpEvent:
        from hushgrad import accounting

        if self.mechanism is Mechanism.laplace:
            return accounting.LaplaceDpEvent(self.noise_multiplier)
        if self.mechanism is Mechanism.discrete_gaussian:
            if self.sampling is Sampling.poisson:
                raise InvalidArgument("[discrete-gaussian] Expected --sampling none, received poisson. No bound of sampled discrete noise is known here.")
            return accounting.DiscreteGaussianDpEvent(self.noise_multiplier * self.sensitivity, self.sensitivity)
        if self.mechanism is Mechanism.adaptive_clipping:
            if self.count_noise_stddev is None:
                raise InvalidArgument("[adaptive-clipping] Expected --count-noise, received none. It is usually a twentieth of the batch size.")
            return accounting.AdaptiveClippingDpEvent(self.noise_multiplier, self.count_noise_stddev)
        return accounting.GaussianDpEvent(self.noise_multiplier)

    def _epochs(self) -> int:
        return -(-self.steps // self.steps_per_epoch)

    def _sizes(self) -> tuple[int, int]:
        if self.dataset_size is None or self.batch_size is None:
            raise InvalidArgument(
                f"[{self.sampling.value}] Expected --dataset-size and --batch-size, received a sampling rate. The bound depends on the sizes."
            )
        return self.dataset_size, self.batch_size

    def describe(self) -> str:
        """One line: what was assumed."""
        noise = f"{self.mechanism.value} noise {self.noise_multiplier:.6g}"
        how = {Sampling.none: "no sampling", Sampling.shuffled: "shuffled epochs, no amplification"}.get(self.sampling, f"{self.sampling.value} batches")
        if self.mechanism in (Mechanism.matrix, Mechanism.tree):
            how = f"a record at most every {self.steps_per_epoch} steps"
        size = f"{self.batch_size} of {self.dataset_size}" if self.batch_size and self.dataset_size else f"rate {self.sampling_rate:.6g}"
        parts = [noise, f"{how} ({size})", f"{self.steps} steps"]
        parts += [f"{self.group_size} records a person"] if self.group_size > 1 else []
        parts += [f"the best of about {self.tuning_runs:g} runs"] if self.tuning_runs is not None else []
        return ", ".join(parts)


def _square_root(bands: int) -> tuple[float, ...]:
    """The first coefficients of (1 - x)^(-1/2): the square root of the matrix of prefix sums (Fichtenberger et al. 2022)."""
    coefficients = [1.0]
    for k in range(1, bands):
        coefficients.append(coefficients[-1] * (2 * k - 1) / (2 * k))
    return tuple(coefficients)


def make_setting(
    *,
    noise_multiplier: float,
    sampling_rate: float | None,
    dataset_size: int | None,
    batch_size: int | None,
    steps: int | None,
    epochs: int | None,
    **more: object,
) -> Setting:
    """The setting of some options. Raises InvalidArgument where they contradict each other or leave something open."""
    rate_, size, batch = scale(sampling_rate, dataset_size, batch_size, str(more.get("sampling", "")).endswith("none"))
    draft = Setting(noise_multiplier, 1, rate_, size, batch, **more)  # type: ignore[arg-type]
    if steps is not None and epochs is not None:
        raise InvalidArgument("[steps] Expected --steps or --epochs, received both. Leave one out.")
    if steps is None and epochs is None:
        raise InvalidArgument("[steps] Expected --steps or --epochs, received neither.")
    if steps is None and epochs is not None and rate_ == 0:
        raise InvalidArgument("[steps] Expected a sampling rate above 0 with --epochs, received 0. Give --steps.")
    return draft.after(steps if steps is not None else (epochs or 0) * draft.steps_per_epoch)


def scale(sampling_rate: float | None, dataset_size: int | None, batch_size: int | None, optional: bool = False) -> tuple[float, int | None, int | None]:
    """(sampling rate, data set size, batch size); one of the three may follow from the others."""
    if batch_size is not None and dataset_size is not None:
        if batch_size > dataset_size:
            raise InvalidArgument(
                f"[batch] Expected a batch of at most the data set ({dataset_size} records), received {batch_size}. Check the two numbers."
            )
        exact = batch_size / dataset_size
        if sampling_rate is not None and not math.isclose(sampling_rate, exact, rel_tol=1e-9):
            raise InvalidArgument(
                f"[batch] Expected --sampling-rate {exact:.9g}, which is {batch_size} of {dataset_size}, received {sampling_rate:.9g}. Leave it out."
            )
        return exact, dataset_size, batch_size
    if batch_size is not None:
        raise InvalidArgument("[batch] Expected --dataset-size beside --batch-size, received none. Or give --sampling-rate alone.")
    if sampling_rate is not None:
        return sampling_rate, dataset_size, _batch_of(sampling_rate, dataset_size)
    if optional:
        return 1.0, dataset_size, dataset_size
    raise InvalidArgument("[batch] Expected --sampling-rate, or --dataset-size and --batch-size, received neither.")


def _batch_of(sampling_rate: float, dataset_size: int | None) -> int | None:
    """The whole batch size of a rate, None where there is none."""
    if dataset_size is None:
        return None
    batch = Fraction(sampling_rate) * dataset_size
    return round(batch) if abs(batch - round(batch)) < 1e-6 and round(batch) >= 1 else None


def warn_of_delta(delta: float, dataset_size: int | None, warn: Callable[[str], None]) -> None:
    """A delta near one over the number of records lets a record be published and still counts as private."""
    if dataset_size is not None and delta > 1 / dataset_size:
        warn(
            f"[delta] Expected at most 1/{dataset_size}, better a tenth of it, received {delta:g}: publishing a random record in full would "
            f"meet it. Use --delta 1/{10 * dataset_size}."
        )
    elif delta > 1e-3:
        warn(f"[delta] Expected well below one over the number of records, received {delta:g}. Usual are 1e-5 and less.")


def warn_of_epsilon(epsilon: float, warn: Callable[[str], None]) -> None:
    """Beyond some tens the bound excludes next to nothing."""
    if math.isinf(epsilon):
        warn("[epsilon] Infinite: nothing is promised. Without noise there is no protection.")
    elif epsilon > 20:
        warn(
            f"[epsilon] Large: a bound of {epsilon:.4g} excludes next to nothing that an attacker could learn. More noise, fewer steps or smaller "
            "batches lower it."
        )
