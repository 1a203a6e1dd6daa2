"""The command line: ``hushgrad``. Exit codes: 0 ok, 1 a check or an operation failed, 2 usage, 3 refused by a budget.

Nothing here imports PyTorch. Every command module has ``register(app)``; this file only lists them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import typer

from hushgrad.cli.output import print_error
from hushgrad.errors import BudgetExceeded, HushgradError, InvalidArgument

__all__ = ["app", "main"]

FAILED, USAGE, REFUSED = 1, 2, 3

_COMMANDS = (
    "hushgrad.cli.epsilon",
    "hushgrad.cli.calibrate",
    "hushgrad.cli.ledger",
    "hushgrad.cli.keys",
    "hushgrad.cli.report",
    "hushgrad.cli.doctor",
)

app = typer.Typer(
    name="hushgrad",
    help="Differentially private training: budgets, noise, keys and reports.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

for _name in _COMMANDS:
    if importlib.util.find_spec(_name) is not None:
        importlib.import_module(_name).register(app)

# Typer has carried click inside since 0.25 and imported it before; the base of its usage errors is found either way.
_ClickException: type[Any] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> None:
    """Run the command line and exit. An error is one red line on standard error, never a traceback."""
    sys.exit(_run(sys.argv[1:] or ["--help"]))


def _run(arguments: list[str]) -> int:
    try:
        return app(arguments, standalone_mode=False, prog_name="hushgrad") or 0
    except HushgradError as error:
        print_error(str(error))
        return _exit_code(error)
    except _ClickException as error:
        print_error(error.format_message())
        return USAGE
    except BrokenPipeError:
        return FAILED
    except (typer.Abort, KeyboardInterrupt):
        print_error("Stopped.")
        return FAILED


def _exit_code(error: HushgradError) -> int:
    if isinstance(error, BudgetExceeded):
        return REFUSED
    return USAGE if isinstance(error, InvalidArgument) else FAILED
