"""hushgrad.signing. Vectors and attacks on the format are in tests/dpcore/keys/signing_test.cpp."""

from __future__ import annotations

import copy
import pickle
import stat
from pathlib import Path

import pytest

from hushgrad.errors import InvalidArgument, IoError, KeyError
from hushgrad.signing import Algorithm, PublicKey, SigningKey

ALGORITHMS: list[Algorithm] = ["ecdsa-p384-sha384", "ed25519"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_verifies_and_nothing_else(algorithm: Algorithm) -> None:
    key = SigningKey.generate(algorithm)
    signature = key.sign("approval", b"text")
    known = PublicKey.from_pem(key.public_key.pem)
    assert known == key.public_key and known.id == key.id and known.algorithm == algorithm
    assert known.verify("approval", b"text", signature)
    assert not known.verify("manifest", b"text", signature)
    assert not known.verify("approval", b"tex", signature)
    assert not known.verify("approval", b"text", signature[:-1])
    assert not SigningKey.generate(algorithm).public_key.verify("approval", b"text", signature)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signatures_are_those_of_the_standard(algorithm: Algorithm) -> None:
    cryptography = pytest.importorskip("cryptography")
    assert cryptography
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    key = SigningKey.generate(algorithm)
    public = serialization.load_pem_public_key(key.public_key.pem.encode())
    signed = b"hushgrad signature 1\0approval\0text"
    signature = key.sign("approval", b"text")
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, signed, ec.ECDSA(hashes.SHA384()))
    else:
        assert isinstance(public, ed25519.Ed25519PublicKey)
        public.verify(signature, signed)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files(algorithm: Algorithm, tmp_path: Path) -> None:
    key = SigningKey.generate(algorithm)
    key.save(tmp_path / "plain")
    key.save(tmp_path / "locked", "pässphrase")
    assert stat.S_IMODE((tmp_path / "locked").stat().st_mode) == 0o600
    assert SigningKey.load(tmp_path / "plain").id == key.id
    assert SigningKey.load(tmp_path / "locked", "pässphrase").id == key.id
    with pytest.raises(KeyError, match="passphrase"):
        SigningKey.load(tmp_path / "locked", "other")
    with pytest.raises(KeyError, match="passphrase"):
        SigningKey.load(tmp_path / "locked")
    with pytest.raises(IoError):
        key.save(tmp_path / "plain")
    with pytest.raises(InvalidArgument):
        key.save(tmp_path / "other", "")


def test_nothing_shows_or_copies_a_private_key(tmp_path: Path) -> None:
    key = SigningKey.generate()
    key.save(tmp_path / "plain")
    secret = "".join((tmp_path / "plain").read_text().splitlines()[1:-1])
    assert secret[40:80] not in repr(key) + str(vars(key))
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(key)
    with pytest.raises(TypeError):
        pickle.dumps(key._core)
    assert pickle.loads(pickle.dumps(key.public_key)) == key.public_key


def test_bad_input_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        PublicKey.from_pem("no key")
    with pytest.raises(InvalidArgument):
        SigningKey.generate("rsa")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        SigningKey.generate().sign("", b"")
