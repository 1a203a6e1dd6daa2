"""Says before training what of a model can be trained privately, what cannot, and what to use instead.

>>> import torch
>>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
>>> [(finding.module, finding.status) for finding in examine(model).findings]
[('0', 'supported'), ('1', 'refused')]
>>> examine(fix(model), torch.randn(4, 3, 8, 8)).ok
True
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from hushgrad import _torch
from hushgrad.errors import InvalidArgument, Unsupported
from hushgrad.independence import check_forward, check_inputs, find_mixing_module, problem_of
from hushgrad.nested import tensors_in

__all__ = ["Diagnosis", "Finding", "batch_norm_to_group_norm", "examine", "fix", "replacement_for"]


@dataclass(frozen=True)
class Finding:
    """What is true of one module."""

    module: str
    """Dotted name, "" for the model itself."""
    kind: str
    """Its class."""
    status: str
    """ "supported", "frozen" (owns no trainable parameter), "unproven" (known once the model runs on inputs) or "refused"."""
    reason: str
    instead: str = ""
    """What to do where refused."""
    replacement: str = ""
    """The expression that ``fix`` puts in the module's place; "" where there is none."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order of ``named_modules``."""

    findings: tuple[Finding, ...]
    ran: bool
    """Whether the model ran on inputs. Only then is mixing of samples outside of known modules seen."""

    @property
    def refused(self) -> tuple[Finding, ...]:
        """What ``make_private`` or the first step would stop at."""
        return tuple(finding for finding in self.findings if finding.status == "refused")

    @property
    def ok(self) -> bool:
        """Whether nothing is refused."""
        return not self.refused

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"ok": self.ok, "ran": self.ran, "findings": [asdict(finding) for finding in self.findings]}


def examine(module: nn.Module, inputs: Any = None, *, batch_first: bool = True) -> Diagnosis:
    """Looks at every module; with ``inputs`` also runs a copy forwards and backwards through the checks of training.

    The module itself is not changed.

    Args:
        inputs: one batch of at least two samples: a tensor, a tuple of positional or a dictionary of keyword arguments.
            Any values of the right shape and range do; public or random ones, please.
        batch_first: False if the batch is dimension 1.

    Raises:
        InvalidArgument: inputs without a batch of at least two samples.
        Whatever the module itself raises on the inputs.
    """
    findings = list(_look(module))
    if not module.training:
        reason = "the model is in evaluation mode: nothing would be clipped"
        findings.insert(0, Finding("", type(module).__name__, "refused", reason, "Call model.train()"))
    if inputs is None:
        return Diagnosis(tuple(findings), ran=False)
    if any(finding.status == "refused" for finding in findings):
        return Diagnosis(tuple(findings), ran=False)
    found = _run(copy.deepcopy(module), inputs, 0 if batch_first else 1)
    if found is None:
        return Diagnosis(tuple(_proven(finding) for finding in findings), ran=True)
    others = [finding for finding in findings if finding.module != found.module]
    return Diagnosis((*others, found), ran=True)


def fix(module: nn.Module, *, num_groups: int | None = None) -> nn.Module:
    """A deep copy in which ``replacement_for`` has replaced what it can. The module itself is not changed.

    Replaced layers are not the same function: train or fine-tune afterwards. Build the optimizer after this call.
    """
    fixed = copy.deepcopy(module)
    for name, child in list(fixed.named_modules(remove_duplicate=False)):
        replacement = replacement_for(child, num_groups=num_groups)
        if replacement is None:
            continue
        if name == "":
            return replacement
        parent, _, attribute = name.rpartition(".")
        setattr(fixed.get_submodule(parent), attribute, replacement)
    return fixed


def replacement_for(module: nn.Module, *, num_groups: int | None = None) -> nn.Module | None:
    """What ``fix`` puts in the place of one module; None where nothing is wrong or nothing fits.

    BatchNorm becomes GroupNorm with ``num_groups`` or gcd(32, channels) groups, and keeps its scale and shift, epsilon,
    type and device, and whether it is trained. Running statistics of InstanceNorm, ``max_norm`` and
    ``scale_grad_by_freq`` of embeddings are switched off.
    """
    if problem_of(module) is None:
        return None
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return batch_norm_to_group_norm(module, num_groups)
    clone = copy.deepcopy(module)
    if isinstance(clone, nn.modules.instancenorm._InstanceNorm):
        clone.track_running_stats = False
        clone.running_mean = clone.running_var = clone.num_batches_tracked = None
    elif isinstance(clone, (nn.Embedding, nn.EmbeddingBag)):
        clone.max_norm, clone.scale_grad_by_freq = None, False
    return clone


