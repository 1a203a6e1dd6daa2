"""Providers written in Python: what C++ sees of them, and what becomes of their errors."""

from __future__ import annotations

import pytest

import hushgrad._core as _core
from hushgrad.errors import InvalidArgument, KeyError, SealError

ID = "a" * 32
ROW = (ID, "icu", "2026-01-31T12:00:00Z", "active", "default", "")


class Reversing(_core.KeyProvider):
    """Wraps by turning bytes round: enough to see them pass."""

    def name(self) -> str:
        return "reversing"

    def generation(self) -> int:
        return 7

    def _list(self) -> list[tuple[str, ...]]:
        return [ROW]

    def _key(self, key_id: str) -> tuple[str, ...]:
        if key_id != ID:
            raise KeyError("[reversing] Expected a known key, received another.")
        return ROW

    def wrap(self, dataset: str, data_key: bytes) -> tuple[str, bytes, int]:
        return ID, data_key[::-1] + b"more", self.generation()

    def unwrap(self, key_id: str, wrapped: bytes, generation: int) -> bytes:
        self._key(key_id)
        if not wrapped.endswith(b"more"):
            raise SealError("[reversing] Expected intact bytes, received others.")
        return wrapped[:-4][::-1]


class Failing(Reversing):
    def unwrap(self, key_id: str, wrapped: bytes, generation: int) -> bytes:
        raise RuntimeError(f"request failed: {wrapped!r}")

    def wrap(self, dataset: str, data_key: bytes) -> tuple[str, bytes, int]:
        return None  # type: ignore[return-value]


DATA_KEY = bytes(range(32))


def test_keys_pass_through_a_provider_in_python() -> None:
    provider = Reversing()
    key_id, wrapped, generation = _core.wrap_for_testing(provider, "icu", DATA_KEY)
    assert (key_id, wrapped, generation) == (ID, DATA_KEY[::-1] + b"more", 7)
    assert _core.unwraps_to_for_testing(provider, key_id, wrapped, generation, DATA_KEY)
    assert not _core.unwraps_to_for_testing(provider, key_id, wrapped, generation, bytes(32))


def test_errors_of_the_taxonomy_pass_and_others_show_only_their_type() -> None:
    with pytest.raises(SealError, match="intact"):
        _core.unwraps_to_for_testing(Reversing(), ID, bytes(36), 0, DATA_KEY)
    with pytest.raises(SealError, match="32 bytes"):
        _core.unwraps_to_for_testing(Reversing(), ID, b"shortmore", 0, DATA_KEY)
    with pytest.raises(KeyError, match="known key"):
        _core.unwraps_to_for_testing(Reversing(), "b" * 32, b"more", 0, DATA_KEY)
    with pytest.raises(InvalidArgument):
        _core.wrap_for_testing(Reversing(), "icu", bytes(31))
    with pytest.raises(KeyError) as caught:
        _core.unwraps_to_for_testing(Failing(), ID, b"secret", 0, DATA_KEY)
    assert "RuntimeError" in str(caught.value) and "secret" not in str(caught.value)
    with pytest.raises(KeyError, match="another type"):
        _core.wrap_for_testing(Failing(), "icu", DATA_KEY)


def test_a_provider_without_methods_says_so() -> None:
    with pytest.raises(Exception, match="method"):
        _core.wrap_for_testing(_core.KeyProvider(), "icu", DATA_KEY)
