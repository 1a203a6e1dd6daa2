"""State trees: nested Python state as JSON that refers to tensors, and back. The form is docs/formats/checkpoint.md."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hushgrad.errors import SealError, Unsupported

__all__ = ["Record", "decode", "encode", "paths_in"]

_MAX_DEPTH = 64
_VIEWED = {
    name: getattr(torch, name)
    for name in (
        "bool uint8 int8 int16 uint16 int32 uint32 int64 uint64 float16 bfloat16 float32 float64 complex32 complex64 complex128 "
        "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2"
    ).split()
    if hasattr(torch, name)
}
_NAME_OF = {dtype: name for name, dtype in _VIEWED.items()}
#: Dtypes that sealed files know by name; tensors of the others are stored as bytes and a view.
SEALED_DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float32: "F32", torch.float64: "F64", torch.complex64: "C64", torch.complex128: "C128",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """State that hushgrad keeps without looking into it: what a mechanism needs to go on, such as correlated noise.

    ``data`` may be anything that a checkpoint holds. ``kind`` and ``version`` say who can read it: a reader that does not
    know them must refuse.
    """

    kind: str
    version: int
    data: Any


def encode(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """The tree of ``state``, and its tensors by name. Raises Unsupported, naming the place, for what has no form."""
    encoder = _Encoder(_shared_storages(state))
    tree = encoder.node(state, "", 0)
    return tree, encoder.tensors


def decode(tree: Any, tensors: Callable[[str], torch.Tensor]) -> Any:
    """The state of a tree; ``tensors`` gives a tensor by its name. Raises SealError for a tree that has no meaning."""
    try:
        return _decode(tree, tensors, 0)
    except (ValueError, TypeError, IndexError, AttributeError, RuntimeError, LookupError) as error:
        if isinstance(error, (SealError, Unsupported)):
            raise
        raise SealError("[checkpoint] Expected the state tree of a checkpoint, received something else. Open it with what wrote it.") from None


def paths_in(tree: Any, wanted: Mapping[str, None]) -> tuple[Any, set[str]]:
    """The part of a tree at or below the ``wanted`` paths (keys joined by "/"), and which of them were found."""
    found: set[str] = set()
    pruned = _prune(tree, "", wanted, found, 0)
    return ({"$map": []} if pruned is _NOTHING else pruned), found


_NOTHING = object()


def _prune(tree: Any, where: str, wanted: Mapping[str, None], found: set[str], depth: int) -> Any:
    if where in wanted:
        found.add(where)
        return tree
    if depth > 2 * _MAX_DEPTH or not isinstance(tree, dict) or "$map" not in tree:
        return _NOTHING
    kept = [[k, _prune(v, _join(where, k), wanted, found, depth + 1)] for k, v in tree["$map"]]
    kept = [entry for entry in kept if entry[1] is not _NOTHING]
    return {"$map": kept} if kept else _NOTHING


# Tensors that share memory


@dataclass
class _Shared:
    """A stretch of memory that several tensors of the state lie in: stored once, as bytes."""

    begin: int
    end: int
    base: torch.Tensor
    name: str = ""
    alias: bool = False
    """All of them are one and the same tensor."""


def _shared_storages(state: Any) -> dict[int, _Shared]:
    """By address of the storage. Memory that no tensor of the state shows is never stored: where the tensors of a storage
    leave gaps, or are no dense blocks, each is stored by itself."""
    users: dict[int, list[torch.Tensor]] = {}
    for tensor in _tensors(state, 0):
        if _is_plain(tensor) and tensor.numel() and not tensor.is_conj() and not tensor.is_neg():
            users.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    return {address: shared for address, tensors in users.items() if (shared := _stretch(tensors)) is not None}


def _stretch(tensors: list[torch.Tensor]) -> _Shared | None:
    if len(tensors) < 2:
        return None
    first = tensors[0]
    if all(_placing(t) == _placing(first) for t in tensors) and first.dtype in SEALED_DTYPES:
        return _Shared(0, 0, first, alias=True)
    spans = sorted(_span(t) for t in tensors if _is_dense(t))
    if not spans:
        return None
    begin, end = spans[0]
    for low, high in spans[1:]:
        if low > end:
            return None
        end = max(end, high)
    if any(low < begin or high > end for low, high in map(_span, tensors)):
        return None
    begin -= begin % 16  # views need their own alignment; the bytes before the first tensor are cleared
    storage = torch.empty(0, dtype=torch.uint8, device=first.device).set_(first.untyped_storage())
    base = storage[begin:end].detach().cpu()
    pad = min(_span(t)[0] for t in tensors) - begin
    if pad:
        base = base.clone()
        base[:pad] = 0
    return _Shared(begin, end, base)


def _placing(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    first = int(tensor.storage_offset())
    last = first + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()))
    return first * tensor.element_size(), (last + 1) * tensor.element_size()


def _is_dense(tensor: torch.Tensor) -> bool:
    low, high = _span(tensor)
    return high - low == tensor.numel() * tensor.element_size() and len(set(_placed(tensor))) == len(_placed(tensor))


def _placed(tensor: torch.Tensor) -> list[int]:
    # Strides of dimensions that move: a dense block has each once, and none is zero.
    return [s for n, s in zip(tensor.shape, tensor.stride()) if n > 1] or [1]


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and not tensor.is_meta
        and not tensor.is_quantized
        and type(tensor) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
    )


def _tensors(value: Any, depth: int) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if depth > _MAX_DEPTH:
        return []
    inside: Any = ()
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, (list, tuple)):
        inside = value
    elif isinstance(value, Record):
        inside = (value.data,)
    return [tensor for item in inside for tensor in _tensors(item, depth + 1)]


# Into a tree


class _Encoder:
    def __init__(self, shared: dict[int, _Shared]) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._shared = shared

    def node(self, value: Any, where: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise Unsupported(f"[checkpoint] Expected state nested at most {_MAX_DEPTH} deep, received more at '{where}'.")
        if isinstance(value, torch.Tensor):
            return self._tensor(value, where)
        if _is_numpy(value):
            return {"$numpy": [type(value).__name__ == "ndarray", self._numpy(value, where)]}
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < 2**63 else {"$int": str(int(value))}
        if isinstance(value, float):
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, complex):
            return {"$complex": [self.node(value.real, where, depth + 1), self.node(value.imag, where, depth + 1)]}
        if isinstance(value, (bytes, bytearray)):
            return {"$bytes": self._store(torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.empty(0, dtype=torch.uint8), where)}
        if isinstance(value, Record):
            return {"$record": [value.kind, value.version, self.node(value.data, where, depth + 1)]}
        if isinstance(value, Mapping):
            return {"$map": [[_key(k, where), self.node(v, _join(where, k), depth + 1)] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            items = [self.node(v, _join(where, i), depth + 1) for i, v in enumerate(value)]
            return {"$tuple": items} if isinstance(value, tuple) else items
        raise Unsupported(
            "[checkpoint] Expected dicts, lists, tuples, tensors, numbers, strings, bytes, numpy values, Records or None, "
            f"received {type(value).__name__} at '{where}'. Convert it."
        )

    def _tensor(self, tensor: torch.Tensor, where: str) -> Any:
        tensor = tensor.detach()
        if hasattr(tensor, "placements") and hasattr(tensor, "device_mesh"):
            return self._dtensor(tensor, where)
        if tensor.is_meta:
            raise Unsupported(f"[checkpoint] Expected tensors with data, received a meta tensor at '{where}'. Materialize it first.")
        if tensor.is_quantized:
            return self._quantized(tensor, where)
        if tensor.layout == torch.sparse_coo:
            whole = tensor.coalesce()
            parts = [self._tensor(t, f"{where}/{n}") for t, n in ((whole.indices(), "indices"), (whole.values(), "values"))]
            return {"$sparse": [*parts, list(tensor.shape)]}
        if tensor.layout != torch.strided:
            raise Unsupported(f"[checkpoint] Expected a dense, sparse COO or quantized tensor, received {tensor.layout} at '{where}'. Use to_dense().")
        if not _is_plain(tensor) and type(tensor) is not torch.Tensor:
            raise Unsupported(
                f"[checkpoint] Expected a plain tensor, received the subclass {type(tensor).__name__} at '{where}'. "
                "Save what it consists of (its inner tensors and settings), or dequantize it."
            )
        if tensor.dtype not in _NAME_OF:
            raise Unsupported(f"[checkpoint] Expected a dtype with bytes, received {tensor.dtype} at '{where}'. Convert it first.")
        if (shared := self._shared.get(tensor.untyped_storage().data_ptr())) is not None and tensor.numel():
            return self._view_of(shared, tensor, where)
        whole = tensor.resolve_conj().resolve_neg().cpu().contiguous()
        if tensor.dtype in SEALED_DTYPES:
            return {"$tensor": self._store(whole, where)}
        flat = whole.reshape(-1).view(torch.uint8) if whole.numel() else torch.empty(0, dtype=torch.uint8)
        return self._view(self._store(flat, where), tensor, 0, list(whole.stride()))

    def _view_of(self, shared: _Shared, tensor: torch.Tensor, where: str) -> Any:
        if not shared.name:
            shared.name = self._store(shared.base.detach().cpu().contiguous(), where)
        if shared.alias:
            return {"$tensor": shared.name}
        offset = int(tensor.storage_offset()) * tensor.element_size() - shared.begin
        return self._view(shared.name, tensor, offset, list(tensor.stride()))

    def _view(self, name: str, tensor: torch.Tensor, offset: int, stride: list[int]) -> Any:
        return {"$view": [name, _NAME_OF[tensor.dtype], offset, list(tensor.shape), stride]}

    def _quantized(self, tensor: torch.Tensor, where: str) -> Any:
        values = self._tensor(tensor.int_repr(), where)
        name = str(tensor.dtype).removeprefix("torch.")
        scheme = tensor.qscheme()
        if scheme in (torch.per_tensor_affine, torch.per_tensor_symmetric) and name in ("qint8", "quint8", "qint32"):
            return {"$quantized": [values, name, [tensor.q_scale(), tensor.q_zero_point()]]}
        if scheme in (torch.per_channel_affine, torch.per_channel_symmetric) and name in ("qint8", "quint8", "qint32"):
            scales = self._tensor(tensor.q_per_channel_scales(), f"{where}/scales")
            zeros = self._tensor(tensor.q_per_channel_zero_points(), f"{where}/zero_points")
            return {"$quantized": [values, name, [scales, zeros, tensor.q_per_channel_axis()]]}
        raise Unsupported(f"[checkpoint] Expected qint8, quint8 or qint32 with affine scales, received {name}, {scheme} at '{where}'. Use dequantize().")

    def _dtensor(self, tensor: Any, where: str) -> Any:
        return {"$dtensor": [self._tensor(tensor.to_local(), where), *laid_out(tensor, where)]}

    def _numpy(self, value: Any, where: str) -> Any:
        import numpy

        array = numpy.ascontiguousarray(value).reshape(numpy.shape(value))
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        try:
            return self._tensor(torch.from_numpy(array.copy()), where)
        except TypeError:
            raise Unsupported(
                f"[checkpoint] Expected numpy numbers or booleans, received dtype {array.dtype} at '{where}'. Convert it to a list."
            ) from None

    def _store(self, tensor: torch.Tensor, where: str) -> str:
        name = _free_name(where, self.tensors)
        self.tensors[name] = tensor
        return name


def laid_out(tensor: Any, where: str) -> list[Any]:
    """How a DTensor lies over the processes, and which part of it is here: all of its node but the shard."""
    mesh = tensor.device_mesh
    return [
        list(tensor.shape),
        list(tensor.stride()),
        [_placement(p, where) for p in tensor.placements],
        [list(mesh.mesh.shape), list(mesh.mesh_dim_names) if mesh.mesh_dim_names else None],
        list(mesh.get_coordinate() or []),
    ]


def _placement(placement: Any, where: str) -> Any:
    if placement.is_replicate():
        return "replicate"
    if type(placement).__name__ == "Shard":
        return ["shard", placement.dim]
    raise Unsupported(f"[checkpoint] Expected DTensors that are sharded or replicated, received {placement} at '{where}'. Redistribute it first.")


def _is_numpy(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray))


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


# Out of a tree


def _decode(tree: Any, tensors: Callable[[str], torch.Tensor], depth: int) -> Any:
    if depth > 2 * _MAX_DEPTH:
        raise SealError("[checkpoint] Expected state of bounded depth, received more.")
    if isinstance(tree, list):
        return [_decode(item, tensors, depth + 1) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        raise SealError("[checkpoint] Expected one tag in each node of the state tree, received another number.")
    tag, content = next(iter(tree.items()))
    if tag == "$map":
        return {k: _decode(v, tensors, depth + 1) for k, v in content}
    if tag == "$tuple":
        return tuple(_decode(item, tensors, depth + 1) for item in content)
    if tag == "$record":
        kind, version, data = content
        return Record(str(kind), int(version), _decode(data, tensors, depth + 1))
    leaf = _LEAVES.get(tag)
    if leaf is None:
        raise SealError(f"[checkpoint] Expected a known tag in the state tree, received {tag!r}.")
    return leaf(content, tensors)


def _leaf(tree: Any, tensors: Callable[[str], torch.Tensor]) -> torch.Tensor:
    tensor = _decode(tree, tensors, 2 * _MAX_DEPTH - 2)
    if not isinstance(tensor, torch.Tensor):
        raise SealError("[checkpoint] Expected a tensor in the state tree, received something else.")
    return tensor


def _view(content: Any, tensors: Callable[[str], torch.Tensor]) -> torch.Tensor:
    name, dtype_name, offset, shape, stride = content
    base, dtype = tensors(name), _VIEWED.get(dtype_name)
    integers = all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *stride))
    if dtype is None or base.dtype != torch.uint8 or not integers or len(shape) != len(stride):
        raise SealError("[checkpoint] Expected a view of bytes in the state tree, received something else.")
    size = torch.empty(0, dtype=dtype).element_size()
    last = 0 if 0 in shape else (1 + sum((n - 1) * s for n, s in zip(shape, stride))) * size
    if offset % size or offset + last > base.numel():
        raise SealError("[checkpoint] Expected a view within its bytes, received another.")
    return torch.empty(0, dtype=dtype).set_(base.untyped_storage(), base.storage_offset() // size + offset // size, shape, stride)


def _quantized(content: Any, tensors: Callable[[str], torch.Tensor]) -> torch.Tensor:
    values, _, scales = content
    if len(scales) == 2:
        return torch._make_per_tensor_quantized_tensor(_leaf(values, tensors), float(scales[0]), int(scales[1]))
    return torch._make_per_channel_quantized_tensor(
        _leaf(values, tensors), _leaf(scales[0], tensors), _leaf(scales[1], tensors), int(scales[2])
    )


def _sparse(content: Any, tensors: Callable[[str], torch.Tensor]) -> torch.Tensor:
    indices, values, shape = content
    return torch.sparse_coo_tensor(_leaf(indices, tensors), _leaf(values, tensors), shape, check_invariants=True).coalesce()


def _dtensor(content: Any, tensors: Callable[[str], torch.Tensor]) -> Any:
    local, shape, stride, placements, (mesh_shape, mesh_names), coordinate = content
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() != math.prod(mesh_shape):
        raise Unsupported(
            f"[checkpoint] Expected {math.prod(mesh_shape)} processes as when these shards were saved, received another number. "
            "Start as many, or save full tensors (DTensor.full_tensor())."
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh = init_device_mesh("cpu", tuple(mesh_shape), mesh_dim_names=tuple(mesh_names) if mesh_names else None)
    if list(mesh.get_coordinate() or []) != coordinate:
        raise Unsupported(
            f"[checkpoint] Expected the shard of this process, at {mesh.get_coordinate()} of the mesh, received that of {coordinate}. "
            "Load the file that this rank saved."
        )
    placed = [Replicate() if p == "replicate" else Shard(int(p[1])) for p in placements]
    return DTensor.from_local(_leaf(local, tensors), mesh, placed, run_check=False, shape=torch.Size(shape), stride=tuple(stride))


def _numpy_value(content: Any, tensors: Callable[[str], torch.Tensor]) -> Any:
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise Unsupported("[checkpoint] Expected numpy, which this checkpoint holds values of, received none. Install numpy.") from None
    is_array, node = content
    array = _leaf(node, tensors).numpy()
    return array if is_array else array[()]


_LEAVES: dict[str, Callable[[Any, Callable[[str], torch.Tensor]], Any]] = {
    "$tensor": lambda content, tensors: tensors(content),
    "$view": _view,
    "$quantized": _quantized,
    "$sparse": _sparse,
    "$dtensor": _dtensor,
    "$numpy": _numpy_value,
    "$bytes": lambda content, tensors: bytes(tensors(content).tolist()) if tensors(content).numel() < 64 else tensors(content).numpy().tobytes(),
    "$float": lambda content, _: float(content),
    "$int": lambda content, _: int(content),
    "$complex": lambda content, _: complex(_decode(content[0], _no_tensor, 0), _decode(content[1], _no_tensor, 0)),
}


def _no_tensor(name: str) -> torch.Tensor:
    raise SealError("[checkpoint] Expected a number in the state tree, received a tensor.")
