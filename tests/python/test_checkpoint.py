"""Sealed checkpoints: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hushgrad import PrivacyEngine, _core, checkpoint
from hushgrad.errors import IoError, InvalidArgument, InvalidState, KeyError, LedgerError, SealError, Unsupported
from hushgrad.keys import Keyring
from hushgrad.ledger import Ledger
from hushgrad.signing import SigningKey

DELTA = 1e-5


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    made = Keyring.create(tmp_path / "keys")
    made.create_key(dataset="ward-7")
    return made


def assert_same(x: Any, y: Any) -> None:
    assert type(x) is type(y)
    if isinstance(x, torch.Tensor):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert torch.equal(x.contiguous().view(torch.uint8) if x.dim() else x, y.contiguous().view(torch.uint8) if y.dim() else y)
    elif isinstance(x, dict):
        assert list(x) == list(y)
        for key in x:
            assert_same(x[key], y[key])
    elif isinstance(x, (list, tuple)):
        assert len(x) == len(y)
        for a, b in zip(x, y):
            assert_same(a, b)
    else:
        assert x == y or (isinstance(x, float) and math.isnan(x) and math.isnan(y))


def round_trip(state: Any, keyring: Keyring, path: Path) -> Any:
    checkpoint.save(path, state, keyring=keyring, dataset="ward-7")
    return checkpoint.load(path, keyring=keyring).state


STATES: dict[str, Any] = {
    "none": None,
    "scalars": [True, False, 0, -1, 2**62, 2**80, -(2**63), 1.5, -0.0, 1e-300, math.inf, -math.inf, math.nan, "", "Röntgen \n\x00"],
    "tuples": ((), (1, (2,)), [(), []], {}),
    "integer keys": {0: {"step": 3, 1: "one"}, 2: [torch.ones(2)], "2": "text"},
    "strange names": {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "": torch.ones(3), "\n": torch.ones(2), "x" * 9000: torch.ones(4)},
    "colliding names": {"a#2": torch.zeros(1), "a": {"b": torch.ones(1)}, "a/b": torch.ones(2), "a/b#2": torch.ones(3)},
    "bare tensor": torch.randn(3, 4),
    "types": [torch.randn(5).to(t) for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16)]
    + [torch.arange(5).to(t) for t in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)]
    + [torch.tensor([True, False])],
    "shapes": [torch.tensor(3.5), torch.empty(0), torch.empty(2, 0, 3), torch.randn(1, 1, 1, 2), torch.tensor(7)],
    "layouts": [torch.randn(4, 6).t(), torch.randn(8)[::2], torch.randn(3).expand(2, 3), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)],
    "values": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45]),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_state_comes_back_as_it_was(name: str, keyring: Keyring, tmp_path: Path) -> None:
    assert_same(STATES[name], round_trip(STATES[name], keyring, tmp_path / "c"))


def test_tensors_that_share_storage_come_back_with_their_own_values(keyring: Keyring, tmp_path: Path) -> None:
    base = torch.arange(6.0)
    state = {"whole": base, "view": base[2:4], "again": base, "matrix": base.view(2, 3)}
    assert_same(state, round_trip(state, keyring, tmp_path / "c"))
    tied = nn.Linear(4, 4)
    model = nn.Sequential(nn.Embedding(4, 4), tied)
    tied.weight = model[0].weight  # type: ignore[assignment]
    assert_same(dict(model.state_dict()), round_trip(model.state_dict(), keyring, tmp_path / "d"))


def test_what_describes_a_checkpoint(keyring: Keyring, tmp_path: Path) -> None:
    checkpoint.save(
        tmp_path / "c", {"w": torch.ones(2)}, keyring=keyring, dataset="ward-7", run_id="r", step=7, plan='{"noise_multiplier": 1.1}',
        ledger_head=(3, "ab" * 48), epsilon={"delta": 1e-5, "epsilon": 2.0},
    )  # fmt: skip
    opened, seen = checkpoint.load(tmp_path / "c", keyring=keyring.path), checkpoint.inspect(tmp_path / "c")
    for described in (opened, seen):
        assert (described.dataset, described.run_id, described.step) == ("ward-7", "r", 7)
        assert described.plan == {"noise_multiplier": 1.1}
        assert described.ledger_head == (3, "ab" * 48)
        assert described.epsilon == {"delta": 1e-5, "epsilon": 2.0}


class Object:
    pass


@pytest.mark.parametrize(
    ("state", "where"),
    [({"a": [Object()]}, "a/0"), ({"f": len}, "f"), ({(1, 2): 3}, ""), ({True: 1}, ""), ({"x": {1, 2}}, "x"), ({"m": torch.empty(2, device="meta")}, "m")],
    ids=["object", "function", "tuple key", "bool key", "set", "meta tensor"],
)
def test_what_has_no_form_is_refused_and_leaves_no_file(state: Any, where: str, keyring: Keyring, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=f"'{where}'"):
        checkpoint.save(tmp_path / "c", state, keyring=keyring, dataset="ward-7")
    assert not (tmp_path / "c").exists()


def test_nesting_has_an_end(keyring: Keyring, tmp_path: Path) -> None:
    state: Any = 1
    for _ in range(64):
        state = [state]
    assert_same(state, round_trip(state, keyring, tmp_path / "c"))
    with pytest.raises(Unsupported, match="64 deep"):
        round_trip([state], keyring, tmp_path / "d")


# What lies on the disk.


def test_no_plain_tensor_and_no_pickle_lies_on_the_disk(keyring: Keyring, tmp_path: Path) -> None:
    known = torch.full((1000,), 1.2345)
    marker = "a name nobody else would choose"
    checkpoint.save(tmp_path / "c", {marker: known}, keyring=keyring, dataset="ward-7")
    content = (tmp_path / "c").read_bytes()
    assert len(content) > 4000
    assert known.numpy().tobytes()[:16] not in content
    assert marker.encode() not in content
    assert b"PK\x03\x04" not in content and not content.startswith(b"\x80")
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o600
    checkpoint.save(tmp_path / "d", {marker: known}, keyring=keyring, dataset="ward-7")
    other = (tmp_path / "d").read_bytes()
    # The same state sealed twice shares no 16 bytes of cipher text.
    assert not {content[i : i + 16] for i in range(1000, 4000)} & {other[i : i + 16] for i in range(1000, 4000)}


def test_any_flipped_byte_is_found(keyring: Keyring, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"w": torch.randn(300), "n": 3}, keyring=keyring, dataset="ward-7")
    content = (tmp_path / "c").read_bytes()
    for position in [*range(0, 96), *range(96, len(content), 37), len(content) - 1]:
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        (tmp_path / "c").write_bytes(damaged)
        with pytest.raises((SealError, KeyError)):
            checkpoint.load(tmp_path / "c", keyring=keyring)
    for cut in (0, 1, 64, len(content) // 2, len(content) - 1):
        (tmp_path / "c").write_bytes(content[:cut])
        with pytest.raises(SealError):
            checkpoint.load(tmp_path / "c", keyring=keyring)
    (tmp_path / "c").write_bytes(content + b"\0")
    with pytest.raises(SealError):
        checkpoint.load(tmp_path / "c", keyring=keyring)


def test_a_pickle_is_not_opened(keyring: Keyring, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "c")
    with pytest.raises(SealError):
        checkpoint.load(tmp_path / "c", keyring=keyring)


def test_other_keys_open_nothing(keyring: Keyring, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"w": torch.ones(3)}, keyring=keyring, dataset="ward-7")
    other = Keyring.create(tmp_path / "other")
    other.create_key(dataset="ward-7")
    with pytest.raises((KeyError, SealError)):
        checkpoint.load(tmp_path / "c", keyring=other)
    with pytest.raises(KeyError):
        checkpoint.save(tmp_path / "d", {}, keyring=keyring, dataset="another")
    keyring.rotate_key(dataset="ward-7")
    assert_same(checkpoint.load(tmp_path / "c", keyring=keyring).state, {"w": torch.ones(3)})


def test_a_file_is_replaced_only_when_asked(keyring: Keyring, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", 1, keyring=keyring, dataset="ward-7")
    with pytest.raises(IoError):
        checkpoint.save(tmp_path / "c", 2, keyring=keyring, dataset="ward-7")
    assert checkpoint.load(tmp_path / "c", keyring=keyring).state == 1
    checkpoint.save(tmp_path / "c", 2, keyring=keyring, dataset="ward-7", overwrite=True)
    assert checkpoint.load(tmp_path / "c", keyring=keyring).state == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "keys", "keys.log"]


# Through the engine.


class Training:
    def __init__(self, ledger: str | Path, keyring: Keyring | Path | None, **options: Any) -> None:
        torch.manual_seed(0)
        self.engine = PrivacyEngine(ledger=ledger, dataset="ward-7", keyring=keyring)
        self.module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        self.optimizer = torch.optim.Adam(self.module.parameters(), 0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        x = torch.randn(30, 4)
        self.loader: DataLoader[Any] = DataLoader(TensorDataset(x, x[:, :1]), batch_size=10)
        options = {"noise_multiplier": 0.0, "max_grad_norm": 1.0, "poisson_sampling": False, **options}
        self.engine.make_private(module=self.module, optimizer=self.optimizer, data_loader=self.loader, **options)

    def epoch(self) -> None:
        for x, y in self.loader:
            self.optimizer.zero_grad()
            F.mse_loss(self.module(x), y).backward()
            self.optimizer.step()
            self.scheduler.step()

    def save(self, path: Path, **options: Any) -> None:
        self.engine.save_checkpoint(
            path, module=self.module, optimizer=self.optimizer, extra={"scheduler": self.scheduler.state_dict()}, **options
        )

    def load(self, path: Path) -> None:
        extra = self.engine.load_checkpoint(path, module=self.module, optimizer=self.optimizer)
        self.scheduler.load_state_dict(extra["scheduler"])

    def weights(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.module.parameters()).detach().clone()


def test_training_goes_on_as_if_it_had_not_stopped(keyring: Keyring, tmp_path: Path) -> None:
    whole = Training(tmp_path / "l.db", keyring)
    for _ in range(4):
        whole.epoch()
    first = Training(tmp_path / "l.db", keyring)
    first.epoch()
    first.epoch()
    first.save(tmp_path / "c")
    second = Training(tmp_path / "l.db", Path(keyring.path))
    second.load(tmp_path / "c")
    assert str(second.optimizer.state_dict()) == str(first.optimizer.state_dict())
    second.epoch()
    second.epoch()
    assert torch.equal(whole.weights(), second.weights())


def test_a_checkpoint_gives_no_budget_back(keyring: Keyring, tmp_path: Path) -> None:
    first = Training(tmp_path / "l.db", keyring, noise_multiplier=1.0, poisson_sampling=True)
    first.epoch()
    first.save(tmp_path / "c")
    for _ in range(2):
        first.epoch()
    first.engine.finish()
    spent = Ledger(tmp_path / "l.db").spent(dataset="ward-7", delta=DELTA)[1]
    second = Training(tmp_path / "l.db", keyring, noise_multiplier=1.0, poisson_sampling=True)
    second.load(tmp_path / "c")
    ledger = Ledger(tmp_path / "l.db")
    assert ledger.spent(dataset="ward-7", delta=DELTA)[1] == spent
    second.epoch()
    assert ledger.spent(dataset="ward-7", delta=DELTA)[1] > spent
    second.engine.finish()
    assert len(ledger.steps()) == 12


def test_what_the_engine_writes_beside_the_weights(keyring: Keyring, tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", keyring)
    training.epoch()
    training.save(tmp_path / "c")
    seen = checkpoint.inspect(tmp_path / "c")
    ledger = Ledger(tmp_path / "l.db")
    head = ledger.entries()[-2]  # the last entry is that of the checkpoint itself
    assert (seen.run_id, seen.step, seen.dataset) == (training.engine.run_id, 3, "ward-7")
    assert seen.ledger_head == (head.sequence, head.hash)
    assert seen.plan["noise_multiplier"] == 0
    assert json.dumps(seen.plan)


def test_a_ledger_that_was_put_back_is_noticed(keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(tmp_path / "l.db", keyring)
    training.epoch()
    shutil.copy(tmp_path / "l.db", tmp_path / "older.db")
    training.epoch()
    training.save(tmp_path / "c")
    with pytest.raises(LedgerError, match="put back"):
        Training(tmp_path / "older.db", keyring)  # this user has seen more
    Training(tmp_path / "l.db", keyring).load(tmp_path / "c")
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "another user"))
    for ledger in (tmp_path / "older.db", tmp_path / "new.db", ":memory:"):
        other = Training(ledger, keyring)
        before = other.weights()
        with pytest.raises(LedgerError, match="newest ledger"):
            other.load(tmp_path / "c")
        assert torch.equal(before, other.weights())
        with pytest.raises(LedgerError, match="put back"):
            other.epoch()
        assert torch.equal(before, other.weights())


def test_a_checkpoint_the_ledger_did_not_record_is_refused(keyring: Keyring, tmp_path: Path) -> None:
    """Attack 20: an insider has the key of the dataset, writes a smaller epsilon, and puts the file in the place of the original."""
    training = Training(tmp_path / "l.db", keyring)
    training.epoch()
    training.save(tmp_path / "c")
    training.save(tmp_path / "d", background=True)
    reader = checkpoint.Reader(tmp_path / "c", keyring=keyring)
    core = dict(reader._core.core, epsilon_json='{"epsilon":0.01}')
    tensors = [(e.name, e.dtype, e.shape, reader._core.read(e.name)) for e in reader._core.tensors]
    _core.write_sealed(str(tmp_path / "c"), core, reader._core.meta_json, tensors, keyring._core, overwrite=True)
    assert checkpoint.load(tmp_path / "c", keyring=keyring).epsilon == {"epsilon": 0.01}  # it opens: he has the key
    before = training.weights()
    with pytest.raises(LedgerError, match="somebody else"):
        training.load(tmp_path / "c")
    assert torch.equal(before, training.weights())
    training.save(tmp_path / "e", background=True, keep_last=1)
    training.epoch()
    training.load(tmp_path / "e")
    assert torch.equal(before, training.weights())
    seen = checkpoint.inspect(tmp_path / "e")
    assert seen.previous and seen.ledger_id == Ledger(tmp_path / "l.db").id


def test_the_engine_signs_with_its_identity(keyring: Keyring, tmp_path: Path) -> None:
    run, other = SigningKey.generate(), SigningKey.generate()
    training = Training(tmp_path / "l.db", keyring)
    training.engine.identity = run
    training.epoch()
    training.save(tmp_path / "c")
    assert checkpoint.inspect(tmp_path / "c").writer == run.public_key.id
    training.engine.load_checkpoint(tmp_path / "c", module=training.module, writer=run.public_key)
    with pytest.raises(SealError):
        training.engine.load_checkpoint(tmp_path / "c", module=training.module, writer=other.public_key)


def test_a_damaged_checkpoint_changes_no_weight(keyring: Keyring, tmp_path: Path) -> None:
    training = Training(tmp_path / "l.db", keyring)
    training.epoch()
    training.save(tmp_path / "c")
    content = bytearray((tmp_path / "c").read_bytes())
    content[-700] ^= 1
    (tmp_path / "c").write_bytes(content)
    before = training.weights()
    with pytest.raises(SealError):
        training.load(tmp_path / "c")
    assert torch.equal(before, training.weights())


def test_without_a_keyring_or_an_optimizer(keyring: Keyring, tmp_path: Path) -> None:
    with pytest.raises(InvalidState, match="hushgrad keys init"):
        Training(tmp_path / "l.db", None).save(tmp_path / "c")
    training = Training(tmp_path / "l.db", keyring)
    training.engine.save_checkpoint(tmp_path / "c", module=training.module)
    assert training.engine.load_checkpoint(tmp_path / "c", module=training.module) is None
    with pytest.raises(InvalidArgument, match="optimizer"):
        training.engine.load_checkpoint(tmp_path / "c", module=training.module, optimizer=training.optimizer)
