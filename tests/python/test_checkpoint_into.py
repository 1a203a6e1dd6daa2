"""Loading into a module that exists: the same as load and load_state_dict, and nothing changes for a damaged file."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hushgrad import checkpoint
from hushgrad.checkpoint_into import places_of, take_out
from hushgrad.errors import InvalidArgument, SealError
from hushgrad.keys import Keyring

pytestmark = pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring.create(tmp_path / "keys")
    made.create_key(dataset="ward-7")
    return made


class Marked(torch.Tensor):
    pass


class Zoo(nn.Module):
    """Parameters and buffers of every kind that matters to who writes into them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.plain = nn.Linear(300, 1001)
        self.half = nn.Linear(7, 3).to(torch.bfloat16)
        self.norm = nn.BatchNorm1d(5)
        self.norm.running_mean = torch.randn(5)
        self.tied = nn.Linear(4, 4)
        self.also_tied = self.tied
        self.shared = nn.Parameter(self.plain.bias.detach()[:3])  # memory of another parameter
        self.turned = nn.Parameter(torch.randn(3, 5).t())  # not contiguous
        self.own_class = nn.Parameter(torch.randn(3).as_subclass(Marked))
        self.register_buffer("reshaped", torch.randn(6).as_strided((2, 3), (3, 1)))
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("scalar", torch.tensor(seed))
        self.register_buffer("quantized", torch.quantize_per_tensor(torch.randn(4), 0.1 * (seed + 1), seed, torch.quint8))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))


