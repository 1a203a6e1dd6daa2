"""What the exit code of every command means. The only place that decides; ``docs/cli.md`` shows this table."""

from __future__ import annotations

from enum import IntEnum

from hushgrad import errors

__all__ = ["MEANINGS", "ExitCode", "of_error"]


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    DEFECT = 70
    STOPPED = 130
    PIPE_CLOSED = 141


MEANINGS = {
    ExitCode.OK: "Done; every check that was asked for passed.",
    ExitCode.FAILED: "A check failed, or the operation did. What it says was not done was not done.",
    ExitCode.USAGE: "The command was called wrongly: an unknown command or option, or a value outside its domain.",
    ExitCode.REFUSED: "Refused: a budget, a policy or a missing approval does not allow it.",
    ExitCode.DEFECT: "An error that hushgrad did not foresee. Please report it.",
    ExitCode.STOPPED: "Stopped from the keyboard (Ctrl-C).",
    ExitCode.PIPE_CLOSED: "Whoever read the output went away before its end.",
}

# An error of a subclass counts as its class; the first row that fits decides.
_OF_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (errors.BudgetExceeded, ExitCode.REFUSED),
    (errors.Denied, ExitCode.REFUSED),
    (errors.InvalidArgument, ExitCode.USAGE),
    (errors.HushgradError, ExitCode.FAILED),
    (OSError, ExitCode.FAILED),
)


def of_error(error: BaseException) -> ExitCode:
    """The exit code of a command that ended with ``error``."""
    return next((code for kind, code in _OF_ERROR if isinstance(error, kind)), ExitCode.DEFECT)
