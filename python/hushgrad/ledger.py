"""The budget ledger: what was spent on which dataset, by whom, and what is left. Works without PyTorch.

Guarantee: when :meth:`Ledger.charge` returns, the charge is on disk and counts for every later reader; a crash, a killed
process, a failed run or a resumed checkpoint never lowers what is spent. With a budget set, no number of processes and
threads takes the composed epsilon of its dataset past it. What the file promises and what not: ``docs/ledger.md``.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import hushgrad._core as _core
from hushgrad.access import LedgerAccess
from hushgrad.accounting import DpEvent, event_from_json
from hushgrad.errors import HushgradError, InvalidArgument
from hushgrad.signing import SigningKey

__all__ = ["Budget", "BudgetStatus", "Dataset", "Entry", "Head", "Ledger", "Record", "Run", "Step", "Verdict", "make_note_keys"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


@lru_cache(maxsize=1024)
def _event(text: str) -> DpEvent:
    return event_from_json(text)


@dataclass(frozen=True)
class Budget:
    """A hard cap: the upper end of the composed epsilon at ``delta`` may not pass ``epsilon``."""

    epsilon: float
    delta: float
    sequence: int
    """Of the entry that set it."""
    time: datetime
    warning: float = 0.0
    """Epsilon from which people should be told; 0: none."""
    purpose: str = ""
    """Only runs with this purpose count; empty: all."""
    actor: str = ""
    """Only runs of this actor count; empty: all."""
    team: str = ""
    """Only runs of this team count; empty: all."""
    period: str = ""
    """Only what was charged in it counts: "month", "quarter", "year" (calendar, UTC) or the last days, "30d"; empty: always."""


@dataclass(frozen=True)
class BudgetStatus:
    """A budget and what it counts now."""

    budget: Budget
    lower: float
    """Of epsilon at the budget's delta."""
    upper: float
    warns: bool
    """``upper`` has reached the warning level."""
    since: datetime | None
    """Begin of the period; None: all counts."""


@dataclass(frozen=True)
class Dataset:
    """What the data is and what it may be used for. Empty where unknown; every name at most 256 bytes of UTF-8."""

    dataset: str
    unit: str = ""
    """Of privacy: "record", "patient", ..."""
    adjacency: str = ""
    """"add_or_remove_one", "replace_one", "zero_out" or empty."""
    size_class: str = ""
    """A coarse public size: "1e4 to 1e5"."""
    purposes: tuple[str, ...] = ()
    """The only ones a run may have; empty: any."""
    retention: datetime | None = None
    """No run and no step from this time on."""
    parents: tuple[str, ...] = ()
    """Datasets it was made from: what it spends, they spend."""
    transformation: str = ""
    """How it was made from them, with a version."""
    actor: str = ""
    """Who says so."""


@dataclass(frozen=True)
class Record:
    """An entry that spends nothing: a release, an approval, a policy, an audit entry, a repair."""

    kind: str
    fields: dict[str, str]
    sequence: int
    time: datetime


@dataclass(frozen=True)
class Run:
    """One training run. ``status`` is "running", "completed" or "failed"; a killed run stays "running"."""

    run_id: str
    dataset: str
    purpose: str
    actor: str
    plan: dict[str, Any]
    status: str
    steps: int
    """That are spent, with those that are reserved."""
    refusals: int
    sequence: int
    started: datetime
    finished: datetime | None
    reserved: int
    """Of ``steps``: in blocks that nobody has accounted for, because their process still trains, or died. They are spent."""
    team: str = ""


@dataclass(frozen=True)
class Step:
    """One step that is spent. ``count`` is 1: every step is a row of its own; those of one block share ``sequence``."""

    sequence: int
    run_id: str
    dataset: str
    event: DpEvent
    count: int
    time: datetime


@dataclass(frozen=True)
class Entry:
    """One row of the chain as it is stored; ``payload`` is canonical JSON, hashes are 96 hex digits (SHA-384)."""

    sequence: int
    time: datetime
    kind: str
    payload: str
    previous: str
    hash: str


@dataclass(frozen=True)
class Head:
    """The newest entry. Kept elsewhere it reveals a ledger that was put back."""

    sequence: int
    hash: str


@dataclass(frozen=True)
class Verdict:
    """Over the whole chain. True in a condition exactly when ``ok``."""

    ok: bool
    entries: int
    """How many were found good, counted from the first."""
    first_bad: int
    """Sequence of the first bad entry; 0 when ok, or when no single entry is to blame."""
    reason: str

    def __bool__(self) -> bool:
        return self.ok


