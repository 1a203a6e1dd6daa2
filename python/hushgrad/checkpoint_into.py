"""Loading a checkpoint into modules that exist: decrypted straight into their own memory where it fits.

The file is read twice: first every byte is authenticated, then what was authenticated is decrypted into place. So nothing of a
module changes for a file that is damaged anywhere, and no second copy of the weights is ever held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from hushgrad.checkpoint_tree import laid_out
from hushgrad.errors import InvalidArgument, Unsupported

__all__ = ["Place", "places_of", "take_out"]

Place = dict[str, torch.Tensor]
"""Tensors of the file by name, and the memory of a module where each belongs."""

_COPYING = (nn.Module._load_from_state_dict, _NormBase._load_from_state_dict)  # the second adds a counter, nothing else


def take_out(tree: Any, into: nn.Module | Mapping[str, nn.Module]) -> tuple[Any, list[tuple[nn.Module, Any]]]:
    """The state tree without what belongs into modules, and each module with its part of the tree."""
    if isinstance(into, nn.Module):
        return None, [(into, _map_at(tree, "the checkpoint"))]
    entries = _map_at(tree, "the checkpoint")["$map"]
    parts = {key: node for key, node in entries if key in into}
    if missing := [key for key in into if key not in parts]:
        raise InvalidArgument(f"[checkpoint] Expected {missing} in the checkpoint, received one with {[key for key, _ in entries][:5]}.")
    rest = {"$map": [[key, None if key in into else node] for key, node in entries]}
    return rest, [(module, _map_at(parts[key], repr(key))) for key, module in into.items()]


def places_of(tree: Any, parts: list[tuple[nn.Module, Any]], entries: Mapping[str, Any], dtype_of: Callable[[Any], torch.dtype]) -> Place:
    """Where tensors may be decrypted into place: memory that ``load_state_dict`` would copy to, byte for byte.

    Left to it are tensors that share memory with others, or are not contiguous, of another dtype, shape or device, or
    of a class of their own; modules that look at what is loaded; and all where shapes do not fit, so that it can refuse.
    Of a DTensor that is laid out over the processes as when it was saved, this process's shard is such memory.
    """
    states = [_with_shards(module.state_dict(keep_vars=True), _nodes(part)) for module, part in parts]
    users = Counter(t.untyped_storage().data_ptr() for own, _ in states for t in own.values() if _has_storage(t))
    uses = Counter(_names(tree))
    found: Place = {}
    for (module, _), (own, saved) in zip(parts, states, strict=True):
        named = {key: saved[key] for key in own if key in saved and _is_reference(saved[key])}
        if any(list(own[key].shape) != entries[node["$tensor"]].shape for key, node in named.items() if _has_storage(own[key])):
            return {}
        watched = [f"{name}." if name else "" for name, part in module.named_modules(remove_duplicate=False) if _looks(part)]
        for key, node in named.items():
            tensor, entry = own[key], entries[node["$tensor"]]
            alone = _is_plain(tensor) and users[tensor.untyped_storage().data_ptr()] == 1 and uses[node["$tensor"]] == 1
            if alone and tensor.dtype == dtype_of(entry) and not any(key.startswith(prefix) for prefix in watched):
                found[node["$tensor"]] = tensor
    return found


def _map_at(node: Any, where: str) -> dict[str, Any]:
    if not isinstance(node, dict) or not isinstance(node.get("$map"), list):
        raise InvalidArgument(f"[checkpoint] Expected the state dict of a module at {where}, received something else. Load it without into.")
    return node


def _nodes(part: dict[str, Any]) -> dict[str, Any]:
    return {key: node for key, node in part["$map"] if isinstance(key, str)}


def _with_shards(own: dict[str, Any], saved: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same, with the shard of this process and the reference to it for each DTensor that needs no exchange with others."""
    for key, tensor in own.items():
        node = saved.get(key)
        if isinstance(node, dict) and list(node) == ["$dtensor"] and _lies_as(tensor, node["$dtensor"]):
            own, saved = {**own, key: tensor.detach().to_local()}, {**saved, key: node["$dtensor"][0]}
    return own, saved


def _lies_as(tensor: Any, saved: Any) -> bool:
    if not hasattr(tensor, "device_mesh") or not isinstance(saved, list):
        return False
    ranks: list[int] = tensor.device_mesh.mesh.flatten().tolist()
    try:
        return ranks == list(range(len(ranks))) and saved[1:] == laid_out(tensor, "")
    except Unsupported:
        return False


def _is_reference(node: Any) -> bool:
    return isinstance(node, dict) and list(node) == ["$tensor"]


def _names(tree: Any) -> Iterator[str]:
    """Each mention of a tensor of the file."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            for tag, content in node.items():
                name = content[0] if tag == "$view" and isinstance(content, list) and content else content
                if isinstance(name, str):
                    yield name
                else:
                    waiting.append(content)


def _has_storage(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and type(tensor) in (torch.Tensor, nn.Parameter, nn.Buffer) and tensor.layout == torch.strided


def _is_plain(tensor: Any) -> bool:
    return (
        _has_storage(tensor)
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not tensor.is_inference()
        and tensor.is_contiguous()
        and tensor.numel() > 0
    )


def _looks(module: nn.Module) -> bool:
    """Whether a module does more on loading than copy: what it sees there must be what the file holds, and in another place."""
    own = [getattr(method, "__func__", None) for method in (module._load_from_state_dict, module.load_state_dict, module.state_dict)]
    copies = own[0] in _COPYING and own[1:] == [nn.Module.load_state_dict, nn.Module.state_dict]
    return not copies or bool(module._load_state_dict_pre_hooks) or bool(module._state_dict_hooks) or bool(module._state_dict_pre_hooks)
