"""Who may do what in a ledger: actors, grants, policies, approvals, break-glass, releases. Works without PyTorch.

A ledger without actors takes names at their word. From the first actor on (:meth:`LedgerAccess.found_access`), whatever
spends, raises, exports or repairs is signed with a key of its actor, decided by roles and policy, and put on record,
allowed or denied. The rules: ``docs/access.md``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import hushgrad._core as _core
from hushgrad.approval import Approval, Operation
from hushgrad.errors import Denied, InvalidArgument
from hushgrad.signing import PublicKey, SigningKey

if TYPE_CHECKING:
    from hushgrad.ledger import Dataset

__all__ = ["Access", "Actor", "BrokenGlass", "Decision", "Grant", "LedgerAccess", "digest_of", "role_table"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _time(microseconds: int) -> datetime | None:
    return None if microseconds == 0 else _EPOCH + timedelta(microseconds=microseconds)


def _text(time: datetime | None) -> str:
    if time is None:
        return ""
    if time.tzinfo is None:
        raise InvalidArgument("[access] Expected a time with a time zone, received one without. Add tzinfo=timezone.utc.")
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def role_table() -> dict[str, list[str]]:
    """Each action and the roles that may do it."""
    return dict(_core.access_table())


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-384 of a file as hex, for :meth:`LedgerAccess.release`."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha384").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha384(file.read()).hexdigest()


@dataclass(frozen=True)
class Actor:
    """Somebody with a key."""

    name: str
    team: str
    subject: str
    """"issuer#subject" of tokens that prove the same actor; empty: none do."""
    key: PublicKey
    sequence: int
    revoked: bool


@dataclass(frozen=True)
class Grant:
    """A role on some datasets for some purposes for a while. ``*`` in a pattern stands for any text."""

    sequence: int
    name: str
    role: str
    dataset: str
    purpose: str
    starts: datetime | None
    expires: datetime | None
    active: bool
    granted_by: str
    reason: str


@dataclass(frozen=True)
class BrokenGlass:
    """Somebody opened what a policy or a missing approval held closed."""

    sequence: int
    actor: str
    action: str
    dataset: str
    reason: str
    time: datetime
    expires: datetime
    review_due: datetime
    reviewed: int
    """Sequence of the review; 0: none yet."""


@dataclass(frozen=True)
class Access:
    """All of it, as of the newest entry."""

    actors: list[Actor]
    grants: list[Grant]
    broken_glasses: list[BrokenGlass]
    policy_version: int
    """0: no policy."""


@dataclass(frozen=True)
class Decision:
    """What the rules say to a request. True in a condition exactly when allowed."""

    allowed: bool
    rule: str
    """That decided: "role", "approval", "policy:ID", "policy:default", "break_glass:SEQUENCE", "proof", "actor"."""
    word: str
    """Why not, as ``Denied.reason`` says it; empty when allowed."""
    reason: str
    policy: str
    """Version in force."""

    def __bool__(self) -> bool:
        return self.allowed


class LedgerAccess:
    """The methods of :class:`hushgrad.ledger.Ledger` about who may do what. What is denied raises ``Denied``."""

    _handle: _core.Ledger

    def identify(self, identity: SigningKey | str | os.PathLike[str] | None) -> None:
        """Act with this key from now on: a :class:`hushgrad.signing.SigningKey` or the path of one without a passphrase."""
        key = identity if identity is None or isinstance(identity, SigningKey) else SigningKey.load(identity)
        self._handle.identify(None if key is None else key._core)

    @property
    def actor(self) -> str:
        """Whose key :meth:`identify` was given; empty for nobody's, and without access rules."""
        return self._handle.actor()

    @property
    def has_access_rules(self) -> bool:
        """Whether names have to be proven here."""
        return self._handle.has_access_rules()

    def access(self) -> Access:
        """Actors, grants and break-glasses."""
        now = int((datetime.now(timezone.utc) - _EPOCH).total_seconds() * 1e6)
        rows = self._handle.access(now)
        glasses = [
            BrokenGlass(seq, actor, action, dataset, reason, _EPOCH + timedelta(microseconds=time), _EPOCH + timedelta(microseconds=until), _EPOCH + timedelta(microseconds=due), reviewed)
            for seq, actor, action, dataset, reason, time, until, due, reviewed in rows["glasses"]
        ]  # fmt: skip
        grants = [
            Grant(seq, name, role, dataset, purpose, _time(starts), _time(expires), active, by, reason)
            for seq, name, role, dataset, purpose, starts, expires, active, by, reason in rows["grants"]
        ]
        actors = [
            Actor(name, team, subject, PublicKey._of(key), seq, revoked)
            for name, team, subject, key, seq, revoked in rows["actors"]
        ]
        return Access(actors, grants, glasses, rows["policy"])

    def found_access(self, name: str) -> None:
        """Make the holder of the identified key the first actor and privacy officer. From then on proof is needed."""
        self._handle.found_access(name)

    def add_actor(self, name: str, key: PublicKey, *, team: str = "", subject: str = "") -> int:
        """A new actor, or another key, team or token subject ("issuer#subject") of a known one."""
        return self._handle.add_actor(name, key._core, team, subject)

    def grant(
        self,
        name: str,
        role: str,
        *,
        dataset: str = "*",
        purpose: str = "*",
        starts: datetime | None = None,
        expires: datetime | timedelta | None = None,
        reason: str = "",
    ) -> int:
        """Give an actor a role. ``expires``: a time, or how long from now; None: without end. ``Denied`` (separation) for
        duties that one person may not hold together."""
        until = datetime.now(timezone.utc) + expires if isinstance(expires, timedelta) else expires
        return self._handle.grant(name, role, dataset, purpose, _text(starts), _text(until), reason)

    def revoke(self, target: str, *, reason: str = "") -> int:
        """End a grant ("grant:SEQUENCE") or an actor with all grants ("actor:NAME"). The last officer stays."""
        return self._handle.revoke(target, reason)

    def publish_policy(self, policy_json: str, *, key: str, signature: bytes) -> int:
        """Put a policy in force; see :mod:`hushgrad.policy`."""
        return self._handle.publish_policy(policy_json, key, signature)

    def test_access(
        self,
        action: str,
        *,
        actor: str,
        dataset: str = "",
        purpose: str = "",
        environment: str = "",
        proof: str = "key",
        approvals: int = 0,
        plan: Mapping[str, Any] | None = None,
        policy_json: str | None = None,
    ) -> Decision:
        """Whether this would be allowed now, and which rule says so; writes nothing. ``policy_json``: under that policy."""
        about = dict(plan or {})
        noise = about.get("noise_multiplier")
        return Decision(
            *self._handle.test_access(
                action,
                actor,
                dataset,
                purpose,
                environment,
                proof,
                approvals,
                None if noise is None else float(noise),
                str(about.get("sensitivity", "")),
                str(about.get("accountant", "")),
                about.get("random") == "insecure-seed",
                policy_json,
            )
        )

    def present(self, operation: Operation, approvals: Sequence[Approval]) -> None:
        """Approvals for the next call on exactly what ``operation`` says."""
        self._handle.present(operation.text, [approval.text for approval in approvals])

    def propose_budget(
        self, *, dataset: str, epsilon: float, delta: float, purpose: str = "", actor: str = "", warning: float = 0.0,
        team: str = "", period: str = "",
    ) -> tuple[str, dict[str, str]]:  # fmt: skip
        """(action, scope) of an :class:`Operation` that asks to set this budget."""
        return self._handle.propose_budget(dataset, epsilon, delta, purpose, actor, warning, "", team, period)

    def propose_dataset(self, info: Dataset) -> tuple[str, dict[str, str]]:
        """(action, scope) of an :class:`Operation` that asks to describe a dataset so."""
        from hushgrad.ledger import dataset_row

        return self._handle.propose_dataset(*dataset_row(info))

    def propose_record(self, kind: str, fields: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """(action, scope) of an :class:`Operation` about a release, a repair or a move."""
        return self._handle.propose_record(kind, dict(fields))

    def break_glass(self, action: str, *, dataset: str = "*", reason: str, duration: timedelta = timedelta(minutes=15)) -> int:
        """Open ``action`` for yourself without a missing approval and against the policy, for a while.

        It is on record before it opens; somebody else has to :meth:`review` it. Roles and budgets still hold.
        """
        return self._handle.break_glass(action, dataset, reason, int(duration.total_seconds()))

    def review(self, glass: int, verdict: str, *, reason: str = "") -> int:
        """Say whether somebody else's break-glass was "justified" or "unjustified"."""
        return self._handle.review(glass, verdict, reason)

    def release(
        self, kind: str, *, artifact: str, digest: str = "", run: str = "", dataset: str = "", recipient: str = ""
    ) -> int:
        """Record that a "model", "metrics" or a "checkpoint" is about to leave. Call it before it does.

        A model needs an approval where there are access rules. ``digest``: :func:`digest_of` the file.
        """
        return self._handle.release(kind, artifact, digest, run, dataset, recipient)

    def request(self, action: str, *, reason: str, identity: SigningKey, lifetime: timedelta = timedelta(days=1), **fields: str) -> Operation:
        """An :class:`Operation` to be signed by approvers and then carried out with :meth:`apply`, by ``identity``.

        train: dataset, purpose; for ``PrivacyEngine(approvals=)`` rather than :meth:`apply`, where a policy asks for others.
        raise_budget: the arguments of ``set_budget`` as texts. add_purpose: dataset, and purpose or retention
        ("2030-01-01T00:00:00Z", or "" for none), added to the description on record. export_model: artifact, digest, run,
        dataset, recipient. move: to. repair: nothing; it names the heads that are missing.
        """
        scope = _SCOPES.get(action)
        if scope is None:
            raise InvalidArgument(f"[approve] Expected one of {', '.join(_SCOPES)}, received {action!r}.")
        try:
            needed, words = scope(self, fields)
        except (LookupError, ValueError, TypeError) as error:
            raise InvalidArgument(f"[approve] Expected the fields of {action}, received others: {error}. See hushgrad approve request --help.") from error
        if needed != action:
            raise InvalidArgument(f"[approve] Expected something that is {action}, received {needed}: it needs no approval of this kind.")
        return Operation.request(action, words, reason=reason, requester=identity, lifetime=lifetime)

    def apply(self, operation: Operation, approvals: Sequence[Approval]) -> None:
        """Carry out what was approved, once. Raises ``Denied`` when the approvals do not hold."""
        if operation.action == "train":
            raise InvalidArgument("[approve] Expected something to carry out here, received a request to train. Pass it, with its approvals, to PrivacyEngine(approvals=[...]).")
        if operation.action not in _APPLY:
            raise InvalidArgument(f"[approve] Expected one of {', '.join(_APPLY)}, received {operation.action!r}.")
        if any(record.fields.get("operation") == operation.text for record in self.records("approval")):  # type: ignore[attr-defined]
            error = Denied("[approve] Expected an operation that was not carried out, received one that was. Ask again.")
            error.reason = "replayed"
            raise error
        self.present(operation, approvals)
        _APPLY[operation.action](self, dict(operation.scope), operation.reason)


def _budget_fields(fields: Mapping[str, str]) -> dict[str, Any]:
    numbers = {key: float(fields[key]) for key in ("epsilon", "delta", "warning") if key in fields}
    texts = {key: fields[key] for key in ("dataset", "purpose", "actor", "team", "period") if key in fields}
    if unknown := set(fields) - set(numbers) - set(texts):
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
    return {**numbers, **texts}


def _wider(ledger: Any, fields: Mapping[str, str]) -> Dataset:
    import dataclasses

    info: Dataset = ledger.dataset(fields["dataset"])
    if info is None:
        raise ValueError("the dataset has no description")
    if unknown := set(fields) - {"dataset", "purpose", "retention"}:
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
    purposes = info.purposes + ((fields["purpose"],) if "purpose" in fields else ())
    retention = info.retention if "retention" not in fields else _read_time(fields["retention"])
    return dataclasses.replace(info, purposes=purposes, retention=retention, actor=ledger.actor)


def _read_time(text: str) -> datetime | None:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc) if text else None


