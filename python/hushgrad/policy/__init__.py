"""Policies: small files that say which requests are allowed, when, where and under what conditions. Works without PyTorch.

A policy is TOML (or YAML, where PyYAML is installed, or JSON). Once one is in force, what no rule allows is denied. Its
rules and their order: ``docs/access.md``; its JSON Schema: :func:`schema`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import hushgrad._core as _core
from hushgrad.errors import InvalidArgument
from hushgrad.regular_file import read_text
from hushgrad.signing import SigningKey

__all__ = ["EXAMPLE", "Signature", "load", "schema", "sign"]

#: A file to begin with.
EXAMPLE = resources.files(__name__).joinpath("example.toml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Signature:
    """A privacy officer's signature over a policy."""

    key: str
    """The id of the key."""
    signature: bytes

    @property
    def text(self) -> str:
        """JSON, to lie beside the policy."""
        return json.dumps({"format": "hushgrad policy signature 1", "key": self.key, "signature": self.signature.hex()})

    @classmethod
    def from_text(cls, text: str) -> Signature:
        """Read what :attr:`text` holds. ``InvalidArgument`` for anything else."""
        try:
            fields = json.loads(text)
            if set(fields) != {"format", "key", "signature"} or fields["format"] != "hushgrad policy signature 1":
                raise ValueError("another format")
            return cls(str(fields["key"]), bytes.fromhex(fields["signature"]))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidArgument(
                "[policy] Expected a policy signature, received something else. Make one with hushgrad policy sign."
            ) from error


_MOST = 2**20


def load(path: str | os.PathLike[str]) -> str:
    """The policy in a ``.toml``, ``.yaml``, ``.yml`` or ``.json`` file as canonical JSON.

    Raises ``InvalidArgument`` that names the place for anything that is not a policy, ``IoError`` for a file that cannot be
    read.
    """
    where = Path(path)
    text = read_text(where, "policy", most=_MOST)
    return canonical(_document(text, where.suffix.lower()))


def canonical(document: Any) -> str:
    """A policy as canonical JSON: what is signed and kept. ``InvalidArgument`` when it is none."""
    try:
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"[policy] Expected texts, numbers, lists and tables, received others: {error}.") from error
    return _core.canonical_policy(text)


def sign(policy_json: str, identity: SigningKey) -> Signature:
    """Sign a policy. Read it first: from its publication on it decides."""
    return Signature(identity.id, identity.sign("policy", policy_json.encode()))


def schema() -> dict[str, Any]:
    """The JSON Schema of a policy."""
    loaded: dict[str, Any] = json.loads(resources.files(__name__).joinpath("policy.schema.json").read_text(encoding="utf-8"))
    return loaded


def _document(text: str, suffix: str) -> Any:
    if suffix not in (".toml", ".yaml", ".yml", ".json"):
        raise InvalidArgument(f"[policy] Expected a .toml, .yaml or .json file, received {suffix or 'another one'}.")
    try:
        if suffix == ".toml":
            return _toml(text)
        return _yaml(text) if suffix != ".json" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"[policy] Expected a policy, received a text that cannot be read: {error}.") from error


def _toml(text: str) -> Any:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        try:
            import tomli as tomllib  # type: ignore[no-redef, import-not-found, unused-ignore]
        except ModuleNotFoundError as error:
            raise InvalidArgument("[policy] Expected Python 3.11 or the package tomli, received neither. Use JSON.") from error
    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        raise InvalidArgument("[policy] Expected the package PyYAML for YAML, received none. Use TOML.") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