def plain(module: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict that can be saved: subclasses cannot."""
    return {name: t if t.is_quantized else t.as_subclass(torch.Tensor) for name, t in module.state_dict().items()}


def save(path: Path, state: Any, keyring: Keyring) -> Path:
    checkpoint.save(path, state, keyring=keyring, dataset="ward-7", overwrite=True)
    return path


def bits(module: nn.Module) -> dict[str, bytes]:
    def of(tensor: torch.Tensor) -> bytes:
        values = tensor.int_repr() if tensor.is_quantized else tensor
        return values.detach().as_subclass(torch.Tensor).contiguous().view(-1).view(torch.uint8).numpy().tobytes()

    return {name: of(tensor) for name, tensor in module.state_dict().items()}


def direct(path: Path, module: nn.Module, keyring: Keyring) -> set[str]:
    reader = checkpoint.Reader(path, keyring=keyring)
    _, parts = take_out(reader._meta["state"], module)
    return set(places_of(reader._meta["state"], parts, reader._entries, checkpoint._torch_dtype))


def test_the_same_as_a_load_and_a_copy(keyring: Keyring, tmp_path: Path) -> None:
    path = save(tmp_path / "c", plain(Zoo(1)), keyring)
    module, expected = Zoo(2), Zoo(2)
    expected.load_state_dict(checkpoint.load(path, keyring=keyring).state)
    pointers = {name: tensor.data_ptr() for name, tensor in module.state_dict(keep_vars=True).items() if not tensor.is_quantized}
    versions = {name: tensor._version for name, tensor in module.state_dict(keep_vars=True).items()}
    loaded = checkpoint.load(path, keyring=keyring, into=module)
    assert loaded.state is None and bits(module) == bits(expected) == bits(Zoo(1))
    own = module.state_dict(keep_vars=True)
    assert {name: own[name].data_ptr() for name in pointers} == pointers
    assert all(own[name]._version > version for name, version in versions.items())


def test_only_memory_that_nobody_shares_is_written_directly(keyring: Keyring, tmp_path: Path) -> None:
    path = save(tmp_path / "c", plain(Zoo(1)), keyring)
    found = direct(path, Zoo(2), keyring)
    assert found == {
        "plain.weight", "half.weight", "half.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
        "norm.num_batches_tracked", "reshaped", "scalar", "spectral.bias",
        "spectral.parametrizations.weight.original", "spectral.parametrizations.weight.0._u", "spectral.parametrizations.weight.0._v",
    }  # fmt: skip
    other = Zoo(2).to(torch.float64)
    assert not direct(path, other, keyring) & {"plain.weight", "norm.weight"}
    checkpoint.load(path, keyring=keyring, into=other)
    assert torch.equal(other.plain.weight, Zoo(1).plain.weight.double())


def test_a_graph_that_needs_the_old_values_is_told(keyring: Keyring, tmp_path: Path) -> None:
    module = nn.Linear(3, 3)
    path = save(tmp_path / "c", nn.Linear(3, 3).state_dict(), keyring)
    loss = (module.weight * module.weight).sum()
    checkpoint.load(path, keyring=keyring, into=module)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def doubled(module: nn.Module) -> None:
    def hook(state: dict[str, torch.Tensor], prefix: str, *rest: Any) -> None:
        state[prefix + "weight"] = state[prefix + "weight"] * 2
        state[prefix + "bias"] = state.pop(prefix + "weight")[0].clone()
        state[prefix + "weight"] = torch.ones(3, 3)

    module._register_load_state_dict_pre_hook(hook)


class Watching(nn.Linear):
    def _load_from_state_dict(self, state: dict[str, torch.Tensor], prefix: str, *rest: Any) -> None:
        assert not torch.equal(self.weight, state[prefix + "weight"]), "what is loaded is not yet there"
        super()._load_from_state_dict(state, prefix, *rest)


def test_modules_that_look_at_what_is_loaded_see_it(keyring: Keyring, tmp_path: Path) -> None:
    path = save(tmp_path / "c", nn.Linear(3, 3).state_dict(), keyring)
    hooked, expected = nn.Linear(3, 3), nn.Linear(3, 3)
    for module in (hooked, expected):
        doubled(module)
    assert not direct(path, hooked, keyring) and not direct(path, Watching(3, 3), keyring)
    checkpoint.load(path, keyring=keyring, into=hooked)
    expected.load_state_dict(checkpoint.load(path, keyring=keyring).state)
    assert bits(hooked) == bits(expected)
    checkpoint.load(path, keyring=keyring, into=Watching(3, 3))


def outcome(call: Callable[[], object]) -> str:
    try:
        call()
        return "loaded"
    except RuntimeError as error:
        return str(error)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("saved", [nn.Linear(3, 4), nn.Linear(3, 4, bias=False), nn.Linear(3, 5), nn.Sequential(nn.Linear(3, 4))])
@pytest.mark.filterwarnings("ignore::hushgrad.checkpoint.CheckpointWarning")
def test_keys_and_shapes_that_do_not_fit_are_torchs_business(saved: nn.Module, strict: bool, keyring: Keyring, tmp_path: Path) -> None:
    path = save(tmp_path / "c", saved.state_dict(), keyring)
    module = nn.Linear(3, 4)
    expected = copy.deepcopy(module)
    ours = outcome(lambda: checkpoint.load(path, keyring=keyring, into=module, strict=strict))
    theirs = outcome(lambda: expected.load_state_dict(checkpoint.load(path, keyring=keyring).state, strict=strict))
    assert ours == theirs and bits(module) == bits(expected)


def test_missing_and_unexpected_keys_are_said(keyring: Keyring, tmp_path: Path) -> None:
    path = save(tmp_path / "c", {"weight": torch.ones(4, 3), "more": torch.ones(1)}, keyring)
    with pytest.warns(checkpoint.CheckpointWarning, match=r"\['bias'\].*\['more'\]"):
        checkpoint.load(path, keyring=keyring, into=nn.Linear(3, 4), strict=False)


def test_modules_beside_other_state(keyring: Keyring, tmp_path: Path) -> None:
    first, second = nn.Linear(300, 999), nn.Linear(2, 2)
    state = {"model": first.state_dict(), "teacher": second.state_dict(), "epoch": 3, "extra": [torch.arange(5)]}
    path = save(tmp_path / "c", state, keyring)
    mine, teacher = nn.Linear(300, 999), nn.Linear(2, 2)
    loaded = checkpoint.load(path, keyring=keyring, into={"model": mine, "teacher": teacher})
    assert bits(mine) == bits(first) and bits(teacher) == bits(second)
    assert loaded.state["model"] is None and loaded.state["teacher"] is None and loaded.state["epoch"] == 3
    assert torch.equal(loaded.state["extra"][0], torch.arange(5))
    for into in ({"models": mine}, {"epoch": mine}):
        with pytest.raises(InvalidArgument):
            checkpoint.load(path, keyring=keyring, into=into)
    with pytest.raises(InvalidArgument, match="both"):
        checkpoint.load(path, keyring=keyring, into=mine, only=["model"])


def test_two_places_of_one_saved_tensor(keyring: Keyring, tmp_path: Path) -> None:
    weight = torch.randn(3, 3)
    path = save(tmp_path / "c", {"0.weight": weight, "1.weight": weight}, keyring)
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    assert not direct(path, module, keyring)
    checkpoint.load(path, keyring=keyring, into=module)
    assert torch.equal(module[0].weight, weight) and torch.equal(module[1].weight, weight)


class Overlapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Parameter(torch.randn(4, 3))
        self.part = nn.Parameter(self.whole.detach().view(-1)[2:7])


def test_parameters_that_overlap_end_as_copies_one_after_the_other(keyring: Keyring, tmp_path: Path) -> None:
    saved = {"part": torch.randn(5), "whole": torch.randn(4, 3)}
    path = save(tmp_path / "c", saved, keyring)
    module, expected = Overlapping(), Overlapping()
    assert not direct(path, module, keyring)
    checkpoint.load(path, keyring=keyring, into=module)
    expected.load_state_dict(saved)
    assert bits(module) == bits(expected)


def test_where_pytorch_swaps_parameters_it_is_the_same(keyring: Keyring, tmp_path: Path) -> None:
    path = save(tmp_path / "c", nn.Linear(3, 3).state_dict(), keyring)
    module = nn.Linear(3, 3)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        checkpoint.load(path, keyring=keyring, into=module)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert torch.equal(module.weight, checkpoint.load(path, keyring=keyring).state["weight"])


def test_a_damaged_file_changes_no_bit(keyring: Keyring, tmp_path: Path) -> None:
    path = save(tmp_path / "c", plain(Zoo(1)), keyring)
    whole = path.read_bytes()
    module = Zoo(2)
    before, versions = bits(module), [t._version for t in module.state_dict(keep_vars=True).values()]
    segments = len(whole) - 10_000
    assert segments > 2**20 and direct(path, module, keyring)
    places = [30, 9_500, 20_000, segments // 2, 2**20 + 9_000, len(whole) - 700, len(whole) - 550, len(whole) - 520, len(whole) - 1]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(SealError):
            checkpoint.load(path, keyring=keyring, into=module)
    for size in (len(whole) - 1, len(whole) - 600, segments, 100):
        path.write_bytes(whole[:size])
        with pytest.raises(SealError):
            checkpoint.load(path, keyring=keyring, into=module)
    assert bits(module) == before and [t._version for t in module.state_dict(keep_vars=True).values()] == versions
    path.write_bytes(whole)
    checkpoint.load(path, keyring=keyring, into=module)
    assert bits(module) == bits(Zoo(1))


def test_a_file_that_changes_between_the_two_reads_gives_nothing(keyring: Keyring, tmp_path: Path) -> None:
    path = save(tmp_path / "c", nn.Linear(300, 1001).state_dict(), keyring)
    reader = checkpoint.Reader(path, keyring=keyring)
    reader._core.pin()
    with open(path, "r+b") as file:
        file.seek(-800, 2)
        file.write(b"\0" * 8)
    room = {name: torch.ones(entry.shape) for name, entry in reader._entries.items()}
    with pytest.raises(SealError):
        reader._core.read_some(list(room), [checkpoint._bytes_of(t) for t in room.values()])
    assert not any(tensor.any() for tensor in room.values())


RANK = """
import sys, torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import distribute_tensor, Shard, Replicate
from hushgrad import checkpoint
from hushgrad.errors import SealError, Unsupported
from test_checkpoint_into import direct
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=3)
mesh = init_device_mesh("cpu", (3,), mesh_dim_names=("dp",))

