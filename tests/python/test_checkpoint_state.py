"""What a state may hold, how much of it is read, and how it finds its way into models, ranks and folders."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hushgrad import _core, checkpoint
from hushgrad.errors import InvalidArgument, KeyError, SealError, Unsupported
from hushgrad.keys import Keyring
from hushgrad.signing import SigningKey


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring.create(tmp_path / "keys")
    made.create_key(dataset="ward-7")
    return made


def save(path: Path, state: Any, keyring: Keyring, **options: Any) -> str:
    return checkpoint.save(path, state, keyring=keyring, dataset="ward-7", **options)


def round_trip(path: Path, state: Any, keyring: Keyring) -> Any:
    save(path, state, keyring)
    return checkpoint.load(path, keyring=keyring).state


EVERY_DTYPE = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:ComplexHalf.*:UserWarning")
@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=str)
def test_every_dtype_comes_back_bit_for_bit(dtype: torch.dtype, keyring: Keyring, tmp_path: Path) -> None:
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (6 * size,), dtype=torch.uint8)
    state = {"matrix": raw.view(dtype).reshape(2, 3), "scalar": raw[:size].clone().view(dtype)[0], "empty": torch.empty(0, 3, dtype=dtype)}
    back = round_trip(tmp_path / "c", state, keyring)
    for name, tensor in state.items():
        assert (back[name].dtype, back[name].shape) == (dtype, tensor.shape)
        assert torch.equal(back[name].contiguous().reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8))


def test_other_values(keyring: Keyring, tmp_path: Path) -> None:
    state = {
        "bytes": b"\0raw", "no bytes": b"", "many bytes": bytes(range(256)) * 9, "complex": 1 - 2j, "record": checkpoint.Record("dp-mf", 2, {"buffer": torch.ones(3)}),
        "np": [np.float32(1.5), np.int64(-3), np.bool_(True), np.float64(2.5)], "array": np.arange(6, dtype=">i4").reshape(2, 3)[:, ::2],
        "conjugate": torch.tensor([1 + 1j]).conj(), "parameter": nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    back = round_trip(tmp_path / "c", state, keyring)
    for name in ("bytes", "no bytes", "many bytes", "complex"):
        assert type(back[name]) is type(state[name]) and back[name] == state[name]
    assert (back["record"].kind, back["record"].version) == ("dp-mf", 2) and torch.equal(back["record"].data["buffer"], torch.ones(3))
    assert [type(v) for v in back["np"]] == [type(v) for v in state["np"]] and back["np"] == state["np"]
    assert isinstance(back["array"], np.ndarray) and np.array_equal(back["array"], state["array"])
    assert back["conjugate"].item() == 1 - 1j and torch.equal(back["parameter"], torch.ones(2))


@pytest.mark.filterwarnings("ignore:.*quantize.*:UserWarning", "ignore:Sparse CSR.*:UserWarning")
def test_quantized_and_sparse_tensors(keyring: Keyring, tmp_path: Path) -> None:
    whole = torch.randn(3, 4)
    for dtype in (torch.qint8, torch.quint8, torch.qint32):
        for tensor in (
            torch.quantize_per_tensor(whole, 0.1, 3, dtype),
            torch.quantize_per_channel(whole, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1, 2, 3]), 0, dtype),
        ):
            back = round_trip(tmp_path / f"{dtype}{tensor.qscheme()}", tensor, keyring)
            assert back.dtype == dtype and back.qscheme() == tensor.qscheme()
            assert torch.equal(back.int_repr(), tensor.int_repr()) and torch.equal(back.dequantize(), tensor.dequantize())
    sparse = torch.eye(4).to_sparse()
    assert torch.equal(round_trip(tmp_path / "sparse", sparse, keyring).to_dense(), torch.eye(4))
    for refused, what in ((torch.eye(3).to_sparse_csr(), "to_dense"), (torch.empty(2, device="meta"), "meta")):
        with pytest.raises(Unsupported, match=what):
            save(tmp_path / "no", {"x": refused}, keyring)


def test_what_shares_memory_shares_it_again_and_nothing_else_is_written(keyring: Keyring, tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {"whole": base, "part": base[4:8], "transposed": base.view(4, 6).t(), "bits": base.view(torch.int32)}
    back = round_trip(tmp_path / "c", state, keyring)
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor) and back[name].stride() == tensor.stride()
        assert back[name].untyped_storage().data_ptr() == back["whole"].untyped_storage().data_ptr()
    back["whole"][4] = 99
    assert back["part"][0] == 99
    assert os.path.getsize(tmp_path / "c") < 11_000

    secret = torch.arange(1000.0)
    gaps = {"first": secret[:10], "last": secret[990:]}
    save(tmp_path / "d", gaps, keyring)
    assert sum(checkpoint.Reader(tmp_path / "d", keyring=keyring).tensor(n).numel() for n in ("first", "last")) == 20

    tied = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(tied, nn.ReLU(), tied)
    back = round_trip(tmp_path / "e", model.state_dict(), keyring)
    assert back["0.weight"] is back["2.weight"]


def test_one_tensor_is_read_without_the_rest(keyring: Keyring, tmp_path: Path) -> None:
    state = {"model": {"a": torch.zeros(2**20), "b": torch.ones(3), "c": torch.full((2**20,), 2.0)}, "extra": {"n": 7, "l": [torch.ones(1)]}}
    save(tmp_path / "c", state, keyring)
    content = bytearray((tmp_path / "c").read_bytes())
    content[-2**21] ^= 1  # within c
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(SealError):
        checkpoint.load(tmp_path / "c", keyring=keyring)
    opened = checkpoint.load(tmp_path / "c", keyring=keyring, only=["model/b", "extra"])
    assert list(opened.state) == ["model", "extra"] and list(opened.state["model"]) == ["b"]
    assert torch.equal(opened.state["model"]["b"], torch.ones(3)) and opened.state["extra"]["n"] == 7
    reader = checkpoint.Reader(tmp_path / "c", keyring=keyring)
    assert torch.equal(reader.tensor("model/b"), torch.ones(3))
    assert set(reader.names()) == {"model/a", "model/b", "model/c", "extra/l/0"}
    with pytest.raises(SealError):
        reader.tensor("model/c")
    with pytest.raises(InvalidArgument, match="model/b"):
        reader.tensor("b")
    with pytest.raises(InvalidArgument, match="nothing"):
        checkpoint.load(tmp_path / "c", keyring=keyring, only="nothing")


def test_missing_and_unexpected_keys_are_torchs_error_or_a_warning() -> None:
    module = nn.Linear(2, 2)
    state = {"weight": torch.ones(2, 2), "other": torch.ones(1)}
    with pytest.raises(RuntimeError, match="(?s)Missing key.*bias.*Unexpected key.*other"):
        checkpoint.load_into(module, state)
    with pytest.warns(checkpoint.CheckpointWarning, match="(?s)bias.*other"):
        assert checkpoint.load_into(module, state, strict=False) == (["bias"], ["other"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint.load_into(module, nn.Linear(2, 2).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        checkpoint.load_into(module, {"weight": torch.ones(3, 2), "bias": torch.ones(2)}, strict=False)


def test_hostile_trees_are_refused(keyring: Keyring, tmp_path: Path) -> None:
    """Sealed under the right key by somebody who means harm."""
    import json

    from hushgrad import _core

    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    view = ["b", "float32", 0, [4], [1]]
    trees = [
        deep, {"$pickle": "x"}, {"$tensor": "none"}, {"$tensor": 1}, {"$map": 1}, {"$map": [[1]]}, {"$map": [[[], 1]]}, {"$tuple": 3}, {"$int": "x"},
        {"$float": []}, {"$a": 1, "$b": 2}, {"$view": view[:4]}, {"$view": ["b", "float32", 0, [5], [1]]}, {"$view": ["b", "float32", 2, [1], [1]]},
        {"$view": ["b", "float32", -4, [1], [1]]}, {"$view": ["b", "object", 0, [1], [1]]},
        {"$view": ["b", "float32", 0, [2], [2**62]]}, {"$view": ["b", "float32", 0, [1, 1], [1]]}, {"$quantized": [{"$tensor": "b"}, "qint8", [0.1]]},
        {"$sparse": [{"$tensor": "b"}, {"$tensor": "b"}, [1]]}, {"$record": [1]}, {"$complex": [{"$tensor": "b"}, 1]}, {"$bytes": "none"},
        {"$dtensor": []}, {"$numpy": [True, 1]},
    ]  # fmt: skip
    for i, tree in enumerate(trees):
        path = str(tmp_path / f"x{i}")
        meta = json.dumps({"format": "hushgrad.checkpoint/1", "state": tree})
        _core.write_sealed(path, {"dataset": "ward-7"}, meta, [("b", "U8", [16], bytes(16))], keyring._core)
        with pytest.raises(SealError):
            checkpoint.load(path, keyring=keyring)


def test_a_writer_is_demanded(keyring: Keyring, tmp_path: Path) -> None:
    run, other = SigningKey.generate(), SigningKey.generate()
    digest = save(tmp_path / "c", {"w": torch.ones(2)}, keyring, identity=run)
    seen = checkpoint.inspect(tmp_path / "c")
    assert (seen.writer, seen.digest) == (run.public_key.id, digest)
    assert checkpoint.load(tmp_path / "c", keyring=keyring, writer=run.public_key).digest == digest
    assert checkpoint.load(tmp_path / "c", keyring=keyring, writer=run.public_key.pem).writer == run.public_key.id
    with pytest.raises(SealError, match=other.public_key.id):
        checkpoint.load(tmp_path / "c", keyring=keyring, writer=other.public_key)
    save(tmp_path / "d", {"w": torch.ones(2)}, keyring)
    assert checkpoint.inspect(tmp_path / "d").writer == ""
    with pytest.raises(SealError, match="unsigned"):
        checkpoint.load(tmp_path / "d", keyring=keyring, writer=run.public_key)


def test_the_newest_intact_checkpoint_is_found(keyring: Keyring, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert checkpoint.newest(folder, keyring=keyring) is None
    for step in range(4):
        save(folder / f"{step}", {"n": step}, keyring, step=step, ledger_head=(10 + step, "ab"))
    (folder / "notes.txt").write_text("not sealed")
    assert checkpoint.newest(folder, keyring=keyring) == folder / "3"
    for damaged, how in (("3", lambda c: c[:-600] + bytes([c[-600] ^ 1]) + c[-599:]), ("2", lambda c: c[: len(c) // 2])):
        content = (folder / damaged).read_bytes()
        (folder / damaged).write_bytes(how(content))
    (folder / "4").write_bytes(b"")
    with pytest.warns(checkpoint.CheckpointWarning) as said:
        assert checkpoint.newest(folder, keyring=keyring) == folder / "1"
    assert {Path(str(w.message).split()[3].rstrip(":")).name for w in said} == {"2", "3", "4"}
    with pytest.warns(checkpoint.CheckpointWarning):
        assert checkpoint.newest(folder, keyring=keyring, dataset="another") is None
    stranger = Keyring.create(tmp_path / "stranger")
    with pytest.warns(checkpoint.CheckpointWarning, match="Passed over"):
        assert checkpoint.newest(folder, keyring=stranger) is None


def test_a_hostile_core_is_passed_over(keyring: Keyring, tmp_path: Path) -> None:
    """JSON that Python does not read stands in the part of a file that is read without a key."""
    plan = "[" * 100_000 + "]" * 100_000
    save(tmp_path / "good", {"n": 1}, keyring)
    _core.write_sealed(str(tmp_path / "hostile"), {"dataset": "ward-7", "plan_json": plan}, "{}", [], keyring._core)
    with pytest.raises(SealError, match="bounded"):
        checkpoint.inspect(tmp_path / "hostile")
    with pytest.warns(checkpoint.CheckpointWarning, match="hostile"):
        assert checkpoint.newest(tmp_path, keyring=keyring) == tmp_path / "good"


def test_the_last_and_the_best_are_kept(keyring: Keyring, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for step, metric in enumerate([0.9, 0.2, 0.8, 0.5, 0.1, 0.3]):
        save(folder / f"{step}", {"n": step}, keyring, step=step, metric=metric, ledger_head=(step, "ab"), run_id="r")
    save(folder / "other run", {}, keyring, run_id="s")
    (folder / "damaged").write_bytes((folder / "0").read_bytes()[:-1])
    with pytest.warns(checkpoint.CheckpointWarning, match="damaged"):
        gone = checkpoint.retain(folder, keyring=keyring, keep_last=2, keep_best=2, run_id="r")
    assert sorted(p.name for p in gone) == ["1", "3"]
    assert sorted(os.listdir(folder)) == ["0", "2", "4", "5", "damaged", "other run"]
    with pytest.warns(checkpoint.CheckpointWarning):
        checkpoint.retain(folder, keyring=keyring, keep_last=0, keep_best=1, best="min", run_id="r")
    assert sorted(os.listdir(folder)) == ["4", "damaged", "other run"]
    for bad in ({"keep_last": 0}, {"keep_last": -1}, {"keep_last": 1, "best": "most"}):
        with pytest.raises(InvalidArgument):
            checkpoint.retain(folder, keyring=keyring, **bad)


RANK = """
import sys, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor, Shard, Replicate
from hushgrad import checkpoint
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("dp",))
whole = torch.arange(10.0).reshape(5, 2)
state = {"sharded": distribute_tensor(whole, mesh, [Shard(0)]), "replicated": distribute_tensor(whole, mesh, [Replicate()]), "plain": whole}
checkpoint.save(f"{folder}/c.{rank}", state, keyring=f"{folder}/keys", dataset="ward-7")
back = checkpoint.load(f"{folder}/c.{rank}", keyring=f"{folder}/keys").state
for name in ("sharded", "replicated"):
    assert back[name].placements == state[name].placements and back[name].shape == whole.shape, back[name]
    assert torch.equal(back[name].full_tensor(), whole)
try:
    checkpoint.load(f"{folder}/c.{1 - rank}", keyring=f"{folder}/keys")
except Exception as error:
    print(type(error).__name__, "rank" in str(error))
dist.barrier()
dist.destroy_process_group()
"""


def test_each_rank_saves_and_loads_its_shards(keyring: Keyring, tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for rank in ranks:
        out, error = rank.communicate(timeout=120)
        assert rank.returncode == 0, error
    with pytest.raises(Unsupported, match="2 processes"):
        checkpoint.load(tmp_path / "c.0", keyring=keyring)
    assert torch.equal(checkpoint.load(tmp_path / "c.0", keyring=keyring, only=["plain"]).state["plain"], torch.arange(10.0).reshape(5, 2))


def test_keys_of_other_datasets_and_providers_open_nothing(keyring: Keyring, tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": torch.ones(1)}, keyring)
    other = Keyring.create(tmp_path / "other")
    other.create_key(dataset="ward-7")
    with pytest.raises(KeyError):
        checkpoint.load(tmp_path / "c", keyring=other)
    with pytest.raises(InvalidArgument, match="keyring"):
        checkpoint.load(tmp_path / "c", keyring=3)