def _model_fields(fields: Mapping[str, str]) -> dict[str, str]:
    if unknown := set(fields) - {"artifact", "digest", "run", "dataset", "recipient"}:
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
    return {"artifact": fields["artifact"], **{key: fields.get(key, "") for key in ("digest", "run", "dataset", "recipient")}}


def _model_scope(ledger: Any, fields: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    whole = _model_fields(fields)
    whole["dataset"] = whole["dataset"] or (ledger.run(whole["run"]).dataset if whole["run"] else "")
    action, scope = ledger.propose_record("release", {"actor": ledger.actor, "kind": "model", **whole})
    return action, scope


def _run_fields(fields: Mapping[str, str]) -> dict[str, str]:
    if unknown := set(fields) - {"dataset", "purpose"}:
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
    return {"dataset": fields["dataset"], "purpose": fields.get("purpose", "")}


def _repair_scope(ledger: Any, _: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    scope = {}
    for number, head in enumerate(ledger.missing(), 1):
        end = "" if number == 1 else f".{number}"
        scope.update({f"hash{end}": head.hash, f"sequence{end}": str(head.sequence)})
    return "repair", scope


def _apply_dataset(ledger: Any, scope: dict[str, str], _: str) -> None:
    import dataclasses
    import json

    info = ledger.dataset(scope["dataset"])
    retention = int(scope["retention"])
    until = None if retention == 0 else _EPOCH + timedelta(microseconds=retention)
    ledger.describe_dataset(
        dataclasses.replace(info, purposes=tuple(json.loads(scope["purposes"])), retention=until, actor=ledger.actor)
    )


def _apply_repair(ledger: Any, _: dict[str, str], reason: str) -> None:
    ledger.repair(first=ledger.actor, second="whoever approved it", reason=reason)


_SCOPES: dict[str, Any] = {
    "train": lambda _, fields: ("train", _run_fields(fields)),
    "raise_budget": lambda ledger, fields: ledger.propose_budget(**_budget_fields(fields)),
    "add_purpose": lambda ledger, fields: ledger.propose_dataset(_wider(ledger, fields)),
    "export_model": _model_scope,
    "move": lambda ledger, fields: ledger.propose_record("moved", {"actor": ledger.actor, "to": fields["to"]}),
    "repair": _repair_scope,
}
_APPLY: dict[str, Any] = {
    "raise_budget": lambda ledger, scope, _: ledger.set_budget(**_budget_fields(scope)),
    "add_purpose": _apply_dataset,
    "export_model": lambda ledger, scope, _: ledger.release("model", **_model_fields({k: v for k, v in scope.items() if k != "kind"})),
    "move": lambda ledger, scope, _: ledger.move_to(scope["to"], actor=ledger.actor),
    "repair": _apply_repair,
}
