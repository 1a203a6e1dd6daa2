"""What stands before the first command: the help page and ``--version``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hushgrad.cli.frame import CommandTable, LazyGroup
from hushgrad.cli.output import print_json, print_line

__all__ = ["root"]

_EPILOG = "Every command has --help and --json. Exit codes and everything else: `hushgrad man`."


def root(table: CommandTable) -> LazyGroup:
    """The group of all commands."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback(cls=LazyGroup, epilog=_EPILOG, invoke_without_command=True)(hushgrad)
    group = typer.main.get_group(app)
    assert isinstance(group, LazyGroup)
    group.name = "hushgrad"
    return group.offer(table)


def hushgrad(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version, and what it was built with and runs with.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --version: print JSON.")] = False,
) -> None:
    """Differentially private training: budgets, noise, keys and reports."""
    if version:
        _show_version(json)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.BadParameter("Expected a command. `hushgrad --help` lists them.")
    if json:
        raise typer.BadParameter("--json stands after the command, as in: hushgrad ledger status --json")


def _show_version(json: bool) -> None:
    facts = _facts()
    if json:
        print_json(facts)
        return
    print_line(f"hushgrad {facts['version']}")
    for name in sorted(facts.keys() - {"version"}):
        print_line(f"  {name} {facts[name]}")


def _facts() -> dict[str, str]:
    """Version and build facts. Without a compiled core only the version: `hushgrad doctor` says what is wrong."""
    import platform

    from hushgrad import __version__

    facts = {"version": __version__, "python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    try:
        from hushgrad import _core
    except ImportError as error:
        return {**facts, "core": f"cannot be loaded: {error}"}
    return {**_core.build_facts(), **facts, "torch": _torch()}


def _torch() -> str:
    from importlib import metadata

    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "not installed"
