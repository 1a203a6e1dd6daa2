"""`hushgrad demo`: everything once, in a minute, on data of a clinic that does not exist."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hushgrad.cli.output import Json, as_json, print_json, print_line, print_text, progress, rounded_up
from hushgrad.errors import BudgetExceeded, InvalidArgument, SealError

if TYPE_CHECKING:
    from hushgrad.ledger import Ledger

DATASET = "demo-clinic"
RECORDS, BATCH, EPOCHS = 4000, 200, 8
BUDGET, TARGET, DELTA = 3.0, 2.0, 1e-5
MAX_GRAD_NORM = 0.5
TOO_MANY = 10**5


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo")(demo)


@dataclass(frozen=True)
class Place:
    """The folder of the demo."""

    folder: Path

    @property
    def ledger(self) -> Path:
        """The budget ledger."""
        return self.folder / "demo.ledger.db"

    @property
    def keyring(self) -> Path:
        """The key of the checkpoint; in earnest not beside it."""
        return self.folder / "demo.keyring"

    @property
    def checkpoint(self) -> Path:
        """The private model, sealed."""
        return self.folder / "model.sealed"

    @property
    def report(self) -> Path:
        """The budget report as a page."""
        return self.folder / "report.html"


def demo(
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for what the demo writes.")] = Path("hushgrad-demo"),
    governance: Annotated[bool, typer.Option("--governance", help="Without training: charge the ledger as a training would. So it is without PyTorch.")] = False,
    json: Json = False,
) -> None:
    """Show everything once, in a minute: a budget, a private training, a refusal, a sealed checkpoint, a report.

    The patients are made up. All files are in the folder; outside of it only the head of the ledger is remembered, as of every ledger.
    """
    place = Place(_new_folder(folder))
    say = _Teller(json)
    trains = not governance and _can_train()
    say.step("A budget", f"The owner of {DATASET!r} ({RECORDS} patients that do not exist) allows epsilon {BUDGET:g} at delta {DELTA:g}.")
    ledger = _ledger_with_budget(place)
    if trains:
        say.step("A private training", f"A model learns who comes back within a month, for epsilon {TARGET:g}. The loop is ordinary PyTorch.")
        first, second, accuracy, reopened, altered = _train(place, say)
        say.fact("accuracy", accuracy, f"{accuracy:.0%} of 1000 other made-up patients are predicted right (half by tossing a coin).")
    else:
        say.step("A training", f"{'PyTorch is not here, so' if not governance else 'As asked for,'} no model learns: the ledger is charged as a training would do it.")
        first, second = _charge(ledger, say)
    spent = ledger.spent(dataset=DATASET, delta=DELTA)[1]
    say.fact("steps", first, f"{first} steps were taken, each charged to the ledger before its noise existed.")
    say.step("The budget holds", f"A second training wants as much again. After {second} steps the ledger says no, and the step that was refused released nothing.")
    say.fact("steps_before_refusal", second, "")
    say.fact("epsilon_spent", as_json(spent), f"Spent in all: epsilon {rounded_up(spent)} of {BUDGET:g}. Deleting the model or the checkpoint gives nothing back.")
    if trains:
        say.step("A sealed checkpoint", f"{place.checkpoint.name} ({place.checkpoint.stat().st_size} bytes) is encrypted under the data set's key.")
        say.fact("reopened_equal", reopened, "Opened again, it held the weights of the model, bit for bit.")
        say.fact("altered_refused", altered, "A copy with one changed bit did not open. Nor does any file without the keyring.")
    say.step("A report", "For the privacy officer: what was spent, what is left, what it means. No script, made to be printed.")
    _write_report(ledger, place)
    say.end(place)


def _new_folder(folder: Path) -> Path:
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise InvalidArgument(f"[demo] Expected a new folder, received {folder}, which exists. Remove it, or pass --folder with another name.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _can_train() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "hushgrad._torch"))


def _ledger_with_budget(place: Place) -> Ledger:
    from hushgrad.ledger import Ledger

    ledger = Ledger(place.ledger)
    ledger.set_budget(dataset=DATASET, epsilon=BUDGET, delta=DELTA, warning=2.5)
    return ledger


def _charge(ledger: Ledger, say: _Teller) -> tuple[int, int]:
    """Steps of a first run that completes, and of a second one that meets the budget."""
    from hushgrad import accounting

    rate, steps = BATCH / RECORDS, EPOCHS * RECORDS // BATCH
    noise = accounting.calibrate_noise(target_epsilon=TARGET, target_delta=DELTA, sampling_rate=rate, steps=steps)
    event = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(noise))
    run = ledger.begin_run(dataset=DATASET, purpose="demo: who comes back", actor="demo")
    for _ in say.bar(range(steps), "charging", steps):
        ledger.charge(run, event)
    ledger.finish_run(run)
    run = ledger.begin_run(dataset=DATASET, purpose="demo: once more", actor="demo")
    taken = _until_refused(lambda: ledger.charge(run, event))
    ledger.finish_run(run, status="failed")
    return steps, taken


def _until_refused(step: Any) -> int:
    for taken in range(TOO_MANY):
        try:
            step()
        except BudgetExceeded:
            return taken
    raise AssertionError("the demo's budget did not hold")


def _train(place: Place, say: _Teller) -> tuple[int, int, float, bool, bool]:
    """Steps of both runs, the accuracy of the first model, and whether its checkpoint opens as it should and not as it should not."""
    from hushgrad.cli.demo_training import accuracy_of, opens_altered, opens_equal, train_over_budget, train_privately

    engine, model, optimizer = train_privately(place, say.bar)
    engine.save_checkpoint(place.checkpoint, module=model, optimizer=optimizer)
    steps, accuracy = engine.steps, accuracy_of(model)
    reopened, refused = opens_equal(place, engine, model), not opens_altered(place, engine)
    if not (reopened and refused):
        raise SealError(f"[demo] Expected a checkpoint that opens unaltered only, received {place.checkpoint}, which does not. Report this.")
    return steps, train_over_budget(place, engine), accuracy, reopened, refused


def _write_report(ledger: Ledger, place: Place) -> None:
    from hushgrad.report import build, render

    document = build(ledger, dataset=DATASET)
    place.report.write_bytes(render(document, format="html"))
    place.report.with_suffix(".json").write_bytes(render(document, format="json"))


class _Teller:
    """Tells the story as lines, or keeps the facts for one JSON document."""

    def __init__(self, json: bool) -> None:
        self._json = json
        self._facts: dict[str, Any] = {"dataset": DATASET, "budget": {"delta": DELTA, "epsilon": BUDGET}}
        self._steps = 0

    def step(self, title: str, text: str) -> None:
        """A heading and what happens."""
        self._steps += 1
        if not self._json:
            print_line("")
            print_line(f"{self._steps}. {title}", style="bold")
            print_text(text, indent=3)

    def fact(self, name: str, value: Any, text: str) -> None:
        """Something that came out."""
        self._facts[name] = value
        if text and not self._json:
            print_text(text, indent=3)

    def bar(self, items: Any, title: str, total: int) -> Iterator[Any]:
        """Progress, in a terminal."""
        return progress(items, f"   {title}", total)

    def end(self, place: Place) -> None:
        """Where things are, and how to look at them."""
        files = {path.name: str(path) for path in sorted(place.folder.iterdir())}
        if self._json:
            print_json({**self._facts, "files": files})
            return
        ledger = f"--ledger {shlex.quote(str(place.ledger))}"
        print_line("")
        print_line("Look further", style="bold")
        for what, command in (
            ("What is spent and left", f"hushgrad ledger status {ledger}"),
            ("What happened, in order", f"hushgrad ledger history {ledger}"),
            ("That the record is whole", f"hushgrad ledger verify {ledger}"),
            ("The report again; open it in a browser", f"hushgrad report {ledger} --output {shlex.quote(str(place.report))}"),
            ("A training of your own", "hushgrad plan --dataset-size 4000 --target-epsilon 2"),
            ("Remove all of the demo", f"rm -r {shlex.quote(str(place.folder))}"),
        ):
            print_line(f"   {what}:")
            print_line(f"      {command}", style="cyan")
