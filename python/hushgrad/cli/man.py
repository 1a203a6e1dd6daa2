"""`hushgrad man`: the manual page, made from the commands themselves, so that it cannot fall behind them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import typer

from hushgrad.cli.exit_code import MEANINGS
from hushgrad.cli.output import Json, print_json

__all__ = ["manual", "register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("man")(man)


def man(context: typer.Context, json: Json = False) -> None:
    """Print the manual page.

    In a terminal it is shown by man. In a pipe it is the source, to be kept: `hushgrad man > ~/.local/share/man/man1/hushgrad.1`.
    """
    page = manual(context.find_root().command, context)
    if json:
        print_json({"format": "man", "page": page})
    elif sys.stdout.isatty() and shutil.which("man"):
        subprocess.run(["man", "-l", "-"], input=page, text=True, check=False)
    else:
        sys.stdout.write(page)


def manual(group: Any, context: typer.Context) -> str:
    """The page in man(7) source. ``group`` holds the commands."""
    from hushgrad import __version__

    lines = [
        f'.TH HUSHGRAD 1 "" "hushgrad {__version__}" "User Commands"',
        ".SH NAME",
        "hushgrad \\- differentially private training: budgets, noise, keys and reports",
        ".SH SYNOPSIS",
        ".B hushgrad",
        "COMMAND [OPTIONS] [ARGUMENTS]",
        ".SH DESCRIPTION",
        *_paragraphs(group.help or ""),
        ".SH COMMANDS",
    ]
    for name in group.list_commands(context):
        lines += _command(f"hushgrad {name}", group.get_command(context, name), context)
    lines += [".SH EXIT STATUS", *(line for code, text in MEANINGS.items() for line in (".TP", f"{code:d}", _escaped(text)))]
    lines += [".SH ENVIRONMENT", *(line for name, text in _ENVIRONMENT for line in (".TP", f".B {name}", _escaped(text)))]
    return "\n".join(lines) + "\n"


_ENVIRONMENT = (
    ("NO_COLOR", "Set to anything: no colour, also in a terminal."),
    ("HUSHGRAD_TRACEBACK", "Set to anything: an error that hushgrad did not foresee shows where it happened."),
    ("HUSHGRAD_STATE_DIR", "Where this user remembers the heads of ledgers, to notice one that was put back."),
)


def _command(title: str, command: Any, context: typer.Context) -> Iterator[str]:
    yield f".SS {_escaped(_usage(title, command))}"
    yield from _paragraphs(command.help or "")
    for parameter in command.params:
        if not getattr(parameter, "hidden", False) and parameter.name != "help":
            yield from (".TP", f".B {_escaped(_spelling(parameter))}", *_paragraphs(_help(parameter), ".br"))
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _command(f"{title} {name}", command.get_command(context, name), context)


def _usage(title: str, command: Any) -> str:
    if hasattr(command, "list_commands"):
        return f"{title} COMMAND"
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    return " ".join([title, "[OPTIONS]", *((a.name if a.required else f"[{a.name}]").upper() for a in arguments)])


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} VALUE"


def _help(parameter: Any) -> str:
    text = parameter.help or ""
    default = parameter.default
    shown = default is not None and default is not False and default not in ("", ()) and not callable(default) and "efault" not in text
    text += " Required." if parameter.required else f" Default: {getattr(default, 'value', default)}." if shown else ""
    return text.strip() or "\\&"


def _paragraphs(text: str, between: str = ".PP") -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield between
        yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return f"\\&{text}" if text.startswith((".", "'")) else text
