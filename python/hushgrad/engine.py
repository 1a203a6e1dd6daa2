"""One call that makes a PyTorch training script private; the script's own objects come back."""

from __future__ import annotations

import getpass
import os
import weakref
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, TypeVar

from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from hushgrad import _core, _torch, accounting, checkpoint
from hushgrad.approval import Approval, Operation, text_of
from hushgrad.batch_sampler import PhysicalBatches, PrivateBatchSampler
from hushgrad.batches import Sampling, UserIds, unsampled_distance, warn_of_cost
from hushgrad.clipping import Clipping
from hushgrad.collate_check import check_collate
from hushgrad.errors import HushgradError, InvalidArgument, InvalidState, LedgerError, Unsupported
from hushgrad.independence import check_modules
from hushgrad.engine_checkpoint import load_checkpoint, save_checkpoint
from hushgrad.keys import Keyring
from hushgrad.sealed import KeyringLike
from hushgrad.signing import PublicKey, SigningKey
from hushgrad.insecure_seed import InsecureSeed
from hushgrad.loader import make_loader_private
from hushgrad.private_parameters import split_parameters
from hushgrad.processes import ranks_of
from hushgrad.session import PrivateSession, close_earlier, session_of
from hushgrad.wrappers import run_as_written

__all__ = ["PrivacyEngine", "PrivateSession", "session_of", "unsampled_distance"]

_Module = TypeVar("_Module", bound=nn.Module)
_Optimizer = TypeVar("_Optimizer", bound=Optimizer)
_Loader = TypeVar("_Loader", bound=DataLoader[Any])


def _listed(approvals: Sequence[Operation | Approval | str | os.PathLike[str]]) -> Sequence[Operation | Approval | str | os.PathLike[str]]:
    if isinstance(approvals, (str, os.PathLike, Operation, Approval)):
        raise InvalidArgument(
            "[PrivacyEngine] Expected approvals to be a list of a request and its approvals, received a single one. Pass both, as paths or "
            "objects: approvals=[request, approval]."
        )
    return approvals


