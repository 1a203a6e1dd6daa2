"""What a keyring and certificates of destruction say about keys: inventory, states, rotations, shreds. No key material."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hushgrad.errors import HushgradError, InvalidArgument
from hushgrad.keys import Keyring, verify_certificate
from hushgrad.report import words
from hushgrad.report.text import free_text, visible
from hushgrad.signing import PublicKey

Json = dict[str, Any]

CERTIFICATE = "hushgrad certificate of destruction 1"


def describe(keyring: Keyring | None = None, certificates: Sequence[str] = ()) -> Json:
    """The section `keys` of a report; empty without a keyring and certificates.

    Every signature of the key log is verified. A certificate counts only when its own signature fits; whether its signer is
    the keyring's is said.

    Raises:
        KeyError: the keyring or its log does not verify.
        InvalidArgument: a text that is no certificate of destruction.
    """
    signer = None if keyring is None else keyring.public_key
    return {
        "inventory": [] if keyring is None else [_key(key) for key in keyring.list()],
        "log": None if keyring is None else _log(keyring),
        "certificates": [_certificate(text, signer) for text in certificates],
    }


def _key(key: Any) -> Json:
    return {
        "id": key.id,
        "dataset": visible(key.dataset),
        "tenant": visible(key.tenant),
        "state": key.state,
        "created": words.time(key.created),
        "expires": None if key.expires is None else words.time(key.expires),
    }


def _log(keyring: Keyring) -> Json:
    entries = keyring.verify()
    newest = entries[-1] if entries else None
    return {
        "signer": keyring.public_key.id,
        "entries_verified": len(entries),
        "actions": dict(sorted(Counter(entry.action for entry in entries).items())),
        "head": None if newest is None else {"sequence": newest.sequence, "hash": newest.hash},
        "break_glass": [
            {"sequence": entry.sequence, "time": words.time(entry.time), "actor": visible(entry.actor),
             "reason": free_text(entry.details.get("reason", ""))}
            for entry in entries
            if entry.action == "break-glass"
        ],
    }  # fmt: skip


def _certificate(text: str, signer: PublicKey | None) -> Json:
    try:
        fields = json.loads(text)
        if fields["format"] != CERTIFICATE:
            raise ValueError("another format")
        own = PublicKey.from_pem(fields["public_key"])
        return {
            "verified": verify_certificate(text, own),
            "signer": own.id,
            "signer_is_the_keyring": signer is not None and signer == own,
            "keyring": visible(fields["keyring"]),
            "generation": int(fields["generation"]),
            "time": visible(fields["time"]),
            "actor": visible(fields["actor"]),
            "approvers": visible(fields["approvers"]),
            "reason": free_text(fields["reason"]),
            "keys": [{name: visible(key[name]) for name in ("id", "dataset", "tenant", "state")} for key in fields["keys"]],
            "files": len(fields["files"]),
        }
    except (ValueError, KeyError, TypeError, HushgradError) as error:
        raise InvalidArgument(
            "[report] Expected a certificate of destruction, received another text. Pass the file that `hushgrad keys shred` wrote."
        ) from error
