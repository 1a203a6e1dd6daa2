"""Sealed checkpoints: nested state in one encrypted, authenticated file. No pickle in either direction."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import hushgrad._core as _core
from hushgrad.checkpoint_into import Place, places_of, take_out
from hushgrad.checkpoint_tree import SEALED_DTYPES, Record, decode, encode, paths_in
from hushgrad.errors import HushgradError, InvalidArgument, IoError, SealError
from hushgrad.sealed import KeyringLike, core_of, public_key_of, signing_key_of
from hushgrad.signing import PublicKey, SigningKey

__all__ = [
    "Checkpoint",
    "CheckpointWarning",
    "Inspection",
    "Reader",
    "Record",
    "Saving",
    "inspect",
    "load",
    "load_into",
    "newest",
    "retain",
    "save",
    "save_async",
]

_FORMAT = "hushgrad.checkpoint/1"
_BACKGROUND_NICE = 10
_DTYPE_OF = {name: dtype for dtype, name in SEALED_DTYPES.items()}


class CheckpointWarning(UserWarning):
    """A checkpoint was passed over, or a part of one was not used."""


@dataclass(frozen=True)
class Inspection:
    """What a file says of itself without a key: UNAUTHENTICATED. Good for listing files, never for a decision."""

    dataset: str
    run_id: str
    step: int
    plan: dict[str, Any]
    ledger_head: tuple[int, str]
    epsilon: dict[str, Any]
    tenant: str
    ledger_id: str
    policy: tuple[str, str]
    """Id and digest of the policy in force."""
    previous: str
    """Digest of the checkpoint before this one, if any."""
    writer: str
    """Id of the identity that signed; empty: unsigned."""
    file_id: str
    created: int
    """Microseconds since 1970-01-01 UTC by the writer's clock."""
    software: str
    keyring_generation: int
    digest: str
    """Names exactly this file: 96 hexadecimal digits."""


@dataclass(frozen=True)
class Checkpoint(Inspection):
    """An opened checkpoint. ``state`` has the shape that was saved; tensors are on the CPU."""

    state: Any
    metric: float | None


# Saving


class Saving:
    """A save that goes on in the background, or is done. ``wait()`` returns the file's digest or raises what went wrong.

    An error that nobody waited for is raised by the next save, and printed when Python exits. A save that is running when
    Python exits is finished first.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._finished = threading.Event()
        self._digest = ""
        self._error: BaseException | None = None
        self._reported = False
        self._thread: int | None = None

    @classmethod
    def finished(cls, path: str | os.PathLike[str], digest: str) -> Saving:
        """A save that is done."""
        saving = cls(os.fspath(path))
        saving._run(lambda: digest)
        return saving

    def done(self) -> bool:
        """Whether the file is durable, or the save failed."""
        return self._finished.is_set()

    def wait(self, timeout: float | None = None) -> str:
        """Wait, at most ``timeout`` seconds (TimeoutError), and return the digest. Raises what the save ended with."""
        if not self._finished.wait(timeout):
            raise TimeoutError(f"[checkpoint] Expected {self.path} to be saved within {timeout} seconds, received nothing yet. Wait longer.")
        if self._error is not None:
            self._reported = True
            raise self._error
        return self._digest

    def _run(self, work: Callable[[], str]) -> None:
        self._thread = threading.get_ident()
        try:
            self._digest = work()
        except BaseException as error:  # noqa: BLE001 - raised by wait() or the next save
            self._error = error
        self._finished.set()

    def _raise_if_unreported(self) -> None:
        if self._error is not None and not self._reported:
            self.wait()

    def __repr__(self) -> str:
        return f"Saving({self.path!r}, {'running' if not self.done() else 'failed' if self._error else 'done'})"


class _Background:
    """At most one save at a time: so there is at most one copy of the state, and files appear in the order of their saves."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)  # the child has no such thread
        atexit.register(self._report)

    def _forget(self) -> None:
        self._last: Saving | None = None
        self._lock = threading.Lock()
        self._room: dict[tuple[str, torch.Size, torch.dtype], torch.Tensor] = {}

    def finish(self) -> None:
        """Wait for the save before, and raise what it ended with unless somebody has seen it."""
        last = self._last
        if last is not None:
            last._finished.wait()
            last._raise_if_unreported()

    def settle(self, path: str) -> None:
        """Wait for the save that goes on to this path; what it ends with stays for wait() or the next save."""
        last = self._last
        if last is None or os.path.abspath(last.path) != os.path.abspath(path):
            return
        if last._thread != threading.get_ident():  # what the save itself calls would wait for itself
            last._finished.wait()

    def start(self, saving: Saving, work: Callable[[], str]) -> None:
        with self._lock:
            self._last = saving
            # Not a daemon: the interpreter waits for it before it ends.
            threading.Thread(target=saving._run, args=(work,), name="hushgrad save").start()

    def snapshot(self, tensors: dict[str, torch.Tensor], of: set[int]) -> dict[str, torch.Tensor]:
        """Copies of those tensors that lie in the memory of the state; the memory of the last snapshot is used again."""
        room, self._room = self._room, {}
        for name, tensor in tensors.items():
            if not tensor.numel() or tensor.untyped_storage().data_ptr() not in of:
                continue
            key = (name, tensor.shape, tensor.dtype)
            copy = room.pop(key, None)
            tensors[name] = self._room[key] = tensor.clone() if copy is None else copy.copy_(tensor)
        return tensors

    def _report(self) -> None:
        last = self._last
        if last is not None and last.done() and last._error is not None and not last._reported:
            print(f"hushgrad: the background save of {last.path} failed: {last._error}", file=sys.stderr)


