"""What joins one module, one optimizer and one loader to a private training run of the core."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn
from torch._compile import _disable_dynamo
from torch.autograd.graph import get_gradient_edge
from torch.optim import Optimizer

from hushgrad import _torch
from hushgrad.backward import watch_losses
from hushgrad.batch_sampler import Announced
from hushgrad.errors import InvalidArgument, InvalidState, PrivacyViolation, Unsupported
from hushgrad.independence import check_forward, check_inputs
from hushgrad.nested import tensors_in

__all__ = ["CopiedSession", "EndedTraining", "PrivateSession", "close_earlier", "is_private", "session_of"]

_sessions: weakref.WeakKeyDictionary[Optimizer, PrivateSession] = weakref.WeakKeyDictionary()


def session_of(optimizer: Optimizer) -> PrivateSession:
    """The private session of an optimizer that went through ``make_private``. Raises InvalidArgument for any other."""
    session = _sessions.get(optimizer)
    if session is None:
        raise InvalidArgument(
            "[optimizer] Expected an optimizer that went through PrivacyEngine.make_private, received another one. Make it private first."
        )
    return session


def is_private(optimizer: Optimizer) -> bool:
    """Whether ``session_of`` would find a session."""
    return optimizer in _sessions


def close_earlier(parameters: list[nn.Parameter]) -> None:
    """A parameter belongs to one private run: that of the latest make_private."""
    identities = {id(p) for p in parameters}
    for session in list(_sessions.values()):
        if not identities.isdisjoint(session._private):
            session.close()


class PrivateSession:
    """Joins one module, one optimizer and one loader to a training run of the core. Made by ``make_private``."""

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, training: _torch.PrivateTraining, batch_dim: int, ranks: _torch.Ranks | None = None
    ) -> None:
        self.training = training
        self.ranks = ranks
        self.batch_dim = batch_dim
        self._optimizer = weakref.ref(optimizer)
        self._batch: int | None = None
        self._rows = 0
        self._last_physical = True
        self._iteration: object = None
        self._skipped: object = None  # iteration over the loader in which an empty batch was left out
        self._refused: str | None = None
        self._looked_at = False  # the parameters, once at least
        self._hooks = [
            module.register_forward_hook(self._after_forward, with_kwargs=True),
            optimizer.register_step_pre_hook(self._before_step),
        ]
        watch_losses(self)
        zero_grad = optimizer.zero_grad
        owner = weakref.ref(self)

        def zero_grad_and_discard(set_to_none: bool = True) -> None:
            session = owner()
            if session is not None and session.training.has_gradients:
                session.training.discard(False)
            zero_grad(set_to_none=set_to_none)

        optimizer.zero_grad = zero_grad_and_discard  # type: ignore[method-assign]
        self._tells_scalers = not hasattr(optimizer, "_step_supports_amp_scaling")
        optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]  # so that GradScaler comes as far as step()
        _sessions[optimizer] = self

    def begin_batch(self, batch: Announced) -> None:
        """A physical batch begins."""
        if self._batch == 0 and batch.iteration is self._iteration:
            self._skipped = batch.iteration
        self._iteration = batch.iteration
        if batch.first and not self.training.has_gradients:
            self.training.discard(True)
        self.training.begin_batch(batch.size, batch.epoch)
        self._batch = batch.size
        self._rows = batch.size if batch.rows is None else batch.rows
        self._last_physical = batch.last

    @_disable_dynamo
    def _after_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        # Outside of training nothing is watched: a backward pass through it is stopped at the parameters.
        if not module.training or not torch.is_grad_enabled():
            return
        outputs = [t for t in tensors_in(output) if t.requires_grad]
        if not outputs:
            return
        if self._refused is not None:
            raise Unsupported(self._refused)
        if not self._batch:
            # Nobody's pass: an empty batch, or one between step() and the next batch (a generator trained through this
            # model). As a batch of nobody, it gives inputs their gradients and parameters none.
            if self._batch is None:
                self.training.begin_batch(0, 0)
            self.training.watch(outputs)
            return
        check_inputs(args, kwargs, self._rows, self.batch_dim)
        is_new = self._watch(outputs)
        if is_new or not self._looked_at:
            self._refuse_newcomers(module)
            self._looked_at = True
        if is_new and self._batch > 1:
            hooks = module._forward_hooks.copy()
            module._forward_hooks.clear()  # the check calls the module; it must not be watched, nor call the user's hooks
            try:
                see = self.training.check_derivatives if self.training.needs_derivatives else None
                check_forward(module, args, kwargs, self._rows, self.batch_dim, see)
            except Unsupported as error:
                # The graph's structure is known by now and would not be checked again.
                self._refused = self.training.suspicion or str(error)
                raise Unsupported(self._refused) from error
            finally:
                module._forward_hooks.update(hooks)

    def _refuse_newcomers(self, module: nn.Module) -> None:
        # A new structure of the graph: the only one in which a parameter can be that was not there before.
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if self._leaves.get(id(parameter), leaf := get_gradient_edge(parameter).node) is not leaf:
                raise Unsupported(
                    f"[model] Expected the parameters that make_private found, received '{name}', whose values were exchanged since (a change of "
                    "type or device, register_parametrization): its gradients would be missed. Make all changes first, then call make_private."
                )
            if id(parameter) not in self._known:
                raise Unsupported(
                    f"[model] Expected the trainable parameters that make_private found, received '{name}', which was added, replaced or unfrozen "
                    "since: nothing would clip or train it. Make all changes first, then the optimizer, then call make_private."
                )

    def _watch(self, outputs: list[torch.Tensor]) -> bool:
        try:
            return self.training.watch(outputs)
        except Unsupported as error:
            if self._batch is None or not 1 < self._batch < self._rows:
                raise
            raise Unsupported(
                f"{error} If the model treats records independently, its layers do not keep the rows of one user together (a batch dimension that "
                "is not the first, say): hand users out one at a time, by BatchMemoryManager with max_physical_batch_size=1."
            ) from None

    def before_backward(self, losses: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
        """Refuses a loss that couples the samples of the batch."""
        if self._batch is not None and losses:
            self.training.check_loss(losses, gradients)

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # PyTorch passes the optimizer itself as the first argument.
        closure: Callable[[], Any] | None = kwargs.get("closure", args[1] if len(args) > 1 else None)
        result: tuple[Any, ...] | None = None
        if closure is not None:
            # The optimizer would call it after this hook and find ordinary gradients; it runs here, once.
            with torch.enable_grad():
                loss = closure()
            result = ((optimizer, lambda: loss), {})
        self._refuse_foreign_gradients(optimizer)
        _refuse_scaled_gradients(optimizer)
        if self._refused is not None:
            raise Unsupported(self._refused)
        if self._batch is None:
            raise InvalidState(
                "[step] Expected a batch from the private data loader since the last step, received none. Iterate over the loader that "
                "make_private returned and call step() once a batch."
            )
        if self._skipped is not None and self._skipped is self._iteration:
            raise InvalidState(
                "[step] Expected a step for every empty batch, received one after an empty batch that was left out: the missing step would tell, "
                "without noise, that nobody was drawn. Drop the test for empty batches; forward, backward and step() take them."
            )
        self.training.accumulate()
        self._batch = None
        if self._last_physical:
            self.training.step()
        else:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        return result

    def _refuse_foreign_gradients(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad and id(parameter) not in self._private:
                    raise PrivacyViolation(
                        "[step] Expected only the parameters that were made private, received another trainable one in the optimizer. Call "
                        "make_private after the last add_param_group() or requires_grad_(True)."
                    )
                refuse_hooks("step", "of the optimizer", parameter)

    _private: frozenset[int] = frozenset()
    _leaves: Mapping[int, object] = MappingProxyType({})  # of private ones: the node of the graph that stands for each
    _known: Mapping[int, nn.Parameter] = MappingProxyType({})  # private ones and those that no private optimizer trains, kept alive

    def __reduce__(self) -> tuple[type[CopiedSession], tuple[()]]:
        # copy.deepcopy(model) and pickling it, for averages of weights and snapshots: the copy is nobody's run.
        return CopiedSession, ()

    def close(self) -> None:
        """Ends private training: the module trains as before, without privacy and without a charge. What was spent stays spent."""
        self._batch = None
        self.training.finish("completed")
        # With the run itself go the guards that stop ordinary gradients at the parameters.
        self.training = cast(_torch.PrivateTraining, EndedTraining.of(self.training))
        for hook in self._hooks:
            hook.remove()
        optimizer = self._optimizer()
        if optimizer is not None:
            optimizer.__dict__.pop("zero_grad", None)
            if self._tells_scalers:
                optimizer.__dict__.pop("_step_supports_amp_scaling", None)
            _sessions.pop(optimizer, None)


def refuse_hooks(where: str, name: str, parameter: nn.Parameter) -> None:
    """Raises Unsupported for a parameter with hooks on its gradient: the private gradient does not come through autograd."""
    if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
        raise Unsupported(
            f"[{where}] Expected parameters without hooks on their gradients, received one on {name}: the private gradient is made in step(), where "
            "no hook would run. To freeze rows or scale a gradient, multiply the parameter in forward(); take hooks for logging off."
        )


def _refuse_scaled_gradients(optimizer: Optimizer) -> None:
    # torch.amp.GradScaler hands these to optimizers that say they understand scaled gradients, and asserts otherwise.
    if getattr(optimizer, "found_inf", None) is not None:
        raise Unsupported(
            "[step] Expected losses that are not scaled, received a step of torch.amp.GradScaler: every sample's gradient would look too long and be "
            "clipped. Call loss.backward() and optimizer.step() without the scaler; clipped sums are kept in float32, and bfloat16 needs no scaling."
        )


class CopiedSession:
    """What a copy of a private model holds in place of its session: it may be evaluated, and refuses to train."""

    _refused = (
        "[model] Expected a model that went through make_private, received a copy of one in training mode: its gradients would be ordinary "
        "ones. Evaluate copies under eval() or torch.no_grad(); to train, load the state_dict into a new model and make that private."
    )

    def _after_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if module.training and torch.is_grad_enabled() and any(t.requires_grad for t in tensors_in(output)):
            raise Unsupported(self._refused)


@dataclass(frozen=True)
class EndedTraining:
    """What is known of a run whose session was closed; in place of the run itself."""

    run_id: str
    steps: int
    plan_json: str
    target_delta: float | None
    noise_multiplier: float
    max_grad_norm: float
    charges: str
    has_gradients: bool = False

    @staticmethod
    def of(training: _torch.PrivateTraining) -> EndedTraining:
        """The facts of a run that goes on until now."""
        return EndedTraining(
            training.run_id, training.steps, training.plan_json, training.target_delta, training.noise_multiplier,
            training.max_grad_norm, training.history(),
        )  # fmt: skip

    def history(self) -> str:
        """Every charge of the run as one event, in JSON."""
        return self.charges

    def finish(self, status: str) -> None:
        """Nothing: the run is finished."""

    def discard(self, all: bool) -> None:
        """Nothing: there is nothing left."""

    def begin_batch(self, size: int, epoch: int) -> None:
        """Nothing: the batch is an ordinary one."""

    def begin_epoch(self) -> None:
        """Nothing: draw() says what is wrong."""

    def draw(self) -> tuple[int, list[int], list[int] | None]:
        """Raises InvalidState: batches of a private loader belong to its run."""
        raise InvalidState(
            "[loader] Expected a loader whose private training goes on, received one whose training was closed. Make a new DataLoader."
        )