def module(fill, weight, bias, mesh=mesh):
    made = nn.Linear(4, 6)
    made.weight = nn.Parameter(distribute_tensor(fill + torch.arange(24.0).reshape(6, 4), mesh, [weight]))
    made.bias = nn.Parameter(distribute_tensor(fill + torch.arange(6.0), mesh, [bias]))
    return made

def whole(module):
    return [p.full_tensor().tolist() for p in module.parameters()]

keys, path, other = f"{folder}/keys", f"{folder}/c.{rank}", f"{folder}/c.{(rank + 1) % 3}"
saved, fresh, turned = (lambda: module(1, Shard(0), Replicate())), (lambda: module(2, Shard(0), Replicate())), module(3, Shard(1), Shard(0))
checkpoint.save(path, saved().state_dict(), keyring=keys, dataset="ward-7")
target = fresh()
assert direct(path, target, keys) == {"weight", "bias"}
shards = [p.to_local().data_ptr() for p in target.parameters()]
checkpoint.load(path, keyring=keys, into=target)
assert whole(target) == whole(saved()) and [p.to_local().data_ptr() for p in target.parameters()] == shards

assert direct(path, turned, keys) == set()  # laid out otherwise: the processes exchange what they have
checkpoint.load(path, keyring=keys, into=turned)
assert whole(turned) == whole(saved()) and turned.weight.placements == (Shard(1),)
assert direct(path, module(2, Shard(0), Replicate(), DeviceMesh("cpu", [0, 2, 1], mesh_dim_names=("dp",))), keys) == set()

def refused(error, path, into, words):
    before = [p.to_local().clone() if hasattr(p, "to_local") else p.clone() for p in into.parameters()]
    try:
        checkpoint.load(path, keyring=keys, into=into)
    except error as received:
        assert words in str(received), received
    else:
        raise AssertionError(words)
    now = [p.to_local() if hasattr(p, "to_local") else p for p in into.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, now))

dist.barrier()
refused(Unsupported, other, fresh(), "rank")
refused(RuntimeError, path, nn.Linear(4, 6), "DTensor")
content = bytearray(open(path, "rb").read())
content[-1000] ^= 1
open(f"{folder}/damaged.{rank}", "wb").write(content)
refused(SealError, f"{folder}/damaged.{rank}", fresh(), "segment")
dist.barrier()
dist.destroy_process_group()
"""


def test_each_process_loads_its_shards_into_their_memory(keyring: Keyring, tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)], cwd=Path(__file__).parent, stderr=subprocess.PIPE, text=True)
        for rank in range(3)
    ]
    for rank in ranks:
        _, error = rank.communicate(timeout=120)
        assert rank.returncode == 0, error
