"""Opacus' accountants; every epsilon is an upper bound computed by hushgrad.accounting."""

from hushgrad.compat.opacus.accountants.accountant import IAccountant
from hushgrad.compat.opacus.accountants.gdp import GaussianAccountant
from hushgrad.compat.opacus.accountants.prv import PRVAccountant
from hushgrad.compat.opacus.accountants.rdp import RDPAccountant
from hushgrad.compat.opacus.accountants.registry import create_accountant, register_accountant

__all__ = [
    "GaussianAccountant",
    "IAccountant",
    "PRVAccountant",
    "RDPAccountant",
    "create_accountant",
    "register_accountant",
]
