"""``PrivacyEngine`` with Opacus' arguments and return shapes."""

from __future__ import annotations

import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import hushgrad
from hushgrad import _core, accounting
from hushgrad.batches import unsampled_distance
from hushgrad.compat.opacus.accountants import IAccountant, create_accountant
from hushgrad.compat.opacus.accountants.accountant import EventAccountant
from hushgrad.compat.opacus.accountants.utils import get_noise_multiplier
from hushgrad.compat.opacus.data_loader import adopt_loader
from hushgrad.compat.opacus.grad_sample.grad_sample_module import GradSampleHooks, adopt_module
from hushgrad.compat.opacus.optimizers.optimizer import adopt_optimizer
from hushgrad.compat.opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from hushgrad.compat.opacus.utils.uniform_sampler import UniformWithReplacementSampler
from hushgrad.compat.opacus.validators.module_validator import ModuleValidator
from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.insecure_seed import InsecureSeed
from hushgrad.loader_check import describe_loader, is_sequential, steps_per_epoch
from hushgrad.processes import processes_of
from hushgrad.session import is_private, session_of

__all__ = ["PrivacyEngine"]

_Path = str | os.PathLike[str] | IO[bytes]

_MODES = ("hooks", "functorch", "ew", "ghost")
_ADAPTIVE = (
    "target_unclipped_quantile",
    "clipbound_learning_rate",
    "max_clipbound",
    "min_clipbound",
    "unclipped_num_std",
)
_CALIBRATION = ("epsilon_tolerance", "alphas", "eps_error", "delta_error")


