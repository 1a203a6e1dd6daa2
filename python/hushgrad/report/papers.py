"""Who approved what: the entries of a ledger that spend nothing, and what of them a report shows.

Of every kind only named fields are shown. A kind that this version does not know is counted, and shown by the fields that
mean the same in every kind.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hushgrad.ledger import Record
from hushgrad.report import words
from hushgrad.report.text import free_text, visible

Json = dict[str, Any]

NAMES = (
    "action", "actor", "algorithm", "approver", "approvers", "artifact", "by", "checkpoint", "dataset", "decision", "digest", "epsilon",
    "expires", "first", "from", "generation", "glass", "grant", "grantee", "hash", "host", "id", "issuer", "key", "kind", "manifest", "name",
    "permission", "policy_digest", "recipient", "review_due", "role", "rule", "run", "second", "sequence", "signer", "starts",
    "state", "status", "subject", "suite", "target", "team", "to", "until", "verdict", "version",
)  # fmt: skip
"""Fields that hold names, digests and states."""

FREE_TEXT = ("justification", "purpose", "reason")
"""Fields that hold what a person typed."""

LONGEST_LIST = 200
LONGEST_TEXT = 500


def read(records: Sequence[Record]) -> Json:
    """Counts of every kind, the papers themselves (the newest of each kind), and those that need to be looked at."""
    papers = [_paper(record) for record in records]
    kinds = Counter(record.kind for record in records)
    shown = [paper for kind in kinds for paper in [p for p in papers if p["kind"] == kind][-LONGEST_LIST:]]
    return {
        "counts": dict(sorted(kinds.items())),
        "decisions": dict(sorted(Counter(decision for p in papers if (decision := p["fields"].get("decision"))).items())),
        "entries": sorted(shown, key=lambda paper: int(paper["sequence"])),
        "break_glass": [paper for paper in papers if paper["break_glass"]],
        "refused": [paper for paper in papers if paper["refused"]][-LONGEST_LIST:],
    }


def uses_of_break_glass(records: Json) -> list[Json]:
    """The entries that say how often emergency access was opened: where it has a kind of its own, not the decisions around it."""
    opened = [paper for paper in records["break_glass"] if paper["kind"] == "break_glass"]
    return opened or list(records["break_glass"])


def _paper(record: Record) -> Json:
    fields = {key: _value(value) for key, value in sorted(record.fields.items()) if key in NAMES + FREE_TEXT}
    what = _squeezed(record.kind + " " + " ".join(str(record.fields.get(key, "")) for key in ("action", "kind", "decision", "role", "rule")))
    decision = str(record.fields.get("decision", "")).lower()
    return {
        "kind": visible(record.kind),
        "sequence": record.sequence,
        "time": words.time(record.time),
        "fields": fields,
        "break_glass": "breakglass" in what or "emergency" in what,
        "refused": decision.startswith(("den", "refus", "reject", "block")),
    }


def _value(value: object) -> str:
    text = str(value).strip("\n").replace("\n", ", ")  # several names stand on lines of their own
    shown = free_text(text)
    return shown if len(shown) <= LONGEST_TEXT else shown[:LONGEST_TEXT] + "…"


def _squeezed(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())
