"""Accountants by name."""

from __future__ import annotations

from hushgrad.compat.opacus.accountants.accountant import IAccountant
from hushgrad.compat.opacus.accountants.gdp import GaussianAccountant
from hushgrad.compat.opacus.accountants.prv import PRVAccountant
from hushgrad.compat.opacus.accountants.rdp import RDPAccountant
from hushgrad.errors import InvalidArgument

__all__ = ["create_accountant", "register_accountant"]

_ACCOUNTANTS: dict[str, type[IAccountant]] = {
    "rdp": RDPAccountant,
    "gdp": GaussianAccountant,
    "prv": PRVAccountant,
}


def register_accountant(mechanism: str, accountant: type[IAccountant], force: bool = False) -> None:
    """Names an accountant for ``create_accountant`` and ``PrivacyEngine``. Raises InvalidArgument for a taken name.

    Its epsilon is its own affair; the ledger is charged and bounded by hushgrad all the same.
    """
    if mechanism in _ACCOUNTANTS and not force:
        raise InvalidArgument(
            f"[accountants] Expected a new name, received {mechanism!r}, which is registered already. Pass force=True to replace it."
        )
    _ACCOUNTANTS[mechanism] = accountant


def create_accountant(mechanism: str) -> IAccountant:
    """A new accountant: "prv", "rdp", "gdp" or a registered name. Raises InvalidArgument for any other."""
    if mechanism not in _ACCOUNTANTS:
        raise InvalidArgument(f"[accountants] Expected one of {sorted(_ACCOUNTANTS)}, received {mechanism!r}.")
    return _ACCOUNTANTS[mechanism]()