_background = _Background()


def save(
    path: str | os.PathLike[str],
    state: Any,
    *,
    keyring: KeyringLike,
    dataset: str,
    overwrite: bool = False,
    run_id: str = "",
    step: int = 0,
    plan: str = "{}",
    ledger_head: tuple[int, str] = (0, ""),
    epsilon: Mapping[str, object] | None = None,
    metric: float | None = None,
    identity: SigningKey | str | os.PathLike[str] | None = None,
    previous: str = "",
    tenant: str = "",
    ledger_id: str = "",
    policy: tuple[str, str] = ("", ""),
    before_publish: Callable[[str], None] | None = None,
) -> str:
    """Seals ``state`` under the dataset's key: atomic, durable, mode 0600; the old file or the new one, never a part.

    state: dicts (string or integer keys), lists, tuples, tensors (dense of every dtype, quantized, sparse COO, DTensor),
    numbers, strings, bytes, numpy numbers and arrays, :class:`Record`, None, nested up to 64 deep. Tensors that share
    memory share it again when they are loaded.
    metric: how good it is, for ``retain(keep_best=)``; stored encrypted. identity: signs the file; without one it says
    "unsigned". before_publish: called with the file's digest when everything is on disk but not yet visible.
    Returns the digest, 96 hexadecimal digits that name exactly this file.
    Raises Unsupported for anything else in ``state``, KeyError without a key for the dataset, IoError if the file exists;
    and what an earlier save in the background ended with.
    """
    _background.finish()
    tree, tensors = encode(state)
    core = _core_fields(dataset, run_id, step, plan, ledger_head, epsilon, previous, tenant, ledger_id, policy)
    return _write(os.fspath(path), core, _meta(tree, metric), tensors, core_of(keyring), overwrite, signing_key_of(identity), before_publish, 0)