class PrivacyEngine:
    """Opacus' entry point over a ``hushgrad.PrivacyEngine``, which is ``.native``.

    Args:
        accountant: "prv", "rdp", "gdp" or a name given to ``register_accountant``.
        secure_mode: both values are secure; kept for scripts that name it.
        ledger, dataset, purpose, actor, keyring: as for ``hushgrad.PrivacyEngine``. By default steps are charged to
            ``hushgrad.ledger.db`` in the working directory.
    """

    def __init__(
        self,
        *,
        accountant: str = "prv",
        secure_mode: bool = False,
        ledger: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        purpose: str | None = None,
        actor: str | None = None,
        keyring: Any = None,
    ) -> None:
        self.secure_mode = secure_mode
        self.secure_rng = None
        self.dataset: Any = None
        self.native = hushgrad.PrivacyEngine(
            accountant="rdp" if accountant == "rdp" else "pld",
            ledger=ledger,
            dataset=dataset,
            purpose=purpose,
            actor=actor,
            keyring=keyring,
        )
        self.accountant = create_accountant(accountant)

    @property
    def accountant(self) -> IAccountant:
        """Counts every charged step. Another one may be put in its place; it starts with what it holds."""
        return self._accountant

    @accountant.setter
    def accountant(self, accountant: IAccountant) -> None:
        if isinstance(accountant, EventAccountant):
            accountant._released = self.native.get_epsilon
        self._accountant = accountant

    def make_private(
        self,
        *,
        module: nn.Module,
        optimizer: Optimizer,
        criterion: Callable[..., torch.Tensor] | None = None,
        data_loader: DataLoader[Any],
        noise_multiplier: float,
        max_grad_norm: float | Sequence[float],
        batch_first: bool = True,
        loss_reduction: str = "mean",
        poisson_sampling: bool = True,
        clipping: str = "flat",
        noise_generator: object = None,
        grad_sample_mode: str = "hooks",
        wrap_model: bool = True,
        rand_on_empty: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """``(module, optimizer, data_loader)``, or ``(module, optimizer, criterion, data_loader)`` in the mode "ghost".

        The three are the caller's own objects, made private in place; with ``wrap_model=False`` the first is a
        ``GradSampleHooks`` instead. Arguments as for ``hushgrad.PrivacyEngine.make_private``, and:

        Args:
            criterion: comes back in the mode "ghost"; default ``nn.CrossEntropyLoss(reduction=loss_reduction)``.
            clipping: "flat", "per_layer" (``max_grad_norm`` a bound for each trainable parameter, in the optimizer's order),
                "adaptive" (with Opacus' five further arguments) or hushgrad's "automatic".
            grad_sample_mode: "hooks", "functorch", "ew" and "ghost" all clip exactly by the same method.
            rand_on_empty: one made-up row in place of a batch without rows, for models that cannot take it. It counts for
                nothing: as a sample it would double the sensitivity.

        Raises:
            UnsupportedModuleError: a module that mixes samples, or is in evaluation mode.
            InvalidArgument, Unsupported: both are ValueErrors; the message says what to use instead.
        """
        self._check(module, optimizer, grad_sample_mode, noise_generator)
        adaptive = _adaptive_arguments(clipping, kwargs)
        ghost = _criterion(criterion, loss_reduction) if grad_sample_mode == "ghost" else None
        self._note_dataset(data_loader)
        poisson_sampling = _draws_poisson(data_loader) or poisson_sampling
        _ignore_drop_last(data_loader, poisson_sampling)
        size, batch_size = describe_loader(data_loader, processes_of(module))
        if is_private(optimizer):
            session_of(optimizer).close()
        distance = unsampled_distance(data_loader)
        self.native.make_private(
            module=module,
            optimizer=optimizer,
            data_loader=data_loader,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            poisson_sampling=poisson_sampling,
            clipping=clipping,
            loss_reduction=loss_reduction,
            batch_first=batch_first,
            noise_generator=noise_generator if isinstance(noise_generator, InsecureSeed) else None,
            **adaptive,
        )
        rate = batch_size / size if poisson_sampling else None
        adopt_optimizer(
            optimizer,
            expected_batch_size=batch_size,
            loss_reduction=loss_reduction,
            max_grad_norm=max_grad_norm,
            on_step=self._counter(optimizer, rate, distance),
        )
        if rate is not None:
            adopt_loader(data_loader, rate, rand_on_empty, batch_first)
        close = session_of(optimizer).close
        returned = adopt_module(module, close) if wrap_model else GradSampleHooks(module, close)
        return (returned, optimizer, data_loader) if ghost is None else (returned, optimizer, ghost, data_loader)

    def make_private_with_epsilon(
        self,
        *,
        module: nn.Module,
        optimizer: Optimizer,
        criterion: Callable[..., torch.Tensor] | None = None,
        data_loader: DataLoader[Any],
        target_epsilon: float,
        target_delta: float,
        epochs: int,
        max_grad_norm: float | Sequence[float],
        batch_first: bool = True,
        loss_reduction: str = "mean",
        poisson_sampling: bool = True,
        clipping: str = "flat",
        noise_generator: object = None,
        grad_sample_mode: str = "hooks",
        wrap_model: bool = True,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """As ``make_private``, with noise for which ``epochs`` epochs cost at most ``target_epsilon`` by this engine's accountant.

        The target holds for this run alone: a warning says so where the engine has spent already. ``epsilon_tolerance``,
        ``alphas``, ``eps_error`` and ``delta_error`` are accepted.
        """
        if len(self.accountant) > 0:
            warnings.warn(
                "make_private_with_epsilon: this engine has spent already, and the target is for the new run alone. Together they cost more.",
                stacklevel=2,
            )
        calibration = {name: kwargs.pop(name) for name in _CALIBRATION if name in kwargs}
        poisson_sampling = _draws_poisson(data_loader) or poisson_sampling
        _ignore_drop_last(data_loader, poisson_sampling)
        size, batch_size = describe_loader(data_loader, processes_of(module))
        once = not poisson_sampling and not is_sequential(data_loader)  # charged once an epoch
        sample_rate = batch_size / size if poisson_sampling else 1.0
        steps = epochs * (1 if once else steps_per_epoch(size, batch_size))
        noise_multiplier = get_noise_multiplier(
            target_epsilon=target_epsilon,
            target_delta=target_delta,
            sample_rate=sample_rate,
            steps=steps,
            accountant=self.accountant.mechanism(),
            **calibration,
        )
        distance = 1.0 if poisson_sampling else unsampled_distance(data_loader)
        noise_multiplier = distance * _for_finite_precision(
            noise_multiplier,
            distance=distance,
            sample_rate=sample_rate,
            steps=steps,
            sizes=[p.numel() for p in module.parameters()],
            within_target=lambda event: accounting.epsilon(event, target_delta, self.native.accountant)[1] <= target_epsilon,
        )
        return self.make_private(
            module=module,
            optimizer=optimizer,
            criterion=criterion,
            data_loader=data_loader,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            batch_first=batch_first,
            loss_reduction=loss_reduction,
            poisson_sampling=poisson_sampling,
            clipping=clipping,
            noise_generator=noise_generator,
            grad_sample_mode=grad_sample_mode,
            wrap_model=wrap_model,
            **kwargs,
        )

    def get_epsilon(self, delta: float) -> float:
        """Epsilon at ``delta`` by this engine's accountant: of its history, and never less than this engine released."""
        return self.accountant.get_epsilon(delta)

    def is_compatible(
        self, *, module: nn.Module, optimizer: Optimizer | None = None, data_loader: DataLoader[Any] | None = None
    ) -> bool:
        """Whether the module passes ``ModuleValidator``."""
        return ModuleValidator.is_valid(module)

    def validate(
        self, *, module: nn.Module, optimizer: Optimizer | None = None, data_loader: DataLoader[Any] | None = None
    ) -> None:
        """Raises UnsupportedModuleError where ``is_compatible`` is False."""
        ModuleValidator.validate(module, strict=True)

    @classmethod
    def get_compatible_module(cls, module: nn.Module) -> nn.Module:
        """A copy that ``ModuleValidator.fix`` has made trainable. Raises UnsupportedModuleError if it cannot."""
        fixed = ModuleValidator.fix(module)
        ModuleValidator.validate(fixed, strict=True)
        return fixed

    def save_checkpoint(
        self,
        *,
        path: _Path,
        module: nn.Module,
        optimizer: Optimizer | None = None,
        noise_scheduler: Any = None,
        grad_clip_scheduler: Any = None,
        checkpoint_dict: dict[str, Any] | None = None,
        module_state_dict_kwargs: dict[str, Any] | None = None,
        torch_save_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Opacus' plain, unencrypted file. ``engine.native.save_checkpoint`` seals instead."""
        checkpoint = checkpoint_dict or {}
        checkpoint["module_state_dict"] = module.state_dict(**(module_state_dict_kwargs or {}))
        checkpoint["privacy_accountant_state_dict"] = self.accountant.state_dict()
        for key, value in _stateful(optimizer, noise_scheduler, grad_clip_scheduler):
            if value is not None:
                checkpoint[key] = value.state_dict()
        torch.save(checkpoint, path, **(torch_save_kwargs or {}))

    def load_checkpoint(
        self,
        *,
        path: _Path,
        module: nn.Module,
        optimizer: Optimizer | None = None,
        noise_scheduler: Any = None,
        grad_clip_scheduler: Any = None,
        module_load_dict_kwargs: dict[str, Any] | None = None,
        torch_load_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Opens ``save_checkpoint``'s file, or Opacus' own, and returns what else was in it.

        Tensors and plain values only (``weights_only=True``): a file must not run code. The accountant takes over the
        file's history; what this engine has released stays spent.
        """
        checkpoint: dict[str, Any] = torch.load(path, **{"weights_only": True, **(torch_load_kwargs or {})})
        module.load_state_dict(_without_wrapper(checkpoint["module_state_dict"]), **(module_load_dict_kwargs or {}))
        self.accountant.load_state_dict(checkpoint["privacy_accountant_state_dict"])
        for key, value in _stateful(optimizer, noise_scheduler, grad_clip_scheduler):
            state = checkpoint.pop(key, None)
            if value is not None and state:
                value.load_state_dict(state)
            elif key == "optimizer_state_dict" and (value is not None) != bool(state):
                warnings.warn(
                    f"load_checkpoint: an optimizer was {'given' if value is not None else 'not given'}, and the file holds "
                    f"{'its state' if state else 'no state of one'}.",
                    stacklevel=2,
                )
        return checkpoint

    def _check(self, module: nn.Module, optimizer: Optimizer, grad_sample_mode: str, noise_generator: object) -> None:
        if noise_generator is not None and not isinstance(noise_generator, InsecureSeed):
            raise InvalidArgument(
                "[make_private] Expected noise_generator=None, received one: a generator that can be seeded makes noise that can be removed. "
                "Leave it out; noise comes from the system's secure generator. For tests that must repeat there is hushgrad.InsecureSeed."
            )
        known = {id(p) for p in module.parameters()}
        if any(id(p) not in known for group in optimizer.param_groups for p in group["params"]):
            raise InvalidArgument(
                "[make_private] Module parameters are different than optimizer Parameters: expected every parameter of the optimizer to be the "
                "module's, received one that is not. Build the optimizer after the last change of the module (ModuleValidator.fix makes a copy)."
            )
        _check_mode(grad_sample_mode)
        self.validate(module=module)

    def _note_dataset(self, data_loader: DataLoader[Any]) -> None:
        if self.dataset is None:
            self.dataset = data_loader.dataset
        elif self.dataset is not data_loader.dataset:
            warnings.warn(
                "make_private: this engine has trained on another data set object. Accounting adds up what touches the same people: use one "
                "PrivacyEngine (and one dataset= name) for each data set.",
                stacklevel=3,
            )

    def _counter(self, optimizer: Optimizer, sample_rate: float | None, distance: float) -> Callable[[float], None]:
        session = weakref.ref(session_of(optimizer))
        seen = 0

        def on_step(noise_multiplier: float) -> None:
            nonlocal seen
            training = session()
            if training is None or training.training.charges == seen:
                return  # an epoch without sampling is charged once, with its first step
            seen = training.training.charges
            self._count(noise_multiplier, sample_rate, distance)

        return on_step

    def _count(self, noise_multiplier: float, sample_rate: float | None, distance: float) -> None:
        # Without amplification a Gaussian of a smaller multiplier, as the ledger is charged (accounting/batch_law.h).
        own = noise_multiplier / 2 if distance == 2 else math.nextafter(noise_multiplier / math.sqrt(5), 0.0)
        step = (noise_multiplier, sample_rate) if sample_rate is not None else (own, 1.0)
        self.accountant.step(noise_multiplier=step[0], sample_rate=step[1])


def _for_finite_precision(
    noise_multiplier: float,
    *,
    distance: float,
    sample_rate: float,
    steps: int,
    sizes: Sequence[int],
    within_target: Callable[[accounting.DpEvent], bool],
) -> float:
    """The noise, larger by what the finite precision of the sampler costs: a target holds for what the ledger is charged."""
    growth = 1e-6
    while True:
        order, divergence, failure = _core.fast_noise_precision(noise_multiplier * distance, sizes)
        step = accounting.PoissonSampledDpEvent(sample_rate, accounting.GaussianDpEvent(math.nextafter(noise_multiplier, 0.0)))
        run = accounting.SelfComposedDpEvent(step, steps)
        if within_target(accounting.FinitePrecisionDpEvent(run, order, steps * divergence, steps * failure)):
            return noise_multiplier
        noise_multiplier *= 1 + growth
        growth *= 2


def _check_mode(grad_sample_mode: str) -> None:
    if grad_sample_mode in _MODES:
        return
    if grad_sample_mode in ("ghost_fsdp", "ghost_tp"):
        raise Unsupported(
            f'[make_private] Expected training in one process, received grad_sample_mode={grad_sample_mode!r}. Use "ghost" on the whole module.'
        )
    if grad_sample_mode == "no_op":
        raise Unsupported(
            '[make_private] Expected hushgrad to find the gradients, received grad_sample_mode="no_op": per-sample gradients that a script '
            'brings along cannot be checked. Use "hooks".'
        )
    raise InvalidArgument(f"[make_private] Expected grad_sample_mode to be one of {_MODES}, received {grad_sample_mode!r}.")


def _adaptive_arguments(clipping: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    known = _ADAPTIVE if clipping == "adaptive" else ()
    unknown = sorted(set(kwargs) - set(known) - set(_CALIBRATION))
    if unknown:
        raise InvalidArgument(
            f"[make_private] Expected arguments that clipping={clipping!r} has, received {unknown}. Correct or drop them: an argument that "
            "nothing reads would look as if it held."
        )
    missing = [name for name in known if name not in kwargs]
    if missing:
        raise InvalidArgument(f'[make_private] Expected clipping="adaptive" with {missing}, received none. Pass them.')
    return {name: kwargs[name] for name in known}


def _criterion(
    criterion: Callable[..., torch.Tensor] | None, loss_reduction: str
) -> DPLossFastGradientClipping:
    return DPLossFastGradientClipping(criterion or nn.CrossEntropyLoss(reduction=loss_reduction), loss_reduction)


def _draws_poisson(data_loader: DataLoader[Any]) -> bool:
    """Whether the script built Poisson batches itself: the loader then counts as one with their expected size."""
    sampler = data_loader.batch_sampler
    if not isinstance(sampler, UniformWithReplacementSampler):
        return False
    if data_loader.batch_size is None:
        data_loader.__dict__["batch_size"] = max(1, round(sampler.num_samples * sampler.sample_rate))
    return True


def _ignore_drop_last(data_loader: DataLoader[Any], poisson_sampling: bool) -> None:
    if poisson_sampling and data_loader.drop_last:
        warnings.warn("make_private: drop_last=True is ignored. Poisson batches have no last one.", stacklevel=3)
        data_loader.__dict__["drop_last"] = False


def _stateful(optimizer: Any, noise_scheduler: Any, grad_clip_scheduler: Any) -> Iterable[tuple[str, Any]]:
    return (
        ("optimizer_state_dict", optimizer),
        ("noise_scheduler_state_dict", noise_scheduler),
        ("grad_clip_scheduler_state_dict", grad_clip_scheduler),
    )


def _without_wrapper(state: dict[str, Any]) -> dict[str, Any]:
    """Opacus' wrapper puts ``_module.`` before every key."""
    prefix = "_module."
    if not state or not all(key.startswith(prefix) for key in state):
        return state
    return {key[len(prefix) :]: value for key, value in state.items()}
