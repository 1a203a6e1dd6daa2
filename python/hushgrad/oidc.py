"""Tokens of a company's identity provider as proof of who acts (OpenID Connect ID tokens). Needs ``pip install hushgrad[oidc]``.

An officer adds the provider to the ledger: issuer, audience, public keys and what is asked of tokens. Whoever signs in
shows a fresh token whose ``nonce`` commits to a new key of this process (:class:`SignIn`); the ledger then takes that key
for the actor until the token expires. Nothing is ever fetched by an address that a token names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from hushgrad.errors import Denied, InvalidArgument, Unsupported
from hushgrad.ledger import Ledger
from hushgrad.signing import SigningKey

__all__ = ["ALGORITHMS", "Claims", "Provider", "SignIn", "add_provider", "providers", "verify"]

#: What a provider may sign with. Never "none", and never a shared secret: whoever could check it could make one.
ALGORITHMS = ("ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "EdDSA")
_LEEWAY = 30
_MOST = 2**16  # characters; tokens have some thousand
_UNREADABLE = (ValueError, TypeError, RecursionError)  # what reading hostile JSON can raise beside the errors of PyJWT


@dataclass(frozen=True)
class Provider:
    """Whose tokens are believed, and what is asked of them."""

    issuer: str
    audience: str
    jwks: Mapping[str, Any]
    """The public keys, as the provider publishes them (RFC 7517)."""
    algorithms: tuple[str, ...] = ("ES256", "RS256")
    mfa: str = "amr:mfa"
    """The claim that a second factor was used: "amr:VALUE" (RFC 8176) or "acr:VALUE"; empty: not asked."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            raise InvalidArgument(f"[oidc] Expected algorithms of {', '.join(ALGORITHMS)}, received {unknown or 'none'}.")
        if self.mfa and self.mfa.split(":", 1)[0] not in ("amr", "acr"):
            raise InvalidArgument(f'[oidc] Expected mfa "amr:VALUE", "acr:VALUE" or "", received {self.mfa!r}.')
        keys = self.jwks.get("keys")
        if not isinstance(keys, list) or not keys:
            raise InvalidArgument("[oidc] Expected a key set with keys, received none. Save what the provider publishes as its JWKS.")
        if any(not isinstance(key, dict) or key.get("kty") == "oct" or "d" in key for key in keys):
            raise InvalidArgument("[oidc] Expected public keys only, received a secret one. Save what the provider publishes as its JWKS.")


@dataclass(frozen=True)
class Claims:
    """What a good token says."""

    issuer: str
    audience: str
    subject: str
    expires: datetime
    digest: str
    """SHA-384 of the token without its signature."""


def verify(token: str, provider: Provider, *, nonce: str) -> Claims:
    """Check a token: signature by a key of the provider, algorithm, issuer, audience, expiry, not before, nonce, second factor.

    Raises ``Denied`` with ``reason`` malformed, unknown_key, algorithm, signature, issuer, audience, expired, not_yet,
    missing_claim, nonce or mfa; ``Unsupported`` without PyJWT.
    """
    jwt = _jwt()
    _check_form(token)
    key, algorithm = _key_for(jwt, token, provider)
    try:
        claims = jwt.decode(
            token,
            key=key,
            algorithms=[algorithm],
            audience=provider.audience,
            issuer=provider.issuer,
            leeway=_LEEWAY,
            options={"require": ["exp", "iat", "iss", "aud", "sub", "nonce"], "strict_aud": False},
        )
    except (jwt.exceptions.PyJWTError, *_UNREADABLE) as error:
        raise _denied(_reason(jwt, error)) from error
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise _denied("missing_claim")
    if claims.get("nonce") != nonce:
        raise _denied("nonce")
    if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != provider.audience:
        raise _denied("audience")
    if not _used_second_factor(claims, provider.mfa):
        raise _denied("mfa")
    try:
        expires = datetime.fromtimestamp(int(claims["exp"]), timezone.utc)
    except (OverflowError, ValueError, OSError) as error:  # a time that no calendar has
        raise _denied("malformed") from error
    # Without the signature: its last character has spare bits, and the same token must not have two digests.
    digest = hashlib.sha384(token.rsplit(".", 1)[0].encode()).hexdigest()
    return Claims(provider.issuer, provider.audience, claims["sub"], expires, digest)


