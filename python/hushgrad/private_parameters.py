"""Which parameters a private run trains, and which optimizers it takes."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, Optimizer

from hushgrad.errors import InvalidArgument, InvalidState, Unsupported
from hushgrad.session import is_private, refuse_hooks

__all__ = ["split_parameters"]


def split_parameters(module: nn.Module, optimizer: Optimizer) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """(private, ignored): the trainable parameters that the optimizer holds, and those of the module that it does not; by name.

    Raises:
        InvalidArgument: not a module, not an optimizer, parameters that are not the module's, none that is trainable.
        InvalidState: an optimizer that is private already.
        Unsupported: an optimizer that takes several gradients a step, parameters with hooks on their gradients.
    """
    if not isinstance(module, nn.Module):
        raise InvalidArgument(
            f"[make_private] Expected module to be a torch.nn.Module, received {type(module).__name__}. Pass the model itself, not its class or parameters."
        )
    if not isinstance(optimizer, Optimizer):
        raise InvalidArgument(
            f"[make_private] Expected optimizer to be a torch.optim.Optimizer, received {type(optimizer).__name__}. Build one from module.parameters()."
        )
    if isinstance(optimizer, LBFGS):
        raise Unsupported(
            "[make_private] Expected an optimizer that takes one gradient a step, received LBFGS, which takes several. Use SGD, Adam or another."
        )
    if is_private(optimizer):
        raise InvalidState("[make_private] Expected an optimizer that is not private yet, received one that is. Make a new optimizer.")
    for whole_name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise InvalidArgument(
                f"[make_private] Expected parameters of known shape, received '{whole_name}' of a lazy module that has not run. Call the model once on a "
                "batch of zeros before the optimizer is made."
            )
    named = {id(p): name for name, p in module.named_parameters()}
    stepped: dict[str, nn.Parameter] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = named.get(id(parameter))
            if name is None:
                raise InvalidArgument(
                    "[make_private] Expected every parameter of the optimizer to be the module's, received one that is not. Build the optimizer "
                    "from module.parameters(), after the last change of the module."
                )
            if parameter.requires_grad:
                refuse_hooks("make_private", f"'{name}'", parameter)
                stepped[name] = parameter
    if not stepped:
        raise InvalidArgument("[make_private] Expected at least one trainable parameter in the optimizer, received none.")
    ignored = {name: p for name, p in module.named_parameters() if p.requires_grad and name not in stepped}
    return stepped, ignored