class PrivacyEngine:
    """Differentially private training for an unchanged loop.

    >>> engine = hushgrad.PrivacyEngine(dataset="ward-7")                                     # doctest: +SKIP
    >>> model, optimizer, loader = engine.make_private(
    ...     module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=1.1, max_grad_norm=1.0)

    Guarantee: what ``optimizer.step()`` applies is the clipped, noised gradient whose cost is durably in the ledger;
    (epsilon, delta) differential privacy of the trained weights for adding or removing one record, epsilon from
    ``get_epsilon``. The sensitivity holds up to floating-point rounding of norms and sums ("empirical").
    Not covered: what the script itself prints or saves (losses, metrics on training data), and choices made by hand after
    looking at the data.

    Args:
        accountant: "pld" (tightest) or "rdp".
        ledger: path of the budget ledger; default ``hushgrad.ledger.db`` in the working directory. ":memory:" keeps
            nothing and is labelled so wherever epsilon is shown.
        dataset: name of the data set whose budget is spent, letters, digits and ``._:@/-``; default "default".
        purpose, actor: recorded with the run; actor defaults to the login name.
        keyring: a Keyring or its path, or another key provider of hushgrad.keys; for checkpoints.
        identity: a ``hushgrad.signing.SigningKey`` or its path, that proves who trains. A ledger with access rules
            (``docs/access.md``) asks for it, and then actor defaults to whose key it is. ``Denied`` when training may not begin.
            It signs the checkpoints.
        approvals: where a policy asks for a second person before training: the requests to train (``hushgrad approve request
            train``) and the approvals of them (``hushgrad approve sign``), each a path or an object of
            ``hushgrad.approval``, in any order. A request is good for one run. ``InvalidArgument`` says what is missing.
    """

    def __init__(
        self,
        accountant: str = "pld",
        ledger: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        purpose: str | None = None,
        actor: str | None = None,
        keyring: KeyringLike | None = None,
        identity: SigningKey | str | os.PathLike[str] | None = None,
        approvals: Sequence[Operation | Approval | str | os.PathLike[str]] = (),
    ) -> None:
        if accountant not in ("pld", "rdp"):
            raise InvalidArgument(
                f'[PrivacyEngine] Expected accountant "pld" or "rdp", received {accountant!r}. "pld" is the tightest, and takes the place of "prv" and '
                '"gdp" elsewhere.'
            )
        self.accountant = accountant
        self.dataset = dataset or "default"
        self.purpose = purpose or ""
        self.keyring = keyring
        self.identity = identity
        self._last_checkpoint = ""
        self._ledger = _torch.LedgerHandle(os.fspath(ledger) if ledger is not None else "hushgrad.ledger.db")
        if identity is not None:
            key = identity if isinstance(identity, SigningKey) else SigningKey.load(identity)
            self._ledger.identify(_core.identity_capsule(key._core))
            self._ledger.present_for_run([text_of(one) for one in _listed(approvals)], self.dataset, self.purpose, key.id)
        elif approvals:
            raise InvalidArgument(
                "[PrivacyEngine] Expected an identity beside approvals, received none: they are given to the key that asked. Pass identity= "
                "with it."
            )
        self.actor = actor if actor is not None else self._ledger.actor() or _login_name()
        self._sessions: list[PrivateSession] = []
        self._settled_at_exit = weakref.finalize(self, _settle, self._ledger)

    @property
    def ledger_path(self) -> str:
        """Absolute path of the ledger, or ":memory:"."""
        return self._ledger.path

    @property
    def durable(self) -> bool:
        """Whether charges survive the process. False for ":memory:"."""
        return self._ledger.durable

    @property
    def run_id(self) -> str:
        """Id of the latest run in the ledger."""
        return self._latest().training.run_id

    @property
    def steps(self) -> int:
        """Noisy steps that the latest run has released."""
        return self._latest().training.steps

    def make_private(
        self,
        *,
        module: _Module,
        optimizer: _Optimizer,
        data_loader: _Loader,
        noise_multiplier: float,
        max_grad_norm: float | Sequence[float],
        poisson_sampling: bool = True,
        clipping: str = "flat",
        loss_reduction: str = "mean",
        batch_first: bool = True,
        noise_generator: InsecureSeed | None = None,
        target_unclipped_quantile: float = 0.5,
        clipbound_learning_rate: float = 0.2,
        min_clipbound: float | None = None,
        max_clipbound: float | None = None,
        unclipped_num_std: float | None = None,
        unchecked_loss: bool = False,
        sensitivity: str = "empirical",
        noise: str = "lattice_gaussian",
        sampling: str | None = None,
        max_batch_size: int | None = None,
        user_ids: UserIds | None = None,
        max_records_per_user: int | None = None,
    ) -> tuple[_Module, _Optimizer, _Loader]:
        """Makes the three objects private and returns the same three objects.

        The loader now draws Poisson batches with sampling rate batch_size / len(dataset); the gradients become
        (sum of clipped per-sample gradients + noise) / batch_size, or undivided for ``loss_reduction="sum"``.

        Args:
            noise_multiplier: noise standard deviation / max_grad_norm. 0 is accepted, charged as non-private (epsilon
                infinite) and shown as such.
            max_grad_norm: l2 norm to which a sample's gradient over all parameters is clipped, > 0. With "per_layer" it is shared
                evenly among the layers (modules that own parameters), or a sequence with a bound for each parameter in
                the optimizer's order, whose root of squares is the sensitivity. With "adaptive" it is where the bound starts.
            poisson_sampling: False goes through the data set once an epoch and charges without amplification: each epoch once
                if the loader shuffles, every step if it keeps the order. A warning says how much more that costs.
            clipping: "flat": min(1, C / norm) of the whole gradient. "per_layer": each layer for itself, inside the backward
                pass, with the memory of ordinary training. "automatic": C / (norm + 0.01), no bound to tune (Bu et al.
                2022). "adaptive": C follows a quantile of the norms (Andrew et al. 2021); the count it needs is released
                with noise of its own, and both together cost noise_multiplier.
            loss_reduction: how the criterion reduces over the batch, "mean" or "sum". It must match: it is not visible.
            batch_first: False if the batch is dimension 1 of inputs and outputs.
            noise_generator: None: batches and noise come from the system's secure generator, which has no seed. An
                ``InsecureSeed`` makes them repeatable, which undoes the protection; ledger and report say so.
            target_unclipped_quantile, clipbound_learning_rate, min_clipbound, max_clipbound: of "adaptive"; the limits default
                to 1e-4 and 1e4 times max_grad_norm.
            unclipped_num_std: of "adaptive": noise on the count of unclipped samples, > noise_multiplier / 2; default
                batch_size / 20, or noise_multiplier if that is larger.
            unchecked_loss: True accepts a loss whose operators have no second derivative, so that it cannot be checked to
                treat samples independently. A loss that is seen to couple samples is refused all the same.
            sensitivity: "empirical": float32 norms and sums, right up to rounding. "certified": the loader hands out the
                samples of a batch one by one (``step()`` applies the last of them), and they are clipped and summed in
                integers, so that no rounding is trusted (docs/proofs/certified_sensitivity.md). Far slower; "flat" only.
            noise: "lattice_gaussian": vectorised, within proven distance of the rounded Gaussian, which is charged too.
                "exact_lattice_gaussian": the rounded Gaussian itself, tens of times as slow; always used with "certified".
            sampling: the law of the batches (docs/batches.md). None: as ``poisson_sampling`` says. "poisson"; "truncated_poisson":
                Poisson, cut to ``max_batch_size``; "fixed_size": exactly ``batch_size`` records; "random_allocation": epochs in which
                every record chooses a batch; "shuffled", "sequential": epochs without amplification; "users": users instead of
                records, and the guarantee is a user's. What is charged follows the law.
            max_batch_size: of "truncated_poisson", >= batch_size; default six deviations above it.
            user_ids: of "users": an id for every record in the data set's order, the name of a column, or a function of a record.
                The loader's batch_size then counts users, max_grad_norm bounds a user's whole contribution to a step (the gradient of
                the mean, or sum, over the user's records in the batch), and records of a batch come grouped by users.
            max_records_per_user: of "users": at most so many records of a user are in a batch, chosen anew each time.

        Raises:
            InvalidArgument: a value outside its domain, a parameter of the optimizer that is not the module's.
            Unsupported: a module, optimizer or loader that cannot be trained privately; says what to use instead.
        """
        _require_number("make_private", "noise_multiplier", noise_multiplier, "Pass one (1.0, say), or a target epsilon to make_private_with_epsilon")
        return self._make_private(
            module, optimizer, data_loader, noise_multiplier,
            Clipping(
                clipping, max_grad_norm, target_unclipped_quantile, clipbound_learning_rate, min_clipbound, max_clipbound, unclipped_num_std
            ),
            Sampling(sampling, poisson_sampling, max_batch_size, user_ids, max_records_per_user), loss_reduction, batch_first, noise_generator,
            unchecked_loss, sensitivity, noise, None, None, None,
        )  # fmt: skip

    def make_private_with_epsilon(
        self,
        *,
        module: _Module,
        optimizer: _Optimizer,
        data_loader: _Loader,
        target_epsilon: float,
        target_delta: float,
        epochs: int,
        max_grad_norm: float | Sequence[float],
        poisson_sampling: bool = True,
        clipping: str = "flat",
        loss_reduction: str = "mean",
        batch_first: bool = True,
        noise_generator: InsecureSeed | None = None,
        target_unclipped_quantile: float = 0.5,
        clipbound_learning_rate: float = 0.2,
        min_clipbound: float | None = None,
        max_clipbound: float | None = None,
        unclipped_num_std: float | None = None,
        unchecked_loss: bool = False,
        sensitivity: str = "empirical",
        noise: str = "lattice_gaussian",
        sampling: str | None = None,
        max_batch_size: int | None = None,
        user_ids: UserIds | None = None,
        max_records_per_user: int | None = None,
    ) -> tuple[_Module, _Optimizer, _Loader]:
        """As ``make_private`` with the smallest noise for which ``epochs`` epochs cost at most ``target_epsilon``.

        The engine must be new: a target for a run that follows others would not be kept by their sum.
        """
        if self._sessions:
            raise InvalidState(
                "[make_private_with_epsilon] Expected a new engine, received one that already trains: the target would not hold for both "
                "runs together. Make another PrivacyEngine, or use make_private with a noise_multiplier."
            )
        _require_number("make_private_with_epsilon", "target_epsilon", target_epsilon, "Pass what the whole training may cost")
        _require_number("make_private_with_epsilon", "target_delta", target_delta, "Pass less than one by the number of records")
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise InvalidArgument(f"[make_private_with_epsilon] Expected epochs to be an integer >= 1, received {epochs!r}.")
        return self._make_private(
            module, optimizer, data_loader, None,
            Clipping(
                clipping, max_grad_norm, target_unclipped_quantile, clipbound_learning_rate, min_clipbound, max_clipbound, unclipped_num_std
            ),
            Sampling(sampling, poisson_sampling, max_batch_size, user_ids, max_records_per_user), loss_reduction, batch_first, noise_generator,
            unchecked_loss, sensitivity, noise, target_epsilon, target_delta, epochs,
        )  # fmt: skip

    def _make_private(
        self,
        module: _Module,
        optimizer: _Optimizer,
        data_loader: _Loader,
        noise_multiplier: float | None,
        clipping: Clipping,
        sampling: Sampling,
        loss_reduction: str,
        batch_first: bool,
        noise_generator: InsecureSeed | None,
        unchecked_loss: bool,
        sensitivity: str,
        noise: str,
        target_epsilon: float | None,
        target_delta: float | None,
        epochs: int | None,
    ) -> tuple[_Module, _Optimizer, _Loader]:
        if loss_reduction not in ("mean", "sum"):
            raise InvalidArgument(
                f'[make_private] Expected loss_reduction "mean" or "sum", received {loss_reduction!r}. Say what the loss that backward() is called on '
                "does over the batch."
            )
        if noise_generator is not None and not isinstance(noise_generator, InsecureSeed):
            raise InvalidArgument(
                "[make_private] Expected noise_generator=None, received a generator that can be seeded: it makes noise that can be removed. Leave it "
                "out; noise comes from the system's secure generator. For tests that must repeat there is hushgrad.InsecureSeed."
            )
        if sensitivity not in ("empirical", "certified"):
            raise InvalidArgument(f'[make_private] Expected sensitivity "empirical" or "certified", received {sensitivity!r}.')
        if noise not in ("lattice_gaussian", "exact_lattice_gaussian"):
            raise InvalidArgument(f'[make_private] Expected noise "lattice_gaussian" or "exact_lattice_gaussian", received {noise!r}.')
        certified = sensitivity == "certified"
        if certified and isinstance(data_loader, DataLoader) and isinstance(data_loader.dataset, IterableDataset):
            raise Unsupported(
                '[make_private] Expected a data set with __getitem__ and __len__ with sensitivity="certified", received an IterableDataset. Give it '
                '__getitem__, or use sensitivity="empirical".'
            )
        private, ignored = split_parameters(module, optimizer)
        ranks = ranks_of(module)
        check_modules(module)
        law = sampling.law(data_loader, 1 if ranks is None else ranks.size)
        check_collate(data_loader)

        def plan_with(noise_multiplier: float) -> _torch.TrainingPlan:
            return _torch.TrainingPlan(
                noise_multiplier=noise_multiplier,
                mean=loss_reduction == "mean",
                batch_first=batch_first,
                forward_is_checked=True,
                target_delta=target_delta,
                target_epsilon=target_epsilon,
                dataset=self.dataset,
                purpose=self.purpose,
                actor=self.actor,
                unchecked_loss=unchecked_loss,
                certified=certified,
                exact_noise=noise == "exact_lattice_gaussian",
                insecure_seed=None if noise_generator is None else noise_generator.seed,
                parameter_sizes=[p.numel() for p in private.values()],
                **law,
                **clipping.plan(list(private), noise_multiplier, float(law["batch_size"])),
            )

        if noise_multiplier is None:
            assert target_epsilon is not None and target_delta is not None and epochs is not None
            noise_multiplier = _calibrated(plan_with, target_epsilon, target_delta, epochs)
        plan = plan_with(float(noise_multiplier))
        names, parameters = list(private), list(private.values())
        close_earlier(parameters)
        training = _torch.PrivateTraining(plan, parameters, names, list(ignored.values()), self._ledger, ranks)
        session = PrivateSession(module, optimizer, training, 0 if batch_first else 1, ranks)
        session._private = frozenset(id(p) for p in parameters)
        session._leaves = {id(p): get_gradient_edge(p).node for p in parameters}
        session._known = {id(p): p for p in (*parameters, *ignored.values())}
        run_as_written(module, session._private)
        records = law["dataset_size"] if law["owners"] is None else len(law["owners"])
        drawn = PrivateBatchSampler(lambda: session.training.begin_epoch(), lambda: session.training.draw(), plan.steps_per_epoch, records)
        limit = 1 if certified else None
        batches = PhysicalBatches(drawn, limit) if certified or sampling.by_users else drawn
        make_loader_private(data_loader, batches, session.begin_batch, session.batch_dim)
        if law["sampling"] in ("shuffled", "sequential") and noise_multiplier > 0:
            warn_of_cost(plan, law, float(noise_multiplier), epochs or 10, target_delta or 1 / (10 * law["dataset_size"]))
        self._sessions.append(session)
        return module, optimizer, data_loader

    @property
    def noise_multiplier(self) -> float:
        """Of the latest run's next step. May be set between steps, by a schedule that does not look at the data."""
        return self._latest().training.noise_multiplier

    @noise_multiplier.setter
    def noise_multiplier(self, value: float) -> None:
        self._latest().training.set_noise_multiplier(float(value))

    @property
    def max_grad_norm(self) -> float:
        """Clipping bound of the latest run's next step. May be set between steps under "flat" and "automatic" clipping."""
        return self._latest().training.max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, value: float) -> None:
        self._latest().training.set_max_grad_norm(float(value))

    def get_epsilon(self, delta: float) -> float:
        """Upper end of epsilon at ``delta`` of everything this engine has released: never below the truth.

        0 before the first step; ``inf`` if a step had no noise. Reading does not change it.
        """
        return self.epsilon_interval(delta)[1]

    def epsilon_interval(self, delta: float) -> tuple[float, float]:
        """``(lower, upper)`` of epsilon at ``delta`` of everything this engine has released."""
        events = [accounting.event_from_json(session.training.history()) for session in self._sessions]
        return accounting.epsilon(accounting.ComposedDpEvent(tuple(events)), delta, self.accountant)

    def save_checkpoint(
        self,
        path: str | os.PathLike[str],
        *,
        module: nn.Module,
        optimizer: Optimizer | None = None,
        extra: object = None,
        overwrite: bool = False,
        background: bool = False,
        metric: float | None = None,
        keep_last: int | None = None,
        keep_best: int = 0,
    ) -> checkpoint.Saving:
        """Seals model, optimizer, plan and the ledger's head into one encrypted file.

        extra: any nesting of dicts, lists, tuples, tensors, numbers, strings and None (a scheduler's state_dict, say).
        background: return after a copy of the tensors was made; ``wait()`` of what is returned says how it ended. An error
        nobody waited for is raised by the next save, and a save that still runs when Python exits is finished first.
        keep_last, keep_best, metric: afterwards delete this run's older checkpoints in the same folder, but for the newest
        and those with the largest metric (``hushgrad.checkpoint.retain``).
        The file is signed by the engine's ``identity``, and its digest goes into the ledger before it appears.
        Of several processes that train together the first writes; in the others nothing happens.
        Raises InvalidState without a keyring; IoError if the file exists and overwrite is False.
        """
        return save_checkpoint(
            self, path, module=module, optimizer=optimizer, extra=extra, overwrite=overwrite, background=background, metric=metric,
            keep_last=keep_last, keep_best=keep_best,
        )  # fmt: skip

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        *,
        module: nn.Module,
        optimizer: Optimizer | None = None,
        strict: bool = True,
        writer: PublicKey | str | None = None,
    ) -> Any:
        """Opens a sealed checkpoint into module and optimizer and returns its ``extra``.

        Budget is never read from it: what was spent stays spent, and further steps are charged in full.
        strict: as in ``torch.nn.Module.load_state_dict``; if False, missing and unexpected keys are warned about.
        writer: the identity that must have signed it. What the engine's own identity signed is always held against it.
        Raises LedgerError if the checkpoint has seen a ledger that this one does not continue (a ledger that was put
        back), or if this ledger did not record exactly this file; SealError or KeyError if the file is not intact or not
        ours; RuntimeError, as PyTorch does, for keys or shapes that do not fit.
        """
        return load_checkpoint(self, path, module=module, optimizer=optimizer, strict=strict, writer=writer)

    def finish(self, status: str = "completed") -> None:
        """Marks the engine's runs "completed" or "failed" in the ledger. Never changes what was spent."""
        for session in self._sessions:
            session.training.finish(status)

    def __enter__(self) -> PrivacyEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.finish("completed" if kind is None else "failed")

    def _latest(self) -> PrivateSession:
        if not self._sessions:
            raise InvalidState("[PrivacyEngine] Expected make_private() first, received none.")
        return self._sessions[-1]

    def _require_keyring(self) -> Any:
        if self.keyring is None:
            raise InvalidState(
                "[checkpoint] Expected a keyring, received none. Create one with `hushgrad keys init PATH` and pass keyring=PATH to PrivacyEngine."
            )
        return Keyring(self.keyring) if isinstance(self.keyring, (str, os.PathLike)) else self.keyring

    def _spent_json(self, delta: float) -> dict[str, object]:
        upper = self.get_epsilon(delta)
        return {"delta": delta, "epsilon": upper if upper != float("inf") else "infinity", "durable": self.durable}


def _calibrated(plan_with: Callable[[float], _torch.TrainingPlan], target_epsilon: float, target_delta: float, epochs: int) -> float:
    noise_multiplier = plan_with(1e-3).calibrated_noise(target_epsilon, target_delta, epochs)
    # What follows from the noise multiplier (the noise on the count of adaptive clipping) may move the last digits.
    while accounting.epsilon(accounting.event_from_json(plan_with(noise_multiplier).charged_event_of(epochs)), target_delta)[1] > target_epsilon:
        noise_multiplier *= 1 + 1e-4
    return noise_multiplier


def _require_number(where: str, name: str, value: object, instead: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidArgument(f"[{where}] Expected {name} to be a number, received {type(value).__name__}. {instead}.")


def _settle(ledger: _torch.LedgerHandle) -> None:
    try:
        ledger.settle()
    except HushgradError:
        pass  # what cannot be stated durably, or crossed a fork, stays spent


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, ImportError, LookupError):
        return ""
