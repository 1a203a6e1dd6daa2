"""`hushgrad seal`, `open` and `inspect`: files and folders, encrypted under the key of a dataset."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from hushgrad.cli.output import Json, console, print_json, print_line, print_result, print_table

if TYPE_CHECKING:
    from hushgrad.sealed import Progress

KeyringPath = Annotated[Path, typer.Option("--keyring", help="The keyring file.")]
_DEFAULT = Path("hushgrad.keyring")


def register(app: typer.Typer) -> None:
    """Add the three commands to the application."""
    app.command("seal")(seal)
    app.command("open")(open_sealed)
    app.command("inspect")(inspect)


def seal(
    source: Annotated[Path, typer.Argument(help="A file, or a folder with all in it. It stays as it is.")],
    target: Annotated[Path, typer.Argument(help="The sealed file to write.")],
    dataset: Annotated[str, typer.Option(help="Whose key seals it.")],
    keyring: KeyringPath = _DEFAULT,
    identity: Annotated[Optional[Path], typer.Option(help="File of the signing key that vouches for it; without: unsigned.")] = None,
    tenant: Annotated[str, typer.Option(help="Stored in clear: no patient data in it.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that stands at TARGET.")] = False,
    json: Json = False,
) -> None:
    """Seal a file or folder: encrypted, authenticated, under the key of a dataset."""
    from hushgrad import sealed

    with _bar(f"sealing {source}", json) as progress:
        digest = sealed.seal(
            source, target, keyring=keyring, dataset=dataset, identity=identity, tenant=tenant, overwrite=overwrite, progress=progress
        )
    print_result(
        json,
        {"target": str(target), "digest": digest, "signed": identity is not None},
        f"sealed {source} as {target}{'' if identity else ', unsigned'}. The source is still there in clear. digest {digest}",
    )


def open_sealed(
    path: Annotated[Path, typer.Argument(help="What `hushgrad seal` made.")],
    target: Annotated[Path, typer.Argument(help="Where the file or folder goes.")],
    keyring: KeyringPath = _DEFAULT,
    writer: Annotated[Optional[Path], typer.Option(help="PEM file of the public key that must have signed it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file, or the whole folder, at TARGET.")] = False,
    json: Json = False,
) -> None:
    """Open a sealed file or folder. Plaintext appears only complete and authenticated."""
    from hushgrad import sealed

    with _bar(f"opening {path}", json) as progress:
        sealed.open(path, target, keyring=keyring, overwrite=overwrite, writer=_pem(writer), progress=progress)
    print_result(json, {"target": str(target), "verified_writer": writer is not None}, f"opened {path} at {target}")


def inspect(
    path: Annotated[Path, typer.Argument(help="A sealed file.")],
    keyring: Annotated[Optional[Path], typer.Option(help="Authenticate it with this keyring, and list what it holds.")] = None,
    writer: Annotated[Optional[Path], typer.Option(help="PEM file of a public key: check that it signed exactly this file.")] = None,
    json: Json = False,
) -> None:
    """Show what a sealed file says about itself; without a keyring or a writer nothing of it is proven."""
    from hushgrad import sealed

    seen = sealed.inspect(path)
    contents: list[tuple[str, int]] = []
    if writer is not None:
        sealed.verify(path, writer=_pem(writer) or "")
    if keyring is not None:
        contents = _authenticated(path, keyring)
    proof = "signed by its writer" if writer else "authentic to who holds the key" if keyring else "UNAUTHENTICATED"
    document: dict[str, Any] = {
        **seen.core,
        "damaged_slot": seen.damaged_slot,
        "digest": seen.digest,
        "generation": seen.generation,
        "key_id": seen.key_id,
        "proof": proof,
        "signed": seen.signed,
    }
    if keyring is not None:
        document["contents"] = [{"name": name, "bytes": size} for name, size in contents]
    if json:
        print_json(document)
        return
    print_line(f"{path}: {proof}", "" if keyring or writer else "yellow")
    if not seen.signed:
        print_line("unsigned: nobody vouches for who wrote it")
    if seen.damaged_slot:
        print_line("a re-wrap was interrupted; `hushgrad keys rewrap` finishes it", "yellow")
    shown = {k: v for k, v in document.items() if k not in ("contents", "proof", "damaged_slot", "signed") and v not in ("", "{}")}
    print_table(("field", "value"), [(name, str(value)) for name, value in sorted(shown.items())])
    if contents:
        print_table(("bytes", "name"), [(str(size), name) for name, size in contents])


def _authenticated(path: Path, keyring: Path) -> list[tuple[str, int]]:
    from hushgrad import _core
    from hushgrad.sealed import core_of

    reader = _core.SealedReader(str(path), core_of(keyring))
    reader.verify_all()
    return [(entry.name, entry.end - entry.begin) for entry in reader.tensors]


def _pem(path: Path | None) -> str | None:
    from hushgrad.errors import IoError

    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise IoError(f"[inspect] Expected a public key at {path}, received: {error.strerror}. Check the path.") from None


@contextmanager
def _bar(title: str, json: bool) -> Iterator[Progress | None]:
    """A progress bar of bytes on standard error if that is a terminal."""
    if json or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)
