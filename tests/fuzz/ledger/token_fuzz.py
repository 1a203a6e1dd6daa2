"""Tokens of an identity provider, coverage-guided: read or refused with one word; only what the provider signed ever passes.

    python tests/fuzz/ledger/token_fuzz.py [CORPUS] [-max_total_time=60 ...]     (pip install atheris pyjwt[crypto])

Half of the inputs are the text of a token. The other half are its header and claims, signed with the provider's own key, so that what
comes after the signature is reached too.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

import atheris

with atheris.instrument_imports(include=["jwt", "hushgrad.oidc"]):
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec
    from jwt.algorithms import ECAlgorithm

    from hushgrad import oidc
    from hushgrad.errors import Denied

ISSUER, AUDIENCE, NONCE = "https://login.example", "hushgrad", "n"
KEY = ec.generate_private_key(ec.SECP256R1())
SIGNER = ECAlgorithm(ECAlgorithm.SHA256)
JWK = {**json.loads(ECAlgorithm.to_jwk(KEY.public_key())), "kid": "e1", "use": "sig"}
PROVIDER = oidc.Provider(ISSUER, AUDIENCE, {"keys": [JWK]})
WORDS = {
    "malformed", "unknown_key", "algorithm", "signature", "issuer", "audience", "expired", "not_yet", "missing_claim", "nonce", "mfa",
}  # fmt: skip


def _part(text: bytes) -> bytes:
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def _signed(data: bytes) -> str:
    """The header before the first line feed, the claims after it; NOW is the time of the test."""
    header, _, claims = data.partition(b"\n")
    text = _part(header) + b"." + _part(claims.replace(b"NOW", str(int(time.time())).encode()))
    return (text + b"." + _part(SIGNER.sign(text, KEY))).decode()


def _expect_good(found: oidc.Claims, claims: Any) -> None:
    assert (found.issuer, found.audience) == (ISSUER, AUDIENCE) and claims["iss"] == ISSUER and claims["nonce"] == NONCE
    audience = claims["aud"]
    assert audience == AUDIENCE or audience == [AUDIENCE] or (AUDIENCE in audience and claims["azp"] == AUDIENCE)
    assert isinstance(found.subject, str) and found.subject
    assert claims["exp"] > time.time() - 60 and claims.get("nbf", 0) < time.time() + 60
    assert isinstance(claims["amr"], list) and "mfa" in claims["amr"]


def check(data: bytes) -> None:
    """One input. Anything but Denied with a known word, or a token that is good, ends the run."""
    is_signed = bool(data) and data[0] % 2 == 1
    token = _signed(data[1:]) if is_signed else data[1:].decode("utf-8", "surrogateescape")
    try:
        found = oidc.verify(token, PROVIDER, nonce=NONCE)
    except Denied as denied:
        assert denied.reason in WORDS, denied.reason
        return
    assert is_signed, "nobody has signed it"
    _expect_good(found, jwt.decode(token, options={"verify_signature": False}))


def seeds() -> list[bytes]:
    """One of each kind, to begin with."""
    header = b'{"alg":"ES256","kid":"e1","typ":"JWT"}'
    claims = b'{"iss":"https://login.example","aud":"hushgrad","sub":"1","exp":NOW9,"iat":1,"nonce":"n","amr":["mfa"]}'
    more = claims.replace(b'"aud":"hushgrad"', b'"aud":["hushgrad","other"],"azp":"hushgrad","nbf":1')
    forged = _signed(header + b"\n" + claims)[:-8].encode() + b"AAAAAAAA"
    return [b"\x01" + header + b"\n" + claims, b"\x01" + header + b"\n" + more, b"\x00" + forged, b"\x00a.b.c"]


def main() -> None:
    corpus = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for folder in corpus[:1]:
        for number, seed in enumerate(seeds()):
            with open(f"{folder}/seed{number}", "wb") as file:
                file.write(seed)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
