"""The option that says who acts."""

from __future__ import annotations

from typing import Annotated

import typer

from hushgrad.ledger import Ledger

__all__ = ["Identity", "MaybeIdentity", "acting"]

_HELP = "File with your signing key (hushgrad.signing)."
Identity = Annotated[str, typer.Option("--identity", envvar="HUSHGRAD_IDENTITY", help=_HELP)]
MaybeIdentity = Annotated[str | None, typer.Option("--identity", envvar="HUSHGRAD_IDENTITY", help=f"{_HELP} A ledger with access rules asks for it.")]  # fmt: skip


def acting(ledger: str, identity: str | None) -> Ledger:
    """The ledger, opened by whoever holds the key."""
    return Ledger(ledger, create=False, identity=identity)
