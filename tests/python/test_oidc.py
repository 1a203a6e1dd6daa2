"""Tokens as proof of an actor: good ones, and one bad one for each thing that can be wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hushgrad.accounting import GaussianDpEvent
from hushgrad.errors import Denied, InvalidArgument
from hushgrad.ledger import Ledger
from hushgrad.oidc import Provider, SignIn, add_provider, providers, verify
from hushgrad.signing import SigningKey

jwt = pytest.importorskip("jwt")
pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: E402
from jwt.algorithms import ECAlgorithm, RSAAlgorithm  # noqa: E402

ISSUER, AUDIENCE = "https://login.example", "hushgrad"
EC, OTHER_EC = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(key: Any, kid: str) -> dict[str, Any]:
    algorithm: Any = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


PROVIDER = Provider(ISSUER, AUDIENCE, {"keys": [jwk(EC, "e1"), jwk(RSA, "r1")]})


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "1234", "exp": now + 600, "iat": now, "nonce": "n", "amr": ["pwd", "mfa"]}
    whole.update(changes)
    return {key: value for key, value in whole.items() if value is not None}


def token(key: Any = EC, algorithm: str = "ES256", kid: str | None = "e1", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    named = {} if kid is None else {"kid": kid}
    return str(jwt.encode(claims(**changes), key, algorithm=algorithm, headers={**named, **(headers or {})}))


def reason(text: str, provider: Provider = PROVIDER) -> str:
    with pytest.raises(Denied) as caught:
        verify(text, provider, nonce="n")
    assert not text or text not in str(caught.value)
    return caught.value.reason


def test_good_tokens() -> None:
    found = verify(token(), PROVIDER, nonce="n")
    assert (found.subject, found.issuer) == ("1234", ISSUER)
    verify(token(RSA, "RS256", "r1"), PROVIDER, nonce="n")
    verify(token(aud=[AUDIENCE]), PROVIDER, nonce="n")
    verify(token(aud=[AUDIENCE, "other"], azp=AUDIENCE), PROVIDER, nonce="n")


def pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def unsigned() -> str:
    return str(jwt.encode(claims(), None, algorithm="none", headers={"kid": "r1"}))


def by_public_key() -> str:
    """HS256 with the bytes of the RSA public key as the secret."""
    import base64
    import hashlib
    import hmac

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "kid": "r1", "typ": "JWT"}).encode())
    body = part(json.dumps(claims()).encode())
    return f"{head}.{body}.{part(hmac.new(pem(RSA), f'{head}.{body}'.encode(), hashlib.sha256).digest())}"


def altered() -> str:
    head, body, signature = token().split(".")
    other = token(sub="admin").split(".")[1]
    return f"{head}.{other}.{signature}"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (unsigned, "algorithm"),
        (by_public_key, "algorithm"),
        (altered, "signature"),
        (lambda: token(OTHER_EC), "signature"),
        (lambda: token(kid="r1"), "algorithm"),
        (lambda: token(RSA, "RS256", "e1"), "algorithm"),
        (lambda: token(RSA, "PS256", "r1"), "algorithm"),
        (lambda: token(kid="other"), "unknown_key"),
        (lambda: token(kid=None), "unknown_key"),
        (lambda: token(headers={"crit": ["x"], "x": 1}), "malformed"),
        (lambda: token(exp=int(time.time()) - 60), "expired"),
        (lambda: token(nbf=int(time.time()) + 600), "not_yet"),
        (lambda: token(iat=int(time.time()) + 600), "not_yet"),
        (lambda: token(aud="other"), "audience"),
        (lambda: token(aud=[AUDIENCE, "other"]), "audience"),
        (lambda: token(iss="https://evil.example"), "issuer"),
        (lambda: token(exp=None), "missing_claim"),
        (lambda: token(sub=None), "missing_claim"),
        (lambda: token(nonce=None), "missing_claim"),
        (lambda: token(nonce="another"), "nonce"),
        (lambda: token(amr=None), "mfa"),
        (lambda: token(amr=["pwd"]), "mfa"),
        (lambda: token(amr="mfa"), "mfa"),
        (lambda: "", "malformed"),
        (lambda: "a.b.c", "malformed"),
        (lambda: "x" * 100_000, "malformed"),
        (lambda: token()[:-1] + "\udcce", "malformed"),
        (lambda: token()[:-1] + "\u00e9", "malformed"),
        (lambda: token(exp=10**30), "malformed"),
        (lambda: token(exp=float("inf")), "malformed"),
    ],
)
def test_one_fault_is_enough(make: Callable[[], str], expected: str) -> None:
    assert reason(make()) == expected


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_changed_token_says_something_else(data: st.DataObject) -> None:
    good = token()
    at = data.draw(st.integers(0, len(good) - 1))
    new = data.draw(st.text("ABCxyz019-_.=", min_size=0, max_size=3))
    changed = good[:at] + new + good[at + data.draw(st.integers(0, 3)) :]
    try:
        found = verify(changed, PROVIDER, nonce="n")
    except Denied:
        return
    assert found == verify(good, PROVIDER, nonce="n")


def test_the_second_factor_may_be_an_acr() -> None:
    provider = Provider(ISSUER, AUDIENCE, {"keys": [jwk(EC, "e1")]}, mfa="acr:gold")
    assert reason(token(acr="silver"), provider) == "mfa"
    verify(token(acr="gold"), provider, nonce="n")


def test_providers_have_public_keys_and_known_algorithms() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}
    with pytest.raises(InvalidArgument):
        Provider(ISSUER, AUDIENCE, {"keys": [secret]})
    with pytest.raises(InvalidArgument):
        Provider(ISSUER, AUDIENCE, {"keys": [{**json.loads(ECAlgorithm.to_jwk(EC)), "kid": "e1"}]})
    with pytest.raises(InvalidArgument):
        Provider(ISSUER, AUDIENCE, {"keys": []})
    for name in ("none", "HS256", "RS1"):
        with pytest.raises(InvalidArgument):
            Provider(ISSUER, AUDIENCE, {"keys": [jwk(EC, "e1")]}, algorithms=(name,))


def test_signing_in_stands_for_the_actor_and_only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSHGRAD_STATE_DIR", str(tmp_path / "state"))
    officer = Ledger(tmp_path / "l.db", identity=SigningKey.generate())
    officer.found_access("olga")
    officer.add_actor("tom", SigningKey.generate().public_key, subject=f"{ISSUER}#1234")
    officer.grant("tom", "trainer", expires=timedelta(hours=1))
    add_provider(officer, PROVIDER)
    assert providers(officer) == [PROVIDER]
    ledger = Ledger(tmp_path / "l.db")
    sign_in = SignIn(ledger)
    good = token(nonce=sign_in.nonce)
    for bad in (token(), token(nonce=sign_in.nonce, sub="stranger"), token(nonce=sign_in.nonce, iss="https://evil.example"), "nonsense"):
        with pytest.raises(Denied) as denied:
            sign_in.complete(bad)
        on_record = ledger.records("audit")[-1].fields
        assert (on_record["action"], on_record["decision"], on_record["rule"]) == ("sign_in", "denied", "token")
        assert denied.value.reason in on_record["reason"] and on_record["host"] and bad not in json.dumps(on_record)
    with pytest.raises(Denied):
        SignIn(Ledger(tmp_path / "l.db")).complete(good)  # another process
    sign_in.complete(good)
    assert ledger.actor == "tom"
    ledger.charge(ledger.begin_run(dataset="ward-7"), GaussianDpEvent(20.0))
    with pytest.raises(Denied):
        ledger.add_actor("friend", SigningKey.generate().public_key)
    with pytest.raises((Denied, InvalidArgument)):
        sign_in.complete(good)  # once
    assert ledger.verify()