def save_async(
    path: str | os.PathLike[str],
    state: Any,
    *,
    keyring: KeyringLike,
    dataset: str,
    overwrite: bool = False,
    run_id: str = "",
    step: int = 0,
    plan: str = "{}",
    ledger_head: tuple[int, str] = (0, ""),
    epsilon: Mapping[str, object] | None = None,
    metric: float | None = None,
    identity: SigningKey | str | os.PathLike[str] | None = None,
    previous: str = "",
    tenant: str = "",
    ledger_id: str = "",
    policy: tuple[str, str] = ("", ""),
    before_publish: Callable[[str], None] | None = None,
    after: Callable[[], object] | None = None,
) -> Saving:
    """As :func:`save`, but only a copy of the tensors is made before it returns; the rest happens on other threads.

    Memory: one copy of the state, kept for the next save. One save runs at a time: a second one waits for the first, and
    raises its error if nobody has waited for it. after: called on the saving thread when the file is durable.
    """
    _background.finish()
    tree, tensors = encode(state)
    tensors = _background.snapshot(tensors, _storages(state))
    core = _core_fields(dataset, run_id, step, plan, ledger_head, epsilon, previous, tenant, ledger_id, policy)
    meta, provider, key = _meta(tree, metric), core_of(keyring), signing_key_of(identity)
    saving = Saving(os.fspath(path))

    def work() -> str:
        threads = max(1, (os.cpu_count() or 1) // 2)  # training goes on beside it, and before it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICE)  # of this thread and those it starts
        digest = _write(saving.path, core, meta, tensors, provider, overwrite, key, before_publish, threads)
        if after is not None:
            after()
        return digest

    _background.start(saving, work)
    return saving


def _core_fields(
    dataset: str,
    run_id: str,
    step: int,
    plan: str,
    ledger_head: tuple[int, str],
    epsilon: Mapping[str, object] | None,
    previous: str,
    tenant: str,
    ledger_id: str,
    policy: tuple[str, str],
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "run_id": run_id,
        "step": step,
        "plan_json": plan,
        "ledger_sequence": ledger_head[0],
        "ledger_hash": ledger_head[1],
        "epsilon_json": json.dumps(dict(epsilon or {}), allow_nan=False, sort_keys=True),
        "previous": previous,
        "tenant": tenant,
        "ledger_id": ledger_id,
        "policy_id": policy[0],
        "policy_digest": policy[1],
    }


def _meta(tree: Any, metric: float | None) -> str:
    described = {"format": _FORMAT, "state": tree} if metric is None else {"format": _FORMAT, "metric": float(metric), "state": tree}
    try:
        return json.dumps(described, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise InvalidArgument(f"[checkpoint] Expected a finite metric, received {metric}. Leave it out.") from None


def _write(
    path: str,
    core: dict[str, Any],
    meta: str,
    tensors: dict[str, torch.Tensor],
    provider: Any,
    overwrite: bool,
    identity: Any,
    before_publish: Callable[[str], None] | None,
    threads: int,
) -> str:
    described = [(name, SEALED_DTYPES[t.dtype], list(t.shape), _bytes_of(t)) for name, t in tensors.items()]
    writer = _core.SealedWriter(path, core, meta, described, provider, overwrite, identity, threads)
    if before_publish is not None:
        before_publish(writer.digest)
    writer.publish()
    return writer.digest


def _bytes_of(tensor: torch.Tensor) -> Any:
    """The memory of a contiguous CPU tensor as a buffer; valid while the tensor lives."""
    size = tensor.numel() * tensor.element_size()
    return (ctypes.c_ubyte * size).from_address(tensor.data_ptr()) if size else bytearray()


def _storages(state: Any) -> set[int]:
    from hushgrad.checkpoint_tree import _tensors

    found = set()
    for tensor in _tensors(state, 0):
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        if local.layout == torch.strided and not local.is_meta and local.device.type == "cpu":
            found.add(local.untyped_storage().data_ptr())
    return found


# Loading


class Reader:
    """An open checkpoint, of which single tensors can be read without the rest. The file stays open; a file that takes its
    place later does not change what is read."""

    def __init__(self, path: str | os.PathLike[str], *, keyring: KeyringLike, writer: PublicKey | str | None = None) -> None:
        self._core = _core.SealedReader(os.fspath(path), core_of(keyring))
        if writer is not None:
            self._core.verify_manifest(public_key_of(writer))
        self._meta = _parse_meta(self._core.meta_json)
        self._entries = {entry.name: entry for entry in self._core.tensors}

    @property
    def digest(self) -> str:
        """Names exactly this file."""
        return self._core.digest

    def trust_digest(self) -> None:
        """For who knows from elsewhere, a ledger, that :attr:`digest` is right: holds everything read from here on against
        it, which stops also somebody who has the data key."""
        self._core.trust_digest()

    def names(self) -> list[str]:
        """The tensors in the file."""
        return list(self._entries)

    def holds(self, key: str) -> bool:
        """Whether the state is a dict that has something other than None at this key."""
        tree = self._meta["state"]
        entries = tree.get("$map") if isinstance(tree, dict) else None
        return isinstance(entries, list) and any(entry[0] == key and entry[1] is not None for entry in entries)

    def tensor(self, name: str) -> torch.Tensor:
        """Decrypt one tensor, touching only the MiB that hold it. Raises InvalidArgument for an unknown name."""
        entry = self._entries.get(name)
        if entry is None:
            near = [n for n in self._entries if name and name in n][:5]
            raise InvalidArgument(f"[checkpoint] Expected the name of a tensor in the file, received {name!r}. Near it: {near or self.names()[:5]}.")
        tensor = torch.empty(entry.shape, dtype=_torch_dtype(entry))
        self._core.read_into(name, _bytes_of(tensor))
        return tensor

    def load(
        self,
        only: Iterable[str] | None = None,
        *,
        into: torch.nn.Module | Mapping[str, torch.nn.Module] | None = None,
        strict: bool = True,
    ) -> Checkpoint:
        """The whole state, or of it what lies at or below the paths in ``only`` (keys joined by "/"). See :func:`load`."""
        tree, tensors = self._meta["state"], {}
        if into is not None:
            if only is not None:
                raise InvalidArgument("[checkpoint] Expected one of only and into, received both. Load the parts in two calls.")
            state = self._load_into(tree, into, strict)
        elif only is None:
            tensors = self._room()
            self._core.read_all([_bytes_of(t) for t in tensors.values()])
            state = decode(tree, lambda name: tensors[name])
        else:
            wanted = dict.fromkeys([only] if isinstance(only, str) else only)
            tree, found = paths_in(tree, wanted)
            if missing := set(wanted) - found:
                raise InvalidArgument(
                    f"[checkpoint] Expected paths in the checkpoint, received {sorted(missing)}. It holds, among others: {self.names()[:5]}."
                )

            def tensor(name: str) -> torch.Tensor:
                if name not in tensors:  # once, so that what shares memory shares it again
                    tensors[name] = self.tensor(name)
                return tensors[name]

            state = decode(tree, tensor)
        return self._checkpoint(state)

    def _room(self, without: Place | None = None) -> dict[str, torch.Tensor]:
        return {n: torch.empty(entry.shape, dtype=_torch_dtype(entry)) for n, entry in self._entries.items() if n not in (without or {})}

    def _load_into(self, tree: Any, into: torch.nn.Module | Mapping[str, torch.nn.Module], strict: bool) -> Any:
        rest, parts = take_out(tree, into)
        places = places_of(tree, parts, self._entries, _torch_dtype)
        tensors = self._room(places)
        if places:
            self._core.pin()
            self._core.read_some(list(tensors), [_bytes_of(t) for t in tensors.values()])
        else:
            self._core.read_all([_bytes_of(t) for t in tensors.values()])
        tensors.update(places)
        state = decode(rest, lambda name: tensors[name])
        states = [(module, decode(part, lambda name: tensors[name])) for module, part in parts]
        self._core.read_some(list(places), [_bytes_of(t) for t in places.values()])
        for module, saved in states:  # a tensor that is in its place is copied to itself, and counted as changed
            load_into(module, saved, strict=strict)
        return state

    def _checkpoint(self, state: Any) -> Checkpoint:
        metric = self._meta.get("metric")
        described = _described({"core": self._core.core, "digest": self._core.digest})
        return Checkpoint(state=state, metric=float(metric) if isinstance(metric, (int, float)) else None, **described)


def load(
    path: str | os.PathLike[str],
    *,
    keyring: KeyringLike,
    only: Iterable[str] | None = None,
    into: torch.nn.Module | Mapping[str, torch.nn.Module] | None = None,
    strict: bool = True,
    writer: PublicKey | str | None = None,
    trusted: Callable[[Reader], bool] | None = None,
) -> Checkpoint:
    """Opens a checkpoint after authenticating every byte of it. Waits for a save to this path that goes on in the background.

    only: paths of keys joined by "/", such as ``["model/0.weight", "extra"]``: reads nothing but what lies there, and
    authenticates nothing else. writer: the identity that must have signed the file. trusted: sees the reader before any
    tensor is read; returns whether the digest is known to be right, or raises to refuse.
    into: a module that gets a saved ``module.state_dict()``, or modules by the key of the state where theirs lies, such as
    ``{"model": module}``; ``state`` holds None there. Missing and unexpected keys are those of :func:`load_into`. Weights are
    decrypted in the module's own memory where it fits, so that no second copy is held; the file is read twice for that, and
    nothing changes unless all of it is authentic. Should somebody change the file between the two, or the disk fail then,
    SealError or IoError says so, and the weights that were to be filled are zero.
    Raises SealError for a file that is truncated, altered, malformed, or not signed by ``writer``; KeyError without its key.
    """
    _background.settle(os.fspath(path))
    reader = Reader(path, keyring=keyring, writer=writer)
    if trusted is not None and trusted(reader):
        reader.trust_digest()
    return reader.load(only, into=into, strict=strict)


def load_into(module: torch.nn.Module, state: Mapping[str, Any], *, strict: bool = True) -> tuple[list[str], list[str]]:
    """Copy a loaded state dict into a module as PyTorch does; returns missing and unexpected keys.

    strict: raises PyTorch's RuntimeError, naming them, when there are any; otherwise they are warned about.
    """
    missing, unexpected = module.load_state_dict(state, strict=strict)
    if missing or unexpected:
        warnings.warn(
            f"[checkpoint] Not in the checkpoint, and so not changed: {missing}. In the checkpoint and not in the module: {unexpected}.",
            CheckpointWarning,
            stacklevel=2,
        )
    return missing, unexpected


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Reads what a sealed file claims about itself, without a key and so without proof."""
    return Inspection(**_described(_core.appearance_of_sealed(os.fspath(path))))


def _parse_meta(text: str) -> dict[str, Any]:
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT or "state" not in meta:
        raise SealError(f"[checkpoint] Expected a checkpoint of format {_FORMAT}, received another sealed file. Open it with what wrote it.")
    return meta


def _torch_dtype(entry: Any) -> torch.dtype:
    if entry.dtype not in _DTYPE_OF:
        raise SealError(f"[checkpoint] Expected a dtype that PyTorch has for '{entry.name}', received {entry.dtype}.")
    return _DTYPE_OF[entry.dtype]


def _described(seen: Mapping[str, Any]) -> dict[str, Any]:
    core = seen["core"]
    try:
        plan, epsilon = json.loads(core["plan_json"]), json.loads(core["epsilon_json"])
    except (ValueError, RecursionError):  # JSON to the core, and more than Python takes
        raise SealError("[checkpoint] Expected a plan and an epsilon of bounded size and depth, received others. Do not use this file.") from None
    return {
        "dataset": core["dataset"],
        "run_id": core["run_id"],
        "step": core["step"],
        "plan": plan,
        "ledger_head": (core["ledger_sequence"], core["ledger_hash"]),
        "epsilon": epsilon,
        "tenant": core["tenant"],
        "ledger_id": core["ledger_id"],
        "policy": (core["policy_id"], core["policy_digest"]),
        "previous": core["previous"],
        "writer": core["writer"],
        "file_id": core["file_id"],
        "created": core["created"],
        "software": core["software"],
        "keyring_generation": core["keyring_generation"],
        "digest": seen["digest"],
    }


# Many checkpoints in a folder


def newest(
    folder: str | os.PathLike[str],
    *,
    keyring: KeyringLike,
    dataset: str | None = None,
    run_id: str | None = None,
    writer: PublicKey | str | None = None,
) -> Path | None:
    """The newest checkpoint in a folder that opens and is intact to its last byte; None when there is none.

    Newest by the ledger's position, then the writer's clock, then the step. Files that are damaged, cut, or whose key is
    missing are passed over with a :class:`CheckpointWarning` that says why; other files are ignored.
    """
    for path, _ in _candidates(Path(folder), dataset, run_id):
        try:
            reader = Reader(path, keyring=keyring, writer=writer)
            reader._core.verify_all()
            return path
        except HushgradError as error:
            _passed_over(path, error)
    return None


def retain(
    folder: str | os.PathLike[str],
    *,
    keyring: KeyringLike,
    keep_last: int,
    keep_best: int = 0,
    best: Literal["max", "min"] = "max",
    dataset: str | None = None,
    run_id: str | None = None,
) -> list[Path]:
    """Delete old checkpoints of a folder; returns those that were deleted.

    The ``keep_last`` newest stay, and of the others the ``keep_best`` with the largest (``best="min"``: smallest) ``metric``.
    Only checkpoints that open with ``keyring`` count and are deleted: damaged files and those of others stay, with a
    :class:`CheckpointWarning`. At least one is kept.
    """
    if keep_last < 0 or keep_best < 0 or keep_last + keep_best < 1 or best not in ("max", "min"):
        raise InvalidArgument(
            f"[retain] Expected counts >= 0, at least one of them > 0, and best 'max' or 'min', received keep_last={keep_last}, "
            f"keep_best={keep_best}, best={best!r}."
        )
    opened: list[tuple[Path, float | None]] = []
    for path, _ in _candidates(Path(folder), dataset, run_id):
        try:
            metric = Reader(path, keyring=keyring)._meta.get("metric")
            opened.append((path, metric if isinstance(metric, (int, float)) else None))
        except HushgradError as error:
            _passed_over(path, error)
    older = opened[keep_last:]
    ranked = sorted((m if best == "min" else -m, i) for i, (_, m) in enumerate(older) if m is not None)
    kept = {older[i][0] for _, i in ranked[:keep_best]}
    if keep_last == 0 and not kept:
        kept = {path for path, _ in older[:1]}
    gone = [path for path, _ in older if path not in kept]
    for path in gone:
        try:
            path.unlink(missing_ok=True)  # another process may have been first
        except OSError as error:
            raise IoError(f"[retain] Expected to delete {path}, received: {error.strerror}. Check its folder's permissions.") from None
    return gone


def _candidates(folder: Path, dataset: str | None, run_id: str | None) -> list[tuple[Path, Inspection]]:
    """Sealed files of a folder, newest first by what they say. What they say is proven only when they are opened."""
    found = []
    for path in _sealed_files(folder):
        try:
            seen = inspect(path)
        except HushgradError as error:
            _passed_over(path, error)
            continue
        if dataset in (None, seen.dataset) and run_id in (None, seen.run_id):
            found.append((path, seen))
    return sorted(found, key=lambda item: (item[1].ledger_head[0], item[1].created, item[1].step), reverse=True)


def _sealed_files(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise IoError(f"[checkpoint] Expected a folder at {folder}, received: {error.strerror}. Check the path.") from None
    for name in names:
        path = folder / name
        if name.endswith(".hgtmp") or not path.is_file() or path.is_symlink():
            continue
        try:
            with open(path, "rb") as file:
                head = file.read(8)
        except OSError as error:
            _passed_over(path, error)
            continue
        # A file that is too short to say what it is may have been a checkpoint.
        if head == b"HGSEALED" or (len(head) < 8 and b"HGSEALED".startswith(head)):
            yield path


def _passed_over(path: Path, error: Exception) -> None:
    warnings.warn(f"[checkpoint] Passed over {path}: {error}", CheckpointWarning, stacklevel=4)