class Ledger(LedgerAccess):
    """A ledger file, made (readable by its owner only) when there is none and ``create`` holds.

    ``":memory:"`` is a ledger that dies with the object; ``durable`` is then False. Raises ``LedgerError`` for a file
    that is no ledger, is empty or newer than this version, for symbolic and hard links, and for network and user-space
    file systems. ``identity``: the key of whoever acts, for a ledger with access rules (:meth:`identify`).
    Thread-safe. An object that crossed ``fork()`` raises ``LedgerError``: open the ledger again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        identity: SigningKey | str | os.PathLike[str] | None = None,
    ) -> None:
        self._handle = _core.Ledger(os.fspath(path), create)
        if identity is not None:
            self.identify(identity)
        self._settled_at_exit = weakref.finalize(self, _settle, self._handle)

    def __repr__(self) -> str:
        return f"Ledger({self.path!r})"

    @property
    def path(self) -> str:
        """Absolute, or ``":memory:"``."""
        return str(self._handle.path)

    @property
    def durable(self) -> bool:
        """Whether a charge survives a power cut: False for ``":memory:"`` and on tmpfs."""
        return bool(self._handle.durable)

    @property
    def id(self) -> str:
        """Random name of this ledger, 32 hex digits."""
        return str(self._handle.id())

    def set_budget(
        self,
        *,
        dataset: str,
        epsilon: float,
        delta: float,
        purpose: str = "",
        actor: str = "",
        warning: float = 0.0,
        set_by: str = "",
        team: str = "",
        period: str = "",
    ) -> None:
        """Cap the dataset: finite ``epsilon`` >= 0, ``delta`` in (0, 1). The newest budget wins, all stay on record.

        With ``purpose``, ``actor`` or ``team`` only their runs count; with ``period`` ("month", "quarter", "year" of the
        calendar, or the last days as "30d") only what was charged in it. Every cap that
        covers a run holds for it: those of its dataset and those of every dataset this one was made from. ``warning``:
        epsilon from which people should be told. A budget below what is spent already is legal and refuses every further
        charge that spends.
        """
        self._handle.set_budget(dataset, epsilon, delta, purpose, actor, warning, set_by, team, period)

    def budget(self, dataset: str) -> Budget | None:
        """The budget over all runs, None without one."""
        row = self._handle.budget(dataset)
        return None if row is None else _budget(row)

    def budgets(self, dataset: str) -> list[Budget]:
        """All budgets in force on the dataset itself."""
        return [_budget(row) for row in self._handle.budgets(dataset)]

    def budget_status(self, dataset: str) -> list[BudgetStatus]:
        """The same with what each of them counts now."""
        return [
            BudgetStatus(_budget(row), lower, upper, warns, _time(since) if since else None)
            for row, lower, upper, warns, since in self._handle.budget_status(dataset)
        ]

    def describe_dataset(self, info: Dataset) -> None:
        """Say what the data is. The newest description holds; parents can be added, never taken away.

        From then on a run with another purpose than those listed, or after the retention time, raises ``InvalidState``
        and leaves an audit entry. The largest time the ledger ever saw counts. Raises ``InvalidArgument`` for parents
        that are unknown, missing, or made from this dataset.
        """
        self._handle.describe_dataset(*dataset_row(info))

    def dataset(self, dataset: str) -> Dataset | None:
        """The description in force, None without one."""
        row = self._handle.dataset_info(dataset)
        if row is None:
            return None
        name, unit, adjacency, size_class, purposes, retention, parents, transformation, actor = row
        until = _time(retention) if retention else None
        return Dataset(name, unit, adjacency, size_class, tuple(purposes), until, tuple(parents), transformation, actor)

    def record(self, kind: str, **fields: str) -> int:
        """Keep a paper; returns its sequence. Kinds and fields, all of which are required:

        release (actor, artifact, digest, run), approval (action, actor, reason, subject), policy (actor, digest, policy,
        version), audit (action, actor, decision, policy, reason, subject). Papers open nothing; what does has a method of
        its own (:meth:`release`, :meth:`grant`, :meth:`publish_policy`, ...).
        """
        return self._handle.record(kind, fields)

    def records(self, kind: str = "") -> list[Record]:
        """The papers of one kind, or all, in order."""
        return [Record(name, fields, sequence, _time(time)) for name, fields, sequence, time in self._handle.records(kind)]

    def begin_run(
        self,
        *,
        dataset: str,
        purpose: str = "",
        actor: str = "",
        plan: Mapping[str, Any] | None = None,
        team: str = "",
    ) -> str:
        """Record who is about to train and return the run id. Spends nothing. ``plan``: JSON values, never a secret.

        Names are UTF-8 of at most 256 bytes without control characters or outer spaces; ``dataset`` is not empty. With access
        rules actor and team are those of the identified key, and ``Denied`` says what the rules do not allow.
        """
        try:
            text = json.dumps(dict(plan or {}), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"[ledger] Expected a plan of JSON values, received one that is not: {error}. Use text, finite numbers, "
                "lists and dictionaries."
            ) from error
        return str(self._handle.begin_run(dataset, purpose, actor, text, team))

    def charge(self, run: str, event: DpEvent) -> None:
        """Record that ``event`` is about to happen, durably. Call it before noise is added.

        Raises ``BudgetExceeded`` when the dataset's budget does not allow it; only a refusal is then on record.
        Whatever is raised, the event must not be released.
        """
        self._handle.charge(run, event.to_json())

    def charge_step(self, run: str, event: DpEvent) -> None:
        """:meth:`charge` for a training loop: one durable entry reserves several steps, this and the next ones.

        The whole block counts as spent from then on. Its size follows the measured time of commits and steps (the disk
        then costs about half a per cent of the steps), starts at 1, at most doubles, and is bounded by
        :meth:`limit_block` and by half of what still fits the budget. ``finish_run``, ``settle`` and the end of the
        object state how many steps were taken; after a crash nobody does, and the block stays spent.
        """
        self._handle.charge_step(run, event.to_json())

    def settle(self) -> None:
        """State durably how many steps of this object's blocks were taken, and let go of those that never happened."""
        self._handle.settle()

    def limit_block(self, steps: int) -> None:
        """The largest block :meth:`charge_step` reserves, 1 to 1024 (the default)."""
        self._handle.limit_block(steps)

    def finish_run(self, run: str, status: str = "completed") -> None:
        """Record how a run ended: "completed" or "failed". Never changes what was spent."""
        self._handle.finish_run(run, status)

    def spent(self, *, dataset: str, delta: float) -> tuple[float, float]:
        """(lower, upper) of epsilon at ``delta``, all runs on the dataset composed; (0, 0) for an unknown dataset."""
        lower, upper = self._handle.spent(dataset, delta)
        return lower, upper

    def run_spent(self, run: str, delta: float) -> tuple[float, float]:
        """(lower, upper) of epsilon at ``delta`` of one run; of this object's own blocks, the steps that were taken."""
        lower, upper = self._handle.run_spent(run, delta)
        return lower, upper

    def history(self, dataset: str) -> DpEvent:
        """Every charge on the dataset as one composition: each distinct event once, with how often it happened."""
        return event_from_json(self._handle.dataset_history(dataset))

    def run_history(self, run: str) -> DpEvent:
        """Every charge of one run as one composition."""
        return event_from_json(self._handle.run_history(run))

    def datasets(self) -> list[str]:
        """Datasets with a run, a budget or a description, in order of first use."""
        return list(self._handle.datasets())

    def runs(self, dataset: str | None = None) -> list[Run]:
        """All runs, or those of one dataset, in order of begin_run."""
        return [_run(row) for row in self._handle.runs(dataset)]

    def run(self, run: str) -> Run:
        """One run by its id; ``InvalidArgument`` for an unknown one."""
        return _run(self._handle.run(run))

    def steps(self, dataset: str | None = None, run: str | None = None) -> list[Step]:
        """One row a step that is spent, in order: of everything, of one dataset, or of one run."""
        return [
            Step(sequence, run_id, name, _event(event), count, _time(time))
            for sequence, run_id, name, event, count, time in self._handle.steps(dataset, run)
        ]

    def head(self) -> Head:
        """The newest entry."""
        return Head(*self._handle.head())

    def contains(self, head: Head) -> bool:
        """Whether the chain holds this entry; False means that the ledger was put back or forked."""
        return bool(self._handle.contains(head.sequence, head.hash))

    def expect(self, head: Head) -> bool:
        """Say that ``head`` was in this ledger once. Where it is not now, the ledger was put back: every charge then
        raises ``LedgerError`` until two people :meth:`repair` it. What this user has seen of a file is expected by itself.
        """
        return bool(self._handle.expect(head.sequence, head.hash))

    def missing(self) -> list[Head]:
        """The heads that were expected, are not there, and were not repaired."""
        return [Head(sequence, digest) for sequence, digest in self._handle.missing()]

    def repair(self, *, first: str, second: str, reason: str) -> None:
        """Two different people accept that what followed in the lost copy is gone; the ledger takes charges again.

        What was spent in the lost copy is not known any more: lower the budgets. Raises ``InvalidArgument`` for one person,
        ``InvalidState`` when nothing is missing.
        """
        self._handle.repair(first, second, reason)

    def move_to(self, path: str | os.PathLike[str], *, actor: str = "") -> Ledger:
        """Move the ledger, every entry as it is, to a place without one: a file or ``postgresql://...``.

        This one then takes no entry any more; the other one, verified, is returned. After a failure call it again.
        """
        return Ledger._of(self._handle.move_to(os.fspath(path), actor))

    def export(self) -> Iterator[str]:
        """One line of JSON an entry, as stored. The hash of each covers the others, so a line that was changed shows.

        With access rules an officer or auditor may, on record."""
        self._handle.authorise_export()
        for entry in self.entries():
            yield json.dumps(
                {
                    "sequence": entry.sequence,
                    "time": _microseconds(entry.time),
                    "kind": entry.kind,
                    "payload": entry.payload,
                    "previous": entry.previous,
                    "hash": entry.hash,
                },
                ensure_ascii=False,
            )

    @staticmethod
    def import_lines(path: str | os.PathLike[str], lines: Iterable[str]) -> Ledger:
        """A ledger made of :meth:`export` of another one, where there is none yet, or only the beginning of it.

        Every entry is checked before any is written. Raises ``LedgerError`` with the first bad sequence. The other one must
        not be charged any more: use it for restoring, or :meth:`move_to`.
        """
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                texts = [entry[key] for key in ("kind", "payload", "previous", "hash")]
                if not all(isinstance(text, str) for text in texts) or len(entry) != 6:
                    raise ValueError("another field or type")
                rows.append((int(entry["sequence"]), int(entry["time"]), *texts))
            except (ValueError, TypeError, LookupError) as error:
                raise InvalidArgument(f"[ledger] Expected an exported entry in line {number}, received something else.") from error
        return Ledger._of(_core.Ledger.import_entries(os.fspath(path), rows))

    @classmethod
    def _of(cls, handle: _core.Ledger) -> Ledger:
        ledger = cls.__new__(cls)
        ledger._handle = handle
        ledger._settled_at_exit = weakref.finalize(ledger, _settle, handle)
        return ledger

    def witness(self, signer: str) -> str:
        """The head as a signed note (C2SP signed-note, Ed25519), for somebody outside to keep. ``signer``: the secret half
        of :func:`make_note_keys`."""
        head = self.head()
        return _core.sign_note(_core.head_text(self.id, head.sequence, head.hash), signer)

    def expect_note(self, note: str, verifier: str) -> bool:
        """:meth:`expect` the head in a note that ``verifier`` has signed. Raises ``LedgerError`` for a note with a bad or no
        signature of that key, or about another ledger."""
        return self.expect(Head(*_core.head_in(_core.open_note(note, verifier), self.id)))

    def entries(self, first: int = 1, limit: int = 2**63 - 1) -> list[Entry]:
        """Entries as stored, good or bad, from sequence ``first`` on. Works on a broken chain."""
        return [
            Entry(sequence, _time(time), kind.decode(errors="replace"), payload.decode(errors="replace"), previous, digest)
            for sequence, time, kind, payload, previous, digest in self._handle.entries(first, limit)
        ]

    def verify(self) -> Verdict:
        """Read everything again: the file's consistency, its schema, the chain, and that every entry makes sense.

        Works on a broken chain; raises only when the file cannot be read at all.
        """
        return Verdict(*self._handle.verify())


