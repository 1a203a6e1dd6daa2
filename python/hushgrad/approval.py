"""Approvals by people: an operation in words that cannot be bent, and signatures over exactly these words.

Both are small JSON texts that can be mailed: the requester writes an :class:`Operation`, each approver answers with an
:class:`Approval`, and whoever carries the operation out calls :func:`check`. Format: ``docs/formats/approval.md``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import hushgrad._core as _core
from hushgrad.errors import InvalidArgument
from hushgrad.new_file import write_new
from hushgrad.regular_file import read_text
from hushgrad.signing import PublicKey, SigningKey

__all__ = ["Approval", "Operation", "approve", "check", "text_of"]

_PathLike = str | os.PathLike[str]


def _read(path: _PathLike, what: str) -> str:
    # Far more than one can hold.
    return read_text(path, what, most=2**20)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@dataclass(frozen=True)
class Operation:
    """What somebody asks to be allowed, once. Made by :meth:`request`, :meth:`from_text` or :meth:`load`."""

    text: str
    """Canonical JSON (RFC 8785): the request as it is passed around, and what approvers sign."""
    action: str
    scope: Mapping[str, str]
    reason: str
    requester: str
    """The id of the key of whoever asks and will carry it out."""
    nonce: str
    """Random: an operation is carried out once."""
    created: datetime
    expires: datetime

    @classmethod
    def request(
        cls,
        action: str,
        scope: Mapping[str, str],
        *,
        reason: str,
        requester: PublicKey | SigningKey | str,
        lifetime: timedelta = timedelta(days=1),
    ) -> Operation:
        """Ask for ``action`` on ``scope``, to be carried out by ``requester`` within ``lifetime`` (1 s to 30 days).

        Names are 1 to 64 characters of a-z, 0-9, ``-_.``; at most 32 entries of scope. No control characters, no patient
        data. Raises ``hushgrad.errors.InvalidArgument``.
        """
        requester_id = requester if isinstance(requester, str) else requester.id
        seconds = int(lifetime.total_seconds())
        return cls.from_text(_core.make_operation(action, dict(scope), reason, requester_id, seconds))

    @classmethod
    def from_text(cls, text: str) -> Operation:
        """Read what :attr:`text` holds; anything else, another spelling of the same included, is ``InvalidArgument``."""
        canonical = _core.check_operation(text)
        fields = json.loads(canonical)
        return cls(
            canonical,
            fields["action"],
            fields["scope"],
            fields["reason"],
            fields["requester"],
            fields["nonce"],
            _time(fields["created"]),
            _time(fields["expires"]),
        )

    @classmethod
    def load(cls, path: _PathLike) -> Operation:
        """Read a request file. ``IoError`` or ``InvalidArgument``."""
        return cls.from_text(_read(path, "request"))

    def save(self, path: _PathLike) -> None:
        """Write a request file, where nothing stands yet. ``IoError``."""
        write_new(path, self.text + "\n", "request")

    def check_scope(self, action: str, scope: Mapping[str, str], requester: PublicKey | SigningKey | str) -> None:
        """Raise ``Denied`` (altered) unless this asks for exactly ``action`` on ``scope`` by ``requester``."""
        requester_id = requester if isinstance(requester, str) else requester.id
        _core.check_scope(self.text, action, dict(scope), requester_id)


@dataclass(frozen=True)
class Approval:
    """A signature of one approver over one operation."""

    text: str
    """JSON, to be passed around."""
    approver: str
    """The id of the key that signed."""
    operation: str
    """SHA-384 of the operation's text."""

    @classmethod
    def from_text(cls, text: str) -> Approval:
        """Read what :attr:`text` holds. ``InvalidArgument`` when malformed."""
        canonical = _core.check_approval(text)
        fields = json.loads(canonical)
        return cls(canonical, fields["approver"], fields["operation"])

    @classmethod
    def load(cls, path: _PathLike) -> Approval:
        """Read an approval file. ``IoError`` or ``InvalidArgument``."""
        return cls.from_text(_read(path, "approval"))

    def save(self, path: _PathLike) -> None:
        """Write an approval file, where nothing stands yet. ``IoError``."""
        write_new(path, self.text + "\n", "approval")


def text_of(paper: Operation | Approval | _PathLike) -> str:
    """The text of a request or an approval, or of a file that holds either. ``IoError`` or ``InvalidArgument``."""
    if isinstance(paper, (Operation, Approval)):
        return paper.text
    if isinstance(paper, (str, os.PathLike)):
        return _read(paper, "approval")
    raise InvalidArgument(
        f"[approval] Expected an Operation, an Approval or the path of one, received {type(paper).__name__}. See docs/access.md."
    )


def approve(operation: Operation, approver: SigningKey) -> Approval:
    """Sign ``operation``. Read its action, scope, reason and expiry first: this is what your signature stands for."""
    return Approval.from_text(_core.approve(operation.text, approver._core))


def check(
    operation: Operation,
    approvals: Sequence[Approval],
    *,
    approvers: Sequence[PublicKey],
    quorum: int,
    used_nonces: Collection[str] = (),
    now: datetime | None = None,
) -> list[str]:
    """Return the sorted ids of the approvers if ``approvals`` allow ``operation``.

    Args:
        approvers: the keys that may approve at this moment; whoever left is not among them.
        quorum: how many of them must, at least 1.
        used_nonces: the nonces of operations that were carried out.
        now: the largest time ever seen, with a time zone; the clock of this machine by default.

    Raises:
        hushgrad.errors.Denied: with ``reason`` expired, replayed, altered, self_approval, unknown_approver,
            duplicate_approver or too_few. One bad approval denies the whole.
        hushgrad.errors.InvalidArgument: a quorum below 1.
    """
    moment = datetime.now(timezone.utc) if now is None else now
    return _core.check_approvals(
        operation.text,
        [approval.text for approval in approvals],
        [key._core for key in approvers],
        quorum,
        int(moment.timestamp()),
        set(used_nonces),
    )
