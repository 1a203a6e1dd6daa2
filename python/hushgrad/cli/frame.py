"""The frame around the commands: they are imported when they are called, and however they end, it ends in one line and a code."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from hushgrad.cli.exit_code import ExitCode, of_error
from hushgrad.cli.output import print_error, print_warning, use_json
from hushgrad.errors import HushgradError

__all__ = ["CommandTable", "LazyGroup", "run"]

#: Heading -> name -> (module with ``register(app)``, first paragraph of the help).
CommandTable = Mapping[str, Mapping[str, tuple[str, str]]]

# Newer Typer carries click inside, older ones import it; the base of its usage errors is found either way.
_ClickException: type[Any] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and one sentence, and imports the module of one when it is called."""

    def offer(self, table: CommandTable) -> LazyGroup:
        """Take the commands of ``table``, unloaded."""
        self._modules: dict[str, str] = {}
        self._loading = True
        for heading, commands in table.items():
            for name, (module, summary) in commands.items():
                self._modules[name] = module
                self.commands[name] = TyperCommand(name, help=summary, rich_help_panel=heading)
        return self

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported; while help or completions list the names, only its name and sentence."""
        if self._loading and cmd_name in self._modules:
            return load(self._modules[cmd_name], cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help page, without importing a command."""
        self._loading = False
        super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The names that fit, without importing a command."""
        self._loading = False
        return super().shell_complete(ctx, incomplete)

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Reads the arguments; ``--help`` prints here."""
        with _quiet_ends():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        with _quiet_ends():
            return super().invoke(ctx)


@contextmanager
def _quiet_ends() -> Iterator[None]:
    """A closed pipe and Ctrl-C end the command with their code, before click makes something else of them."""
    try:
        yield
    except BrokenPipeError:
        raise typer.Exit(ExitCode.PIPE_CLOSED) from None
    except SystemExit as stopped:  # so Rich ends on a closed pipe
        if not isinstance(stopped.__context__, BrokenPipeError):
            raise
        raise typer.Exit(ExitCode.PIPE_CLOSED) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.STOPPED) from None


def load(module: str, name: str) -> Any:
    """The command ``name`` that ``module.register`` adds."""
    part = typer.Typer()
    importlib.import_module(module).register(part)
    return typer.main.get_group(part).commands[name]


def run(group: LazyGroup, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Errors and warnings are one line, never a traceback."""
    use_json("--json" in arguments)
    _never_fail_to_encode()
    if "_HUSHGRAD_COMPLETE" in os.environ:
        importlib.import_module("typer.completion").completion_init()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print_warning(str(message))
        code = _run(group, arguments)
    if code == ExitCode.STOPPED:
        print_error("Stopped.", kind="Stopped", code=code)
    return _flushed(code)


def _run(group: LazyGroup, arguments: Sequence[str]) -> int:
    try:
        return group.main(list(arguments), standalone_mode=False, prog_name="hushgrad") or ExitCode.OK
    except _ClickException as error:
        return _failed(_usage_message(error), "Usage", ExitCode.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.STOPPED
    except HushgradError as error:
        return _failed(str(error), type(error).__name__, of_error(error))
    except OSError as error:
        return _failed(_os_error(error), "IoError", of_error(error))
    except UnicodeDecodeError as error:
        return _failed(f"[files] Expected text in UTF-8, received something else: {error.reason}. Check which file that is.", "IoError", ExitCode.FAILED)
    except Exception as error:
        if os.environ.get("HUSHGRAD_TRACEBACK"):
            raise
        return _failed(
            f"[hushgrad] Expected no such error, received {type(error).__name__}: {error}. This is a defect of hushgrad: please report it "
            "with what HUSHGRAD_TRACEBACK=1 before the command prints (look through it first: it may show paths and names).",
            "Defect",
            ExitCode.DEFECT,
        )


def _usage_message(error: Any) -> str:
    """What click says, then what there is, then where to read on."""
    message = error.format_message().rstrip(".").replace("Invalid value: Expected", "Expected").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    if context is None:
        return f"{message}."
    if type(error).__name__ == "NoSuchOption" and not error.possibilities:
        options = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
        message += f". There is {', '.join(options)}"
    if isinstance(context.command, TyperGroup) and context.command.name != "hushgrad" and "Did you mean" not in message:
        message += f". There is {', '.join(context.command.commands)}"
    return f"{message}{'' if message.endswith('?') else '.'} See `{context.command_path} --help`."


def _failed(message: str, kind: str, code: ExitCode) -> int:
    print_error(message, kind=kind, code=code)
    return code


def _os_error(error: OSError) -> str:
    place = f" {error.filename}" if error.filename is not None else ""
    return f"[files] Expected access to{place or ' a file'}, received: {error.strerror or error}. Check the path and its permissions."


def _never_fail_to_encode() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Writes out what is left; a reader that went away and a full disk are noticed here at the latest."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        code = ExitCode.PIPE_CLOSED
    except OSError as error:
        code = _failed(_os_error(error), "IoError", ExitCode.FAILED)
    # Python flushes once more when it ends, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
