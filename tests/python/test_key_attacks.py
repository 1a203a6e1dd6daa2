"""Attacks of docs/security/attacks.md that race, forget and pile up: files that are exchanged while they are opened, answers that are
remembered, sixteen processes on one keyring. HUSHGRAD_EXCHANGE_ROUNDS (300; 100,000 in a long run) is how often a file is opened or written."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hushgrad import _core, sealed
from hushgrad.errors import HushgradError, InvalidArgument, KeyError, SealError
from hushgrad.keys import Keyring
from hushgrad.signing import SigningKey

ROUNDS = int(os.environ.get("HUSHGRAD_EXCHANGE_ROUNDS", "300"))
SIZE = 200_000


def write(path: Path, keyring: Keyring, dataset: str, fill: int) -> None:
    facts = {"dataset": dataset, "step": fill}
    _core.write_sealed(str(path), facts, "{}", [("w", "U8", [SIZE], bytes([fill]) * SIZE)], keyring._core, overwrite=True)


@contextlib.contextmanager
def meanwhile(step: Callable[[random.Random], None]) -> Iterator[None]:
    """Another process does `step` again and again."""
    child = os.fork()
    if child == 0:
        chance = random.Random(7)
        while True:
            with contextlib.suppress(OSError):
                step(chance)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def count(attempt: Callable[[], str], expected: set[str]) -> Counter[str]:
    """What came of each round, until ROUNDS of them succeeded and everything that is expected was seen."""
    seen: Counter[str] = Counter()
    succeeded = 0
    while succeeded < ROUNDS or not expected <= set(seen):
        assert seen.total() < 1000 * max(ROUNDS, 300), seen  # nobody exchanges any more
        try:
            seen[attempt()] += 1
            succeeded += 1
        except HushgradError as error:  # anything else fails the test
            seen[type(error).__name__] += 1
    return seen


def remove(path: Path) -> None:
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def exchanger(target: Path, whole: list[Path], spare: Path) -> Callable[[random.Random], None]:
    """Puts one of `whole` at `target` by rename, or a link to it, a stump, a pipe; or cuts or removes what stands there."""
    contents = {path: path.read_bytes() for path in whole}

    def put(content: bytes) -> None:
        spare.write_bytes(content)
        spare.chmod(0o600)

    def step(chance: random.Random) -> None:
        time.sleep(0.004 * chance.random())  # or everything opens and fails at once
        source = chance.choice(whole)
        stump = chance.randrange(len(contents[source]))
        remove(spare)
        match chance.randrange(8):
            case 0 | 1 | 2:
                put(contents[source])
            case 3:
                os.symlink(source, spare)
            case 4:
                put(contents[source][:stump])
            case 5:
                file = os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                os.ftruncate(file, stump)
                os.close(file)
                return
            case 6:
                os.mkfifo(spare, 0o600)
            case _:
                target.unlink()
                return
        os.rename(spare, target)

    return step


def test_a_sealed_file_that_is_exchanged_while_it_is_opened_is_one_of_them_or_an_error(tmp_path: Path) -> None:
    """Attack 22."""
    keyring = Keyring.create(tmp_path / "keys")
    for dataset in ("a", "b"):
        keyring.create_key(dataset=dataset)
    whole = [tmp_path / "one", tmp_path / "two", tmp_path / "three"]
    for path, dataset, fill in zip(whole, ("a", "a", "b"), (1, 2, 3), strict=True):
        write(path, keyring, dataset, fill)
    target = tmp_path / "target"

    def attempt() -> str:
        reader = _core.SealedReader(str(target), keyring._core)
        step, dataset = reader.core["step"], reader.core["dataset"]
        assert dataset == ("b" if step == 3 else "a")
        assert reader.read("w") == bytes([step]) * SIZE
        return f"file {step}"

    with meanwhile(exchanger(target, whole, tmp_path / "spare")):
        count(attempt, {"file 1", "file 2", "file 3", "SealError", "IoError"})


def test_a_keyring_that_is_exchanged_while_it_is_used_is_the_newest_or_an_error(tmp_path: Path) -> None:
    """Attacks 15 and 22: never the older copy, never another keyring's key, never a link."""
    ring = tmp_path / "ring"
    keyring = Keyring.create(ring)
    keyring.create_key(dataset="icu")
    shutil.copy(ring, tmp_path / "older")
    data_key = bytes(range(32))
    before = _core.wrap_for_testing(keyring._core, "icu", data_key)
    keyring.revoke(dataset="icu", reason="stolen")
    keyring.create_key(dataset="icu")
    shutil.copy(ring, tmp_path / "newest")
    stranger = Keyring.create(tmp_path / "stranger")
    stranger.create_key(dataset="icu")
    target = tmp_path / "target"
    shutil.copy(ring, target)
    (tmp_path / "target.log").write_bytes((tmp_path / "ring.log").read_bytes())
    newest = {key.id for key in keyring.list() if key.state == "active"}
    strangers = {key.id for key in stranger.list()}

    def attempt() -> str:
        opened = Keyring(target)
        ids = {key.id for key in opened.list() if key.state == "active"}
        kind = {tuple(newest): "newest", tuple(strangers): "stranger"}[tuple(ids)]  # nothing else ever shows
        with pytest.raises(KeyError):  # revoked, whatever copy stands there
            _core.unwraps_to_for_testing(opened._core, *before, data_key)
        key_id, wrapped, generation = _core.wrap_for_testing(opened._core, "icu", data_key)
        assert key_id in ids, "the keyring became another while it was open"
        rightful = keyring if kind == "newest" else stranger
        assert _core.unwraps_to_for_testing(rightful._core, key_id, wrapped, generation, data_key)
        return kind

    whole = [tmp_path / "newest", tmp_path / "older", tmp_path / "stranger", tmp_path / "newest"]
    with meanwhile(exchanger(target, whole, tmp_path / "spare")):
        count(attempt, {"newest", "stranger", "KeyError"})


