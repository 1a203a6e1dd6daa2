"""One small taxonomy, the same as dpcore/error.h. Every message says where, what was expected, what came, what to do."""

__all__ = [
    "BudgetExceeded",
    "Denied",
    "HushgradError",
    "InvalidArgument",
    "InvalidState",
    "IoError",
    "KeyError",
    "LedgerError",
    "PrivacyViolation",
    "SealError",
    "Unsupported",
]


class HushgradError(Exception):
    """Base of everything hushgrad raises on purpose."""


class InvalidArgument(HushgradError, ValueError):
    """An argument is outside its domain."""


class Unsupported(HushgradError, ValueError):
    """The model, operator, optimizer or sampler cannot be trained privately as it is."""


class InvalidState(HushgradError, RuntimeError):
    """The call is fine but not now."""


class PrivacyViolation(HushgradError, RuntimeError):
    """A guarantee would have been broken; the operation was stopped."""


class BudgetExceeded(HushgradError, RuntimeError):
    """The next charge would pass a budget; nothing was released."""


class LedgerError(HushgradError, RuntimeError):
    """The ledger cannot be read, written durably, or does not verify."""


class SealError(HushgradError, ValueError):
    """A sealed file is truncated, altered, malformed, or sealed under something else."""


class KeyError(HushgradError, LookupError):  # noqa: A001 - named as in C++; always used qualified
    """A key is missing, wrong, or may not be used."""


class Denied(HushgradError, PermissionError):
    """An operation needs approvals that it does not have."""

    reason: str = ""
    """One word: expired, replayed, altered, self_approval, unknown_approver, duplicate_approver, too_few."""


class IoError(HushgradError, OSError):
    """The operating system refused."""
