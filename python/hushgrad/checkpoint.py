"""Sealed checkpoints: nested state in one encrypted, authenticated file. No pickle in either direction."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import hushgrad._core as _core
import hushgrad._torch as _torch
from hushgrad.errors import SealError, Unsupported
from hushgrad.keys import Keyring

__all__ = ["Checkpoint", "Inspection", "inspect", "load", "save"]

_FORMAT = "hushgrad.checkpoint/1"
_MAX_DEPTH = 64


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. ``state`` has the shape that was saved; tensors are on the CPU."""

    state: Any
    dataset: str
    run_id: str
    step: int
    plan: dict[str, Any]
    ledger_head: tuple[int, str]
    epsilon: dict[str, Any]


@dataclass(frozen=True)
class Inspection:
    """What a file says of itself without a key: UNAUTHENTICATED. Good for listing files, never for a decision."""

    dataset: str
    run_id: str
    step: int
    plan: dict[str, Any]
    ledger_head: tuple[int, str]
    epsilon: dict[str, Any]


def save(
    path: str | os.PathLike[str],
    state: Any,
    *,
    keyring: Keyring | str | os.PathLike[str],
    dataset: str,
    overwrite: bool = False,
    run_id: str = "",
    step: int = 0,
    plan: str = "{}",
    ledger_head: tuple[int, str] = (0, ""),
    epsilon: Mapping[str, object] | None = None,
) -> None:
    """Seals ``state`` under the dataset's key: atomic, durable, mode 0600; the old file or the new one, never a part.

    state: dicts (string or integer keys), lists, tuples, tensors, numbers, strings, None, nested up to 64 deep. Tensors
    that share storage are saved once each.
    Raises Unsupported for anything else, KeyError without a key for the dataset, IoError if the file exists.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _encode(state, "", tensors, 0)
    core = {
        "dataset": dataset,
        "run_id": run_id,
        "step": step,
        "plan_json": plan,
        "ledger_sequence": ledger_head[0],
        "ledger_hash": ledger_head[1],
        "epsilon_json": json.dumps(dict(epsilon or {}), allow_nan=False, sort_keys=True),
    }
    meta = json.dumps({"format": _FORMAT, "state": tree}, allow_nan=False, separators=(",", ":"))
    _torch.save_tensors(os.fspath(path), core, meta, list(tensors.items()), _keyring_path(keyring), overwrite)


def load(path: str | os.PathLike[str], *, keyring: Keyring | str | os.PathLike[str]) -> Checkpoint:
    """Opens a checkpoint after authenticating every byte of it.

    Raises SealError for a file that is truncated, altered or malformed; KeyError without its key.
    """
    core, meta_json, tensors = _torch.load_tensors(os.fspath(path), _keyring_path(keyring))
    meta = json.loads(meta_json)
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise SealError(f"[checkpoint] Expected a checkpoint of format {_FORMAT}, received another sealed file. Open it with what wrote it.")
    state = _decode(meta["state"], dict(tensors), 0)
    return Checkpoint(state=state, **_described(core))


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Reads what a sealed file claims about itself, without a key and so without proof."""
    return Inspection(**_described(_core.inspect_sealed(os.fspath(path))))


def _described(core: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dataset": core["dataset"],
        "run_id": core["run_id"],
        "step": core["step"],
        "plan": json.loads(core["plan_json"]),
        "ledger_head": (core["ledger_sequence"], core["ledger_hash"]),
        "epsilon": json.loads(core["epsilon_json"]),
    }


def _keyring_path(keyring: Keyring | str | os.PathLike[str]) -> str:
    return str(keyring.path) if isinstance(keyring, Keyring) else os.fspath(Path(keyring))


def _encode(value: Any, where: str, tensors: dict[str, torch.Tensor], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise Unsupported(f"[checkpoint] Expected state nested at most {_MAX_DEPTH} deep, received more at '{where}'.")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else {"$int": str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, torch.Tensor):
        name = _free_name(where, tensors)
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, Mapping):
        return {"$map": [[_key(k, where), _encode(v, _join(where, k), tensors, depth + 1)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_encode(v, _join(where, i), tensors, depth + 1) for i, v in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise Unsupported(
        f"[checkpoint] Expected dicts, lists, tuples, tensors, numbers, strings or None, received {type(value).__name__} at '{where}'. Convert it."
    )


def _join(where: str, key: object) -> str:
    return f"{where}/{key}" if where else str(key)


def _free_name(where: str, taken: Mapping[str, torch.Tensor]) -> str:
    # Names are for people who list the file; what belongs where stands in the state tree.
    name = "".join(c if c.isprintable() else "_" for c in where)[:1000] or "value"
    free, number = name, len(taken)
    while free in taken:
        free, number = f"{name}#{number}", number + 1
    return free


def _key(key: object, where: str) -> str | int:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return key
    raise Unsupported(f"[checkpoint] Expected string or integer keys, received {type(key).__name__} at '{where}'. Convert them.")


def _decode(tree: Any, tensors: dict[str, torch.Tensor], depth: int) -> Any:
    if depth > 2 * _MAX_DEPTH:
        raise SealError("[checkpoint] Expected state of bounded depth, received more.")
    if isinstance(tree, list):
        return [_decode(item, tensors, depth + 1) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        raise SealError("[checkpoint] Expected one tag in each node of the state tree, received another number.")
    tag, content = next(iter(tree.items()))
    if tag == "$tensor":
        return tensors[content]
    if tag == "$map":
        return {k: _decode(v, tensors, depth + 1) for k, v in content}
    if tag == "$tuple":
        return tuple(_decode(item, tensors, depth + 1) for item in content)
    if tag == "$float":
        return float(content)
    if tag == "$int":
        return int(content)
    raise SealError(f"[checkpoint] Expected a known tag in the state tree, received {tag!r}.")