def test_a_file_is_never_written_through_a_link_that_appears(tmp_path: Path) -> None:
    """Attack 22, on the way out."""
    keyring = Keyring.create(tmp_path / "keys")
    keyring.create_key(dataset="a")
    victim, target, spare = tmp_path / "victim", tmp_path / "target", tmp_path / "spare"
    victim.write_text("precious")

    def step(chance: random.Random) -> None:
        remove(spare)
        match chance.randrange(3):
            case 0:
                os.symlink(victim, spare)
            case 1:
                spare.mkdir()
            case _:
                spare.write_text("a file")
        remove(target)
        os.rename(spare, target)

    def attempt() -> str:
        write(target, keyring, "a", 1)
        return "written"

    with meanwhile(step):
        count(attempt, {"written", "IoError"})
    assert victim.read_text() == "precious"
    assert [name for name in os.listdir(tmp_path) if name.endswith(".hgtmp")] == []


def test_a_shredded_dataset_opens_nowhere(tmp_path: Path) -> None:
    """Attack 16: the file, its copies, those of before a re-wrap, and a process that has opened it before."""
    keyring = Keyring.create(tmp_path / "keys")
    keyring.create_key(dataset="icu")
    write(tmp_path / "first", keyring, "icu", 1)
    shutil.copy(tmp_path / "first", tmp_path / "copy")
    os.link(tmp_path / "first", tmp_path / "second name")
    keyring.rotate_key(dataset="icu")
    sealed.rewrap(tmp_path / "first", keyring=keyring)
    shutil.copy(tmp_path / "keys", tmp_path / "backup")
    shutil.copy(tmp_path / "keys.log", tmp_path / "backup.log")
    names = [str(tmp_path / name) for name in ("first", "copy", "second name")]

    read, write_end = os.pipe()
    answer, reply = os.pipe()
    child = os.fork()
    if child == 0:
        code = 9
        try:
            running = Keyring(tmp_path / "keys")
            for name in names:
                _core.SealedReader(name, running._core).verify_all()
            os.write(reply, b"x")
            os.read(read, 1)
            refused = 0
            for name in names:
                with contextlib.suppress(KeyError):
                    _core.SealedReader(name, running._core)
                    continue
                refused += 1
            code = 0 if refused == len(names) else 1
        finally:
            os._exit(code)
    assert os.read(answer, 1) == b"x"
    keyring.shred(dataset="icu", reason="retention ended")
    os.write(write_end, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for opener in (keyring, Keyring(tmp_path / "keys")):
        for name in names:
            with pytest.raises(KeyError, match="destroyed"):
                _core.SealedReader(name, opener._core)
    with pytest.raises(KeyError, match="older copy"):  # a backup of before
        Keyring(tmp_path / "backup")


def test_nothing_is_remembered_from_a_laxer_opening(tmp_path: Path) -> None:
    """Attack 17: a key that was used under lax demands, or for one tenant, helps nobody with stricter ones, or another tenant."""
    keyring = Keyring.create(tmp_path / "keys")
    keyring.create_key(dataset="a", tenant="clinic")
    keyring.create_key(dataset="b", tenant="lab")
    run, other = SigningKey.generate(), SigningKey.generate()
    path = tmp_path / "file"
    (tmp_path / "plain").write_text("weights")
    sealed.seal(tmp_path / "plain", path, keyring=keyring, dataset="a", identity=run)
    sealed.open(path, tmp_path / "opened", keyring=keyring)  # no writer was demanded
    with pytest.raises(SealError, match=other.public_key.id):
        sealed.open(path, tmp_path / "refused", keyring=keyring, writer=other.public_key)
    sealed.open(path, tmp_path / "opened again", keyring=keyring, writer=run.public_key)
    assert not (tmp_path / "refused").exists()

    data_key = bytes(range(32))
    (a, wrapped, generation), (b, _, _) = (_core.wrap_for_testing(keyring._core, name, data_key) for name in "ab")
    assert _core.unwraps_to_for_testing(keyring._core, a, wrapped, generation, data_key)
    with pytest.raises(SealError):  # the same bytes, for the other tenant
        _core.unwraps_to_for_testing(keyring._core, b, wrapped, generation, data_key)
    keyring.suspend(tenant="clinic", reason="audit")
    with pytest.raises(KeyError, match="suspended"):  # although it has just opened
        _core.unwraps_to_for_testing(keyring._core, a, wrapped, generation, data_key)


def test_sixteen_processes_create_rotate_rewrap_and_open_on_one_keyring(tmp_path: Path) -> None:
    """Attack 26: no key, entry or file is lost, none is torn."""
    processes, rounds = 16, 3
    ring = tmp_path / "ring"
    keyring = Keyring.create(ring)
    keyring.create_key(dataset="shared")
    for i in range(processes):
        write(tmp_path / f"file {i}", keyring, "shared", i)

    def work(i: int) -> None:
        mine = Keyring(ring)
        for k in range(rounds):
            mine.create_key(dataset=f"p{i}/{k}")
            write(tmp_path / f"own {i}", mine, f"p{i}/{k}", k)
            mine.rotate_key(dataset="shared")
            path = tmp_path / f"file {(i + 5 * k) % processes}"
            try:
                sealed.rewrap(path, keyring=mine)
            except InvalidArgument:  # rotated once more between the two
                pass
            reader = _core.SealedReader(str(path), mine._core)
            assert reader.read("w") == bytes([reader.core["step"]]) * SIZE
            assert _core.SealedReader(str(tmp_path / f"own {i}"), mine._core).core["step"] == k

    children = []
    for i in range(processes):
        child = os.fork()
        if child == 0:
            code = 9
            try:
                work(i)
                code = 0
            except BaseException:
                traceback.print_exc()  # pytest's own report ends with the parent
                raise
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * processes
    changes = 2 + 2 * processes * rounds
    assert [entry.generation for entry in keyring.verify()] == list(range(1, changes + 1))
    keys = keyring.list()
    assert len([key for key in keys if key.dataset == "shared"]) == 1 + processes * rounds
    assert len([key for key in keys if key.dataset == "shared" and key.state == "active"]) == 1
    assert {key.dataset for key in keys} == {"shared"} | {f"p{i}/{k}" for i in range(processes) for k in range(rounds)}
    for i in range(processes):
        assert _core.SealedReader(str(tmp_path / f"file {i}"), keyring._core).read("w") == bytes([i]) * SIZE
    assert [name for name in os.listdir(tmp_path) if name.endswith(".hgtmp")] == []
