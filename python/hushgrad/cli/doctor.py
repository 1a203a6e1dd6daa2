"""`hushgrad doctor`: what of a model can be trained privately, before it is trained."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hushgrad.cli.output import Json, print_json, print_line, print_table, print_text
from hushgrad.errors import HushgradError, InvalidArgument, IoError

if TYPE_CHECKING:
    from hushgrad.doctor import Diagnosis
    from hushgrad.environment import Check

_SAMPLES = 4


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(help="FILE.py or FILE.py:NAME of a module, a class, or a function that returns a module, or (module, inputs). RUNS the file."),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(help="Run it on random values: the shape of one sample, as 3x32x32, or 128:2000 for integers below 2000. Once an argument."),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Print the code that replaces what can be replaced.")] = False,
    ledger: Annotated[str | None, typer.Option(help="Ledger whose place is checked; default hushgrad.ledger.db.")] = None,
    security: Annotated[bool, typer.Option("--security", help="Check what would let somebody at keys, checkpoints or the ledger.")] = False,
    keyring: Annotated[str | None, typer.Option(help="Keyring that --security looks at; default hushgrad.keyring.")] = None,
    json: Json = False,
) -> int:
    """Check a model before training; without one, check this machine. Exit code 1 if something would be refused."""
    if model is None:
        return _check_machine(ledger, keyring, security, json)
    if security:
        raise InvalidArgument("[doctor] Expected a model or --security, received both. Run them one after the other.")
    path, _, name = model.partition(":")
    models, skipped = _load(Path(path), name, say=not json)
    results = {}
    for found, (module, inputs) in models.items():
        results[found] = _examined(module, inputs if inputs is not None else _random_inputs(input or []), found, Path(path))
    if json:
        print_json({"models": {found: diagnosis.to_json() for found, diagnosis in results.items()}, "skipped": skipped})
    else:
        for found, diagnosis in results.items():
            _print(found, diagnosis, fix)
        for left_out, why in skipped.items():
            print_line(f"{left_out}: not examined, {why}", "yellow")
    return 0 if all(diagnosis.ok for diagnosis in results.values()) else 1


def _examined(module: Any, inputs: Any, name: str, path: Path) -> Diagnosis:
    from hushgrad.doctor import examine

    try:
        return examine(module, inputs)
    except HushgradError:
        raise
    except Exception as error:
        raise InvalidArgument(
            f"[doctor] Expected {name} to run on the inputs, received {type(error).__name__}: {error}{_line_of(error, path)}. Mend it, or give "
            "--input with the shape of one sample, once an argument; --input 128:2000 makes integers below 2000."
        ) from None


def _check_machine(ledger: str | None, keyring: str | None, security: bool, json: bool) -> int:
    from dataclasses import asdict

    checks = _checks(ledger, keyring, security)
    ok = all(check.status != "failed" for check in checks)
    if json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
        return 0 if ok else 1
    for check in checks:
        print_text(f"{_MARKS[check.status]} {check.name}: {_sentence(check.detail, check.instead)}", _STYLES[check.status])
        if check.why and check.status != "ok":
            print_text(f"why: {check.why}.", indent=5)
    worst = [status for status in ("failed", "warning") if any(check.status == status for check in checks)]
    counts = ", ".join(f"{sum(check.status == status for check in checks)} {status}" for status in worst)
    print_line(counts or "Everything is fine.", "" if worst else "green")
    return 0 if ok else 1


_MARKS = {"ok": "ok  ", "warning": "warn", "failed": "FAIL"}
_STYLES = {"ok": "", "warning": "yellow", "failed": "red"}


def _checks(ledger: str | None, keyring: str | None, security: bool) -> list[Check]:
    if security:
        from hushgrad.security import check_security

        return check_security(ledger, keyring)
    from hushgrad.environment import check_environment

    return check_environment(ledger)


def _print(name: str, diagnosis: Diagnosis, fix: bool) -> None:
    refused = diagnosis.refused
    print_line(f"{name}: {len(refused)} refused" if refused else f"{name}: nothing refused", "red" if refused else "green")
    rows = [(f.status, f.module or "(the model)", f.kind, _sentence(f.reason, f.instead)) for f in diagnosis.findings]
    print_table(("", "module", "class", ""), rows)
    replaceable = [finding for finding in refused if finding.replacement]
    if fix and replaceable:
        print_line("Replace, before the optimizer is built:")
        print_line("  model = hushgrad.doctor.fix(model)")
        print_line("or one by one:")
        for finding in replaceable:
            print_line(f"  {_target(finding.module)} = {finding.replacement}")
    elif replaceable:
        print_line("hushgrad.doctor.fix(model) returns a copy in which these are replaced; --fix prints the code.")
    if not diagnosis.ran and not refused:
        print_line("It was not run: give --input to see mixing of samples outside of known modules.")


def _target(module: str) -> str:
    parts = ["model", *(part for part in module.split(".") if part)]
    return "".join(part if i == 0 else f"[{part}]" if part.isdigit() else f".{part}" for i, part in enumerate(parts))


def _sentence(detail: str, instead: str) -> str:
    return " ".join(f"{part.rstrip('.')}." for part in (detail, instead) if part)


def _load(path: Path, name: str, say: bool) -> tuple[dict[str, tuple[Any, Any]], dict[str, str]]:
    """Name -> (module, inputs or None), and name -> why it was left out; by running the file."""
    if not path.is_file():
        raise IoError(f"[doctor] Expected a Python file, received {path}. Name one, as model.py or model.py:make_model.")
    if say:
        print_line(f"running {path} to build what is in it")
    source = _run(path)
    if name:
        if name not in source:
            raise InvalidArgument(f"[doctor] Expected {path.name} to define {name}, received no such name.")
        return {name: _made(source[name], name, path)}, {}
    models = {key: value for key, value in source.items() if _is_model(value, source["__name__"])}
    skipped = {key: f"it needs {', '.join(needed)}; name a function that makes it" for key, value in models.items() if (needed := _needed(value))}
    found = {key: _made(value, key, path) for key, value in models.items() if key not in skipped}
    if not found:
        needing = "".join(f" {key} was found and {why.partition(';')[0]}." for key, why in skipped.items())
        raise InvalidArgument(
            f"[doctor] Expected {path.name} to define a module, or a module class without required arguments, received neither.{needing} Name a "
            f"function that returns the model: {path.name}:make_model."
        )
    return found, skipped


def _run(path: Path) -> dict[str, Any]:
    """What the file defines. What it raises is its own fault, and is said with its line."""
    # The folder comes first as it does for `python model.py`, so that the file finds what lies beside it.
    sys.path.insert(0, str(path.absolute().parent))
    spec = importlib.util.spec_from_file_location(f"_hushgrad_doctor_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidArgument(f"[doctor] Expected a Python file, received {path}.")
    source = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = source
    try:
        spec.loader.exec_module(source)
    except (Exception, SystemExit) as error:
        raise InvalidArgument(
            f"[doctor] Expected {path.name} to run, received {type(error).__name__}: {error}{_line_of(error, path)}. Mend it, or put what starts "
            'when it runs under `if __name__ == "__main__":`.'
        ) from None
    return vars(source)


def _line_of(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return ""
    frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path or frame.filename == str(path.absolute())]
    return f" (line {frames[-1]})" if frames else ""


def _is_model(value: Any, defined_in: str) -> bool:
    from torch import nn

    if isinstance(value, nn.Module):
        return True
    return inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == defined_in


def _needed(value: Any) -> list[str]:
    """Arguments without which a class or function cannot be called."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return []
    parameters = inspect.signature(value).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _made(value: Any, name: str, path: Path) -> tuple[Any, Any]:
    from torch import nn

    if not isinstance(value, nn.Module):
        if not callable(value) or _needed(value):
            raise InvalidArgument(
                f"[doctor] Expected {name} to be a module, or callable without arguments, received {type(value).__name__}. Write a function "
                "without arguments that returns the model."
            )
        try:
            value = value()
        except Exception as error:
            raise InvalidArgument(
                f"[doctor] Expected {name}() to build a module, received {type(error).__name__}: {error}{_line_of(error, path)}. Mend it."
            ) from None
    module, inputs = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not isinstance(module, nn.Module):
        raise InvalidArgument(f"[doctor] Expected {name} to give a torch.nn.Module, received {type(module).__name__}.")
    return module, inputs


def _random_inputs(shapes: list[str]) -> Any:
    import torch

    inputs = []
    for text in shapes:
        shape, _, below = text.partition(":")
        try:
            sizes = [int(size) for size in shape.split("x") if size]
            inputs.append(
                torch.randint(int(below), (_SAMPLES, *sizes)) if below else torch.randn(_SAMPLES, *sizes)
            )
        except (ValueError, RuntimeError):
            raise InvalidArgument(
                f"[doctor] Expected --input as 3x32x32 (numbers) or 128:2000 (integers below 2000), received {text!r}."
            ) from None
    return tuple(inputs) if inputs else None
