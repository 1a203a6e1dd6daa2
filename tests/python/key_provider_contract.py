"""What every key provider keeps, seen from Python; the same in C++ is tests/dpcore/keys/key_provider_contract.h.

A test module makes a class `TestX(KeyProviderContract)` with a fixture `place`: an object with `open()`, which gives a
provider with active keys of the datasets "a" and "b", and `suspend(dataset)` and `destroy(dataset)`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import hushgrad._core as _core
from hushgrad.errors import InvalidArgument, KeyError, SealError

DATA_KEY = bytes(range(32))


def core(provider: Any) -> Any:
    return getattr(provider, "_core", provider)


def wrap(provider: Any, dataset: str = "a", data_key: bytes = DATA_KEY) -> tuple[str, bytes, int]:
    return _core.wrap_for_testing(core(provider), dataset, data_key)


def unwraps(provider: Any, wrapped: tuple[str, bytes, int], data_key: bytes = DATA_KEY) -> bool:
    return _core.unwraps_to_for_testing(core(provider), *wrapped, data_key)


class Bystander:
    """A process that holds a provider open and tries, each time it is asked, to unwrap what it wrapped at the beginning."""

    def __init__(self, place: Any) -> None:
        (read, self._ask), (self._answer, write) = os.pipe(), os.pipe()
        self._child = os.fork()
        if self._child != 0:
            return
        try:
            provider = place.open()
            wrapped = wrap(provider)
            while os.read(read, 1) == b"?":
                try:
                    os.write(write, b"opens\n" if unwraps(provider, wrapped) else b"wrong\n")
                except Exception as error:  # noqa: BLE001 - told to the test
                    os.write(write, type(error).__name__.encode() + b"\n")
        finally:
            os._exit(0)

    def ask(self) -> str:
        os.write(self._ask, b"?")
        return os.read(self._answer, 100).decode().strip()

    def end(self) -> None:
        os.write(self._ask, b".")
        os.waitpid(self._child, 0)


class KeyProviderContract:
    def test_returns_what_it_wrapped(self, place: Any) -> None:
        provider = place.open()
        wrapped = wrap(provider)
        assert len(wrapped[0]) == 32 and 40 <= len(wrapped[1]) <= 1024 and DATA_KEY not in wrapped[1]
        assert unwraps(provider, wrapped)
        assert unwraps(place.open(), wrapped)
        assert not unwraps(provider, wrapped, bytes(32))

    def test_uses_the_named_key_only(self, place: Any) -> None:
        provider = place.open()
        (a, bytes_a, generation), (b, _, _) = wrap(provider), wrap(provider, "b")
        with pytest.raises(SealError):
            unwraps(provider, (b, bytes_a, generation))
        with pytest.raises(KeyError):
            unwraps(provider, ("0" * 32, bytes_a, generation))
        with pytest.raises(KeyError):
            wrap(provider, "unknown")
        with pytest.raises(InvalidArgument):
            wrap(provider, "a", bytes(31))

    def test_refuses_every_alteration(self, place: Any) -> None:
        provider = place.open()
        key_id, good, generation = wrap(provider)
        for at in range(0, len(good), max(1, len(good) // 8)):
            bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
            with pytest.raises((SealError, KeyError)):
                unwraps(provider, (key_id, bad, generation))
        with pytest.raises(SealError):
            unwraps(provider, (key_id, b"", generation))

    def test_follows_states_in_processes_that_run(self, place: Any) -> None:
        provider = place.open()
        a, b = wrap(provider), wrap(provider, "b")
        place.suspend("a")
        for attempt in (lambda: wrap(provider), lambda: unwraps(provider, a)):
            with pytest.raises(KeyError):
                attempt()
        assert unwraps(provider, b)
        place.destroy("b")
        with pytest.raises(KeyError):
            unwraps(provider, b)

    def test_revocation_reaches_a_process_that_runs(self, place: Any) -> None:
        """At its next use of a key: another process has the provider open, and has used it."""
        child = Bystander(place)
        assert child.ask() == "opens"
        place.suspend("a")
        assert child.ask() == "KeyError"
        child.end()

    def test_seals_and_opens_files(self, place: Any, tmp_path: Path) -> None:
        path = str(tmp_path / "sealed")
        core_facts = {"dataset": "a", "run_id": "r", "step": 0, "plan_json": "{}", "epsilon_json": "{}"}
        _core.write_sealed(path, core_facts, "{}", [("w", "U8", [4], b"abcd")], core(place.open()))
        assert _core.SealedReader(path, core(place.open())).read("w") == b"abcd"
        place.suspend("a")
        with pytest.raises(KeyError):
            _core.SealedReader(path, core(place.open()))
