"""
Bindings of dpcore and accounting; use the hushgrad package instead.
"""
from __future__ import annotations
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any
from typing_extensions import Buffer
class PoissonSampler:
    """
    Poisson batches: every record is in a batch independently with probability sampling_rate, exactly.
    
    population: records, >= 1. sampling_rate: a Fraction (or int) in (0, 1], exact, or a float, rounded down to a multiple of
    2^-62. Raises InvalidArgument otherwise. Cost follows the batch for rates below 1/64, the data set above.
    insecure_seed: makes the batches repeatable and the privacy void; tests only.
    Each object has its own cryptographically secure generator, which a forked child does not continue.
    """
    def __init__(self, population: int, sampling_rate: Fraction | float, *, insecure_seed: int | None = None) -> None: ...
    def draw(self) -> list[int]:
        """
        The next batch: a list of record numbers, possibly empty. Its members and its size are private data.
        """
    @property
    def expected_batch_size(self) -> float: ...
    @property
    def insecure(self) -> bool:
        """
        True if made with insecure_seed.
        """
    @property
    def population(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...
    @property
    def charged_rate(self) -> float:
        """
        The smallest float that is not below sampling_rate.
        """
    @property
    def sampling_rate(self) -> Fraction: ...
class TruncatedPoissonSampler:
    """
    Poisson batches, cut to a uniform choice of max_batch_size records where they are larger. Charged as truncated Poisson.
    max_batch_size: >= 1; the rest as in PoissonSampler.
    """
    def __init__(self, population: int, sampling_rate: Fraction | float, max_batch_size: int, *, insecure_seed: int | None = None) -> None: ...
    def draw(self) -> list[int]:
        """
        The next batch: a list of record numbers, possibly empty. Its members and its size are private data.
        """
    @property
    def expected_batch_size(self) -> float: ...
    @property
    def insecure(self) -> bool:
        """
        True if made with insecure_seed.
        """
    @property
    def population(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...
    @property
    def max_batch_size(self) -> int: ...
    @property
    def sampling_rate(self) -> Fraction: ...
class FixedSizeSampler:
    """
    Every set of batch_size records is equally likely, independently of all other batches. Charged as sampling without
    replacement, for a record replaced by another. batch_size: in [1, population]. Raises InvalidArgument otherwise.
    """
    def __init__(self, population: int, batch_size: int, *, insecure_seed: int | None = None) -> None: ...
    def draw(self) -> list[int]:
        """
        The next batch: a list of record numbers, possibly empty. Its members and its size are private data.
        """
    @property
    def expected_batch_size(self) -> float: ...
    @property
    def insecure(self) -> bool:
        """
        True if made with insecure_seed.
        """
    @property
    def population(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...
class ShuffledSampler:
    """
    Epochs in which every record comes once, in a uniformly random order (or, with shuffle=False, in the given one), cut into
    batches of batch_size; the last may be smaller. Charged without amplification, once an epoch. batch_size: in
    [1, population]. Raises InvalidArgument otherwise. Memory: 8 bytes a record.
    """
    def __init__(self, population: int, batch_size: int, shuffle: bool = True, *, insecure_seed: int | None = None) -> None: ...
    def draw(self) -> list[int]:
        """
        The next batch: a list of record numbers, possibly empty. Its members and its size are private data.
        """
    @property
    def expected_batch_size(self) -> float: ...
    @property
    def insecure(self) -> bool:
        """
        True if made with insecure_seed.
        """
    @property
    def population(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...
    def begin_epoch(self) -> None:
        """
        Begins a new epoch, whatever is left of the last.
        """
    @property
    def epoch(self) -> int:
        """
        Epochs begun so far.
        """
class RandomAllocationSampler:
    """
    Every record takes part in `participations` of an epoch's `steps` batches, each choice equally likely; one is balls in
    bins. Charged once an epoch, as random allocation. participations: in [1, steps]. Raises InvalidArgument otherwise.
    """
    def __init__(self, population: int, steps: int, participations: int = 1, *, insecure_seed: int | None = None) -> None: ...
    def draw(self) -> list[int]:
        """
        The next batch: a list of record numbers, possibly empty. Its members and its size are private data.
        """
    @property
    def expected_batch_size(self) -> float: ...
    @property
    def insecure(self) -> bool:
        """
        True if made with insecure_seed.
        """
    @property
    def population(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...
    def begin_epoch(self) -> None:
        """
        Begins a new epoch, whatever is left of the last.
        """
    @property
    def epoch(self) -> int:
        """
        Epochs begun so far.
        """
class UserSampler:
    """
    Poisson batches of users: each user is in a batch independently with probability sampling_rate, with all records or a
    uniform choice of max_records_per_user of them.
    
    owners: the user of every record, any integers. The guarantee is for a user if the user's whole contribution is clipped.
    Raises InvalidArgument without a record or for max_records_per_user < 1.
    """
    def __init__(self, owners: Sequence[int], max_records_per_user: int, sampling_rate: Fraction | float, *, insecure_seed: int | None = None) -> None: ...
    def draw(self) -> tuple[list[int], list[int]]:
        """
        (records, sizes): record numbers, users one after the other, and how many each user has. Private data.
        """
    @property
    def expected_batch_size(self) -> float:
        """
        In users.
        """
    @property
    def insecure(self) -> bool:
        """
        True if made with insecure_seed.
        """
    @property
    def max_records_per_user(self) -> int: ...
    @property
    def sampling_rate(self) -> Fraction: ...
    @property
    def steps_per_epoch(self) -> int: ...
    @property
    def users(self) -> int: ...
class Lattice:
    """
    Spacing and noise of the lattice Gaussian, in the units of the sum.
    """
    @property
    def grid(self) -> float: ...
    @property
    def noise_stddev(self) -> float: ...
class Event:
    """
    An event as C++ sees it; use the classes of hushgrad.accounting instead.
    """
    @staticmethod
    def composed(arg0: Sequence[Event]) -> Event: ...
    @staticmethod
    def from_json(arg0: str) -> Event: ...
    @staticmethod
    def gaussian(arg0: float) -> Event: ...
    @staticmethod
    def no_op() -> Event: ...
    @staticmethod
    def non_private() -> Event: ...
    @staticmethod
    def poisson_sampled(arg0: float, arg1: Event) -> Event: ...
    @staticmethod
    def self_composed(arg0: Event, arg1: int) -> Event: ...
    @staticmethod
    def unsupported(arg0: str) -> Event: ...
    def __getstate__(self) -> str: ...
    def __setstate__(self, arg0: str) -> None: ...
    def fields(self) -> tuple[Any, ...]: ...
    def to_json(self) -> str: ...
    @property
    def type_name(self) -> str: ...
class Ledger:
    """
    The budget ledger; use hushgrad.ledger.Ledger instead.
    """
    def __init__(self, path: str, create: bool = True) -> None: ...
    def begin_run(self, arg0: str, arg1: str, arg2: str, arg3: str) -> str: ...
    def budget(self, arg0: str) -> tuple[Any, ...] | None: ...
    def budgets(self, arg0: str) -> list[Any]: ...
    def charge(self, arg0: str, arg1: str) -> None: ...
    def charge_step(self, arg0: str, arg1: str) -> None: ...
    def contains(self, arg0: int, arg1: str) -> bool: ...
    def dataset_history(self, arg0: str) -> str: ...
    def dataset_info(self, arg0: str) -> tuple[Any, ...] | None: ...
    def datasets(self) -> list[str]: ...
    def describe_dataset(self, arg0: str, arg1: str, arg2: str, arg3: str, arg4: Sequence[str], arg5: int, arg6: Sequence[str], arg7: str, arg8: str) -> None: ...
    def entries(self, arg0: int, arg1: int) -> list[Any]: ...
    def expect(self, arg0: int, arg1: str) -> bool: ...
    def finish_run(self, arg0: str, arg1: str) -> None: ...
    def head(self) -> tuple[int, str]: ...
    def id(self) -> str: ...
    def limit_block(self, arg0: int) -> None: ...
    def missing(self) -> list[tuple[int, str]]: ...
    def record(self, arg0: str, arg1: Mapping[str, str]) -> int: ...
    def records(self, arg0: str) -> list[Any]: ...
    def repair(self, arg0: str, arg1: str, arg2: str) -> None: ...
    def run(self, arg0: str) -> tuple[Any, ...]: ...
    def run_history(self, arg0: str) -> str: ...
    def run_spent(self, arg0: str, arg1: float) -> tuple[float, float]: ...
    def runs(self, arg0: str | None) -> list[Any]: ...
    def set_budget(self, arg0: str, arg1: float, arg2: float, arg3: str, arg4: str, arg5: float, arg6: str) -> None: ...
    def settle(self) -> None: ...
    def spent(self, arg0: str, arg1: float) -> tuple[float, float]: ...
    def steps(self, arg0: str | None, arg1: str | None) -> list[Any]: ...
    def verify(self) -> tuple[bool, int, int, str]: ...
    @property
    def durable(self) -> bool: ...
    @property
    def path(self) -> str: ...
class Keyring:
    """
    A local keyring; use hushgrad.keys.Keyring instead.
    """
    @staticmethod
    def create(path: str) -> Keyring: ...
    def __init__(self, path: str) -> None: ...
    def create_key(self, dataset: str) -> None: ...
    def has_key(self, dataset: str) -> bool: ...
    def list(self) -> Sequence[Any]: ...
    def rotate_key(self, dataset: str) -> None: ...
    @property
    def path(self) -> str: ...
class SealedEntry:
    @property
    def begin(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def end(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> list[int]: ...
class SealedReader:
    """
    An open sealed file whose header is authentic.
    """
    def __init__(self, path: str, keyring: Keyring) -> None: ...
    def read(self, name: str) -> bytes:
        """
        The bytes of a tensor.
        """
    def read_into(self, name: str, out: Buffer) -> None:
        """
        Fills a writable buffer of the tensor's length.
        """
    def verify_all(self) -> None:
        """
        Authenticates every segment of the file.
        """
    @property
    def core(self) -> dict[str, Any]: ...
    @property
    def meta_json(self) -> str: ...
    @property
    def tensors(self) -> list[SealedEntry]: ...
def add_lattice_noise_for_testing(values: Buffer, noise_multiplier: float, max_grad_norm: float, scale: float = 1.0, *, exact: bool = False, insecure_seed: int | None = None) -> None:
    """
    Adds lattice Gaussian noise to a float32 buffer in place, for statistics in tests. Nothing was clipped and nothing
    is charged: the result carries NO PRIVACY GUARANTEE. Training adds its noise in C++.
    
    values: [n] float32, writable. noise_multiplier: >= 0. max_grad_norm: the l2 sensitivity. scale: > 0.
    exact: the rounded Gaussian itself, in integers; tens of times as slow.
    insecure_seed: makes the noise repeatable. Raises InvalidArgument, or PrivacyViolation for a value that is not
    finite; `values` is zero afterwards.
    """
def affordable_steps(history: Event, step: Event, target_epsilon: float, target_delta: float) -> int: ...
def calibrate_noise(target_epsilon: float, target_delta: float, sampling_rate: float, steps: int) -> float: ...
def choose_lattice(noise_multiplier: float, l2_sensitivity: float, dimension: int) -> Lattice:
    """
    The public grid and noise for a sum with the given l2 sensitivity and number of coordinates.
    
    grid: a power of two with sqrt(dimension) * grid <= 2^-14 * l2_sensitivity. noise_stddev: at least
    noise_multiplier * (l2_sensitivity + sqrt(dimension) * grid), which pays for rounding. Both in units of the sum.
    Raises InvalidArgument outside noise_multiplier 0 or [2^-32, 2^32], l2_sensitivity [2^-64, 2^64], dimension <= 2^48.
    """
def delta(arg0: Event, arg1: float, arg2: str) -> tuple[float, float]: ...
def epsilon(arg0: Event, arg1: float, arg2: str) -> tuple[float, float]: ...
def inspect_sealed(path: str) -> dict[str, Any]:
    """
    The core a file claims, without a key: UNAUTHENTICATED, never a basis for a decision.
    """
def random_bytes(size: int) -> bytes:
    """
    `size` random bytes of a generator that was just seeded by the operating system; for identifiers and tests.
    """
def write_sealed(path: str, core: dict[str, Any], meta_json: str, tensors: Sequence[tuple[str, str, Sequence[int], Buffer]], keyring: Keyring, overwrite: bool = False) -> None:
    """
    Seals [(name, dtype, shape, buffer)] and a JSON text under the key of core['dataset']; see docs/formats/sealed_file.md.
    """
def head_in(arg0: str, arg1: str) -> tuple[int, str]: ...
def head_text(arg0: str, arg1: int, arg2: str) -> str: ...
def make_note_keys(arg0: str) -> tuple[str, str]: ...
def open_note(arg0: str, arg1: str) -> str: ...
def sign_note(arg0: str, arg1: str) -> str: ...