class SignIn:
    """One sign-in of this process: ask the provider for a token with :attr:`nonce`, then :meth:`complete`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._key = SigningKey.generate()
        text = f"hushgrad sign-in 1\n{ledger.id}\n{self._key.public_key.pem}"
        self.nonce = hashlib.sha384(text.encode()).hexdigest()
        """To send along with the authentication request: binds the token to this process and this ledger."""

    def complete(self, token: str) -> SigningKey:
        """Check the token, put the sign-in on record, and act as the actor of its subject until it expires.

        Returns the key that stands for the actor, also for ``PrivacyEngine(identity=)``. ``Denied`` when it does not hold.
        """
        claims = self._checked(token)
        expires = claims.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        self._ledger._handle.open_session(
            claims.issuer, claims.audience, claims.subject, claims.digest, expires, self._key.public_key._core
        )
        self._ledger.identify(self._key)
        return self._key

    def _checked(self, token: str) -> Claims:
        """Whose token does not hold is not known; that somebody showed it is on record."""
        issuer = ""
        try:
            found = [one for one in providers(self._ledger) if one.issuer == _unchecked_issuer(token)]
            if not found:
                raise _denied("issuer")
            issuer = found[-1].issuer
            return verify(token, found[-1], nonce=self.nonce)
        except Denied as denied:
            self._ledger._handle.refuse_sign_in(issuer, denied.reason)
            raise


def add_provider(ledger: Ledger, provider: Provider) -> int:
    """Believe tokens of this provider from now on; a privacy officer does this, also when its keys change."""
    return ledger._handle.add_provider(
        provider.issuer, provider.audience, json.dumps(provider.jwks), " ".join(provider.algorithms), provider.mfa
    )


def providers(ledger: Ledger) -> list[Provider]:
    """Those of a ledger; the newest of an issuer holds."""
    newest = {}
    for record in ledger.records("provider"):
        fields = record.fields
        newest[fields["issuer"]] = Provider(
            fields["issuer"], fields["audience"], json.loads(fields["jwks"]), tuple(fields["algorithms"].split()), fields["mfa"]
        )
    return list(newest.values())


def _jwt() -> Any:
    try:
        import jwt
        import jwt.algorithms

        if not jwt.algorithms.has_crypto:
            raise ModuleNotFoundError("cryptography")
    except ModuleNotFoundError as error:
        raise Unsupported("[oidc] Expected PyJWT with cryptography, received none. Install hushgrad[oidc].") from error
    return jwt


def _check_form(token: str) -> None:
    """Base64 and dots, of a bounded length: nothing else is handed to what reads tokens."""
    if not isinstance(token, str) or len(token) > _MOST or not token.isascii():
        raise _denied("malformed")


def _key_for(jwt: Any, token: str, provider: Provider) -> tuple[Any, str]:
    """The provider's own key for this token, and its algorithm. The key decides which algorithms fit it, not the token."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.exceptions.PyJWTError, *_UNREADABLE) as error:
        raise _denied("malformed") from error
    algorithm = header.get("alg")
    if algorithm not in provider.algorithms:
        raise _denied("algorithm")
    if "crit" in header:
        raise _denied("malformed")
    named = [key for key in provider.jwks["keys"] if key.get("kid") == header.get("kid")]
    if len(named) != 1 or header.get("kid") is None and len(provider.jwks["keys"]) != 1:
        raise _denied("unknown_key")
    (chosen,) = named
    family = {"ES": "EC", "PS": "RSA", "RS": "RSA", "Ed": "OKP"}[algorithm[:2]]
    if chosen.get("kty") != family or chosen.get("use", "sig") != "sig" or chosen.get("alg", algorithm) != algorithm:
        raise _denied("algorithm")
    try:
        return jwt.PyJWK.from_dict(chosen, algorithm).key, algorithm
    except (jwt.exceptions.PyJWTError, ValueError, KeyError) as error:
        raise _denied("unknown_key") from error


def _unchecked_issuer(token: str) -> str:
    """Which provider to check against; nothing else is taken from a token before its signature is checked."""
    jwt = _jwt()
    _check_form(token)
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.exceptions.PyJWTError, *_UNREADABLE) as error:
        raise _denied("malformed") from error
    return str(claims.get("iss", ""))


def _used_second_factor(claims: Mapping[str, Any], asked: str) -> bool:
    if not asked:
        return True
    name, value = asked.split(":", 1)
    found = claims.get(name)
    if name == "amr":
        return isinstance(found, Sequence) and not isinstance(found, str) and value in found
    return bool(found == value)


def _reason(jwt: Any, error: Exception) -> str:
    names = jwt.exceptions
    table = (
        (names.ExpiredSignatureError, "expired"),
        (names.ImmatureSignatureError, "not_yet"),
        (names.InvalidAudienceError, "audience"),
        (names.InvalidIssuerError, "issuer"),
        (names.MissingRequiredClaimError, "missing_claim"),
        (names.InvalidSignatureError, "signature"),
        (names.InvalidAlgorithmError, "algorithm"),
    )
    return next((word for kind, word in table if isinstance(error, kind)), "malformed")


def _denied(reason: str) -> Denied:
    """Says what is wrong with a token and shows nothing of it."""
    error = Denied(f"[oidc] Expected a token that holds, received one that does not: {reason}. Sign in again.")
    error.reason = reason
    return error