def batch_norm_to_group_norm(module: nn.modules.batchnorm._BatchNorm, num_groups: int | None = None) -> nn.GroupNorm:
    """GroupNorm over the same channels. Raises InvalidArgument if they cannot be split into ``num_groups``."""
    channels = module.num_features
    groups = math.gcd(32, channels) if num_groups is None else num_groups
    if groups < 1 or channels % groups != 0:
        raise InvalidArgument(
            f"[doctor] Expected num_groups to divide {channels} channels, received {groups}. Leave it out for gcd(32, channels)."
        )
    norm = nn.GroupNorm(groups, channels, eps=module.eps, affine=module.affine)
    norm.train(module.training)
    if module.affine:
        norm.to(module.weight.device, module.weight.dtype)
        norm.load_state_dict({"weight": module.weight, "bias": module.bias})
        norm.weight.requires_grad_(module.weight.requires_grad)
        norm.bias.requires_grad_(module.bias.requires_grad)
    return norm


def _look(module: nn.Module) -> Iterator[Finding]:
    for name, child in module.named_modules():
        kind = type(child).__name__
        if (problem := problem_of(child)) is not None:
            reason = problem.received.lstrip(": ")
            replacement = replacement_for(child)
            described = "" if replacement is None else f"torch.nn.{replacement}"
            yield Finding(name, kind, "refused", reason, problem.instead, described)
            continue
        own = list(child.parameters(recurse=False))
        if any(map(is_lazy, own)):
            yield Finding(name, kind, "refused", "its parameters have no shape before it has run", "Call the model once on a batch of zeros first")
            continue
        if not own:
            continue
        if not any(p.requires_grad for p in own):
            yield Finding(name, kind, "frozen", "it is not trained, and costs nothing")
        elif type(child).__module__.startswith("torch.nn."):
            yield Finding(name, kind, "supported", "its per-sample gradients are exact")
        else:
            yield Finding(name, kind, "unproven", "an own module: give example inputs to see it run")


def _proven(finding: Finding) -> Finding:
    if finding.status != "unproven":
        return finding
    return Finding(finding.module, finding.kind, "supported", "seen to treat the samples of the inputs independently")


def _run(module: nn.Module, inputs: Any, batch_dim: int) -> Finding | None:
    """The first thing that training would stop at, or None. module: a copy, which may be trained on."""
    args, kwargs = _arguments(inputs)
    batch = _batch_of((args, kwargs), batch_dim)
    try:
        check_inputs(args, kwargs, batch, batch_dim)
        check_forward(module, args, kwargs, batch, batch_dim)
    except Unsupported as error:
        name = find_mixing_module(module, args, kwargs, batch, batch_dim)
        return _refused(module, name, str(error))
    try:
        _backward(module, args, kwargs, batch, batch_dim)
    except Unsupported as error:
        named = re.search(r"parameter '([^']+)'", str(error))
        return _refused(module, named.group(1).rpartition(".")[0] if named else "", str(error))
    return None


def _backward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], batch: int, batch_dim: int) -> None:
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise Unsupported("[model] Expected at least one trainable parameter, received none. Call requires_grad_(True) on some.")
    capture = _torch.UnnoisedCaptureForTesting(list(trained.values()), list(trained), 1.0, False, batch_dim == 0, forward_is_checked=True)
    capture.begin_batch(batch)
    outputs = [t for t in tensors_in(module(*args, **kwargs)) if t.requires_grad]
    if not outputs:
        raise Unsupported(
            "[model] Expected an output that depends on the trainable parameters, received none. Return the tensor that the loss is made of."
        )
    capture.watch(outputs)
    if capture.needs_derivatives:
        check_forward(module, args, kwargs, batch, batch_dim, capture.check_derivatives)
    # Random weights, because a plain sum is constant through a softmax or a normalisation, and nothing would flow.
    torch.autograd.backward([(t * torch.randn_like(t)).sum() for t in outputs])
    capture.accumulate()
    capture.discard(True)


def _refused(module: nn.Module, name: str, message: str) -> Finding:
    text = re.sub(r"^\[[^\]]*\] ", "", message)
    reason, _, instead = text.partition(". ")
    return Finding(name, type(module.get_submodule(name)).__name__, "refused", reason, instead.rstrip("."))


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs, {}) if isinstance(inputs, tuple) else ((inputs,), {})


def _batch_of(arguments: Any, batch_dim: int) -> int:
    for tensor in tensors_in(arguments):
        if tensor.dim() > 0:
            batch = tensor.size(batch_dim if tensor.dim() > batch_dim else 0)
            if batch >= 2:
                return batch
    raise InvalidArgument(
        "[examine] Expected inputs with at least two samples, received none: with one, mixing cannot be seen. Pass a batch."
    )