def make_note_keys(name: str) -> tuple[str, str]:
    """(signer, verifier): a new pair of keys for :meth:`Ledger.witness`. The signer is a secret."""
    return _core.make_note_keys(name)


def _microseconds(time: datetime) -> int:
    if time.tzinfo is None:
        raise InvalidArgument("[ledger] Expected a time with a time zone, received one without. Add tzinfo=timezone.utc.")
    return (time - _EPOCH) // timedelta(microseconds=1)


def dataset_row(info: Dataset) -> tuple[str, str, str, str, list[str], int, list[str], str, str]:
    """A description as it crosses into C++."""
    retention = 0 if info.retention is None else _microseconds(info.retention)
    return (
        info.dataset,
        info.unit,
        info.adjacency,
        info.size_class,
        list(info.purposes),
        retention,
        list(info.parents),
        info.transformation,
        info.actor,
    )


def _budget(row: tuple[Any, ...]) -> Budget:
    epsilon, delta, sequence, time, warning, purpose, actor, team, period = row
    return Budget(epsilon, delta, sequence, _time(time), warning, purpose, actor, team, period)


def _settle(handle: _core.Ledger) -> None:
    try:
        handle.settle()
    except HushgradError:
        pass  # what cannot be stated durably, or crossed a fork, stays spent


def _run(row: tuple[Any, ...]) -> Run:
    run_id, dataset, purpose, actor, plan, status, steps, refusals, sequence, started, finished, reserved, team = row
    return Run(
        run_id,
        dataset,
        purpose,
        actor,
        json.loads(plan),
        status,
        steps,
        refusals,
        sequence,
        _time(started),
        None if finished is None else _time(finished),
        reserved,
        team,
    )
