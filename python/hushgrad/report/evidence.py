"""Questions to a report's own content, each a small function registered by name, and what they found.

A row of `controls/*.json` names the questions that bear on a control. An answer rests on nothing but the content, so
whoever holds the document can ask again. "present" means that evidence is there, and never that a rule is met.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from hushgrad.report.papers import uses_of_break_glass

Json = dict[str, Any]
Verdict = Literal["present", "partial", "none", "not_applicable"]


@dataclass(frozen=True)
class Evidence:
    """What a question found, in words."""

    verdict: Verdict
    text: str


Query = Callable[[Json], Evidence]
QUERIES: dict[str, Query] = {}


def query(function: Query) -> Query:
    """Registers a question under the name of its function."""
    QUERIES[function.__name__] = function
    return function


def ask(name: str, content: Json) -> Evidence:
    """Answers one question. A ledger that does not verify is evidence of nothing but that."""
    if not content["ledger"]["chain"]["ok"] and name not in _WITHOUT_A_CHAIN:
        return Evidence("none", "The ledger does not verify, so nothing in it is evidence.")
    return QUERIES[name](content)


def combined(verdicts: list[Verdict]) -> Verdict:
    """Of several questions: present where all that apply are, none where none is, otherwise partial."""
    applying = [verdict for verdict in verdicts if verdict != "not_applicable"]
    if not applying:
        return "not_applicable"
    if all(verdict == "present" for verdict in applying):
        return "present"
    return "none" if all(verdict == "none" for verdict in applying) else "partial"


def _runs(content: Json) -> list[Json]:
    return [run for section in content["datasets"] for run in section["runs"]]


def _papers(content: Json, *kinds: str) -> list[Json]:
    return [paper for paper in content["records"]["entries"] if paper["kind"] in kinds]


def _like(content: Json, *words: str) -> Iterator[Json]:
    for paper in content["records"]["entries"]:
        text = " ".join([paper["kind"], paper["fields"].get("action", ""), paper["fields"].get("kind", "")]).lower()
        if any(word in text for word in words):
            yield paper


def _count(number: int, one: str, many: str | None = None) -> str:
    head, *rest = one.split(" ")
    return f"{number:,} {one if number == 1 else many or ' '.join([head + 's', *rest])}"


def _share(good: int, total: int, noun: str, text: str, *, empty: str) -> Evidence:
    if total == 0:
        return Evidence("not_applicable", empty)
    verdict: Verdict = "present" if good == total else "none" if good == 0 else "partial"
    return Evidence(verdict, f"{good:,} of {_count(total, noun)}: {text}")


def _any(found: object, text: str, missing: str, *, verdict: Verdict = "none") -> Evidence:
    return Evidence("present", text) if found else Evidence(verdict, missing)


NO_RUN = "No run is recorded."
NO_DATASET = "No dataset is recorded."


# --- the ledger ---


@query
def chain_verified(content: Json) -> Evidence:
    chain = content["ledger"]["chain"]
    if chain["ok"]:
        return Evidence("present", f"All {chain['entries_verified']:,} entries hash and chain without a gap (SHA-384).")
    return Evidence("none", f"The chain does not verify: {chain['reason']}.")


@query
def ledger_durable(content: Json) -> Evidence:
    return _any(content["ledger"]["durable"], "Every charge is on disk before anything is released.",
                "This ledger is not kept on disk.")  # fmt: skip


@query
def head_kept_elsewhere(content: Json) -> Evidence:
    if content["ledger"]["missing_heads"]:
        return Evidence("none", "An entry that was seen before is missing: the ledger was put back.")
    return Evidence("partial", "No entry that this machine saw before is missing. Whether somebody outside keeps the head is"
                               " not recorded here.")  # fmt: skip


@query
def put_back_and_repaired(content: Json) -> Evidence:
    repairs = _papers(content, "repair")
    if content["ledger"]["missing_heads"]:
        return Evidence("none", "The ledger was put back and has not been repaired; it takes no charge.")
    if not repairs:
        return Evidence("not_applicable", "No restore of an older copy is recorded.")
    return Evidence("present", f"{_count(len(repairs), 'repair')} after a restore, each by two people.")


@query
def oldest_record_kept(content: Json) -> Evidence:
    oldest = content["ledger"]["oldest"]
    if oldest is None:
        return Evidence("none", "No entry is kept.")
    return Evidence("partial", f"Entries since {oldest[:10]} are kept and never overwritten. Keeping the file for the time that"
                               " the rule asks for is up to its owner.")  # fmt: skip


@query
def crash_counts_as_spent(content: Json) -> Evidence:
    reserved = sum(run["reserved_steps"] for run in _runs(content))
    tail = f" {_count(reserved, 'step')} of stopped programs are counted so now." if reserved else ""
    return Evidence("present", "Steps are recorded before they are taken; what a stopped program had reserved stays spent." + tail)


@query
def blocks_when_the_log_cannot_be_written(content: Json) -> Evidence:
    return Evidence("present", "A step that cannot be recorded is not released: the charge is durable before noise is added.")


# --- the budget ---


@query
def budgets_set(content: Json) -> Evidence:
    sections = content["datasets"]
    return _share(sum(s["budget"] is not None for s in sections), len(sections), "dataset", "a budget refuses what would pass it.", empty=NO_DATASET)  # fmt: skip


@query
def budgets_kept(content: Json) -> Evidence:
    capped = [s for s in content["datasets"] if s["budget"]]
    kept = sum(s["budget"]["status"] != "passed" for s in capped)
    return _share(kept, len(capped), "budget", "not passed.", empty="No budget is set.")


@query
def refusals_recorded(content: Json) -> Evidence:
    refused = sum(run["refused_charges"] for run in _runs(content)) + len(content["records"]["refused"])
    if refused:
        return Evidence("present", f"{_count(refused, 'refusal')} on record.")
    return Evidence("not_applicable", "Nothing was refused. A refusal would be an entry of the ledger.")


@query
def privacy_loss_bounded(content: Json) -> Evidence:
    sections = [s for s in content["datasets"] if s["steps"]]
    return _share(sum(s["spent"]["upper"] != "infinity" for s in sections), len(sections), "dataset in use", "epsilon is finite, all runs composed, failed ones too.", empty=NO_RUN)  # fmt: skip


@query
def attack_bounds_computed(content: Json) -> Evidence:
    sections = [s for s in content["datasets"] if s["steps"]]
    bounded = sum(s["risk"]["membership_advantage"] < 1 for s in sections)
    return _share(bounded, len(sections), "dataset in use", "bounds on membership inference and reconstruction stay below certainty.", empty=NO_RUN)  # fmt: skip


# --- the runs ---


@query
def actors_named(content: Json) -> Evidence:
    runs = _runs(content)
    return _share(sum(bool(run["actor"]) for run in runs), len(runs), "run", "who trained is named.", empty=NO_RUN)


@query
def purposes_named(content: Json) -> Evidence:
    runs = _runs(content)
    return _share(sum(bool(run["purpose"]) for run in runs), len(runs), "run", "a purpose is stated.", empty=NO_RUN)


@query
def settings_recorded(content: Json) -> Evidence:
    runs = _runs(content)
    return _share(sum(bool(run["plan"]) for run in runs), len(runs), "run", "the settings are recorded in the ledger.", empty=NO_RUN)


@query
def randomness_secure(content: Json) -> Evidence:
    runs = [run for run in _runs(content) if run["steps"]]
    good = sum(run["facts"]["random"] == "secure" for run in runs)
    return _share(good, len(runs), "run", "the recorded generator cannot be seeded (AES-256 CTR_DRBG, SP 800-90A).", empty=NO_RUN)  # fmt: skip


@query
def sensitivity_certified(content: Json) -> Evidence:
    runs = [run for run in _runs(content) if run["steps"]]
    good = sum(run["facts"]["sensitivity"] == "certified" for run in runs)
    return _share(good, len(runs), "run", "the effect of one record is bounded in integers, with a proof (sensitivity: certified).", empty=NO_RUN)  # fmt: skip


@query
def noise_added(content: Json) -> Evidence:
    runs = [run for run in _runs(content) if run["steps"]]
    return _share(sum(run["private"] for run in runs), len(runs), "run", "calibrated noise in every step.", empty=NO_RUN)


# --- data, purposes, retention ---


@query
def datasets_described(content: Json) -> Evidence:
    sections = content["datasets"]
    return _share(sum(s["description"] is not None for s in sections), len(sections), "dataset", "unit of privacy, purposes and lineage are described.", empty=NO_DATASET)  # fmt: skip


@query
def purposes_limited(content: Json) -> Evidence:
    sections = content["datasets"]
    return _share(sum(bool(s["description"] and s["description"]["purposes"]) for s in sections), len(sections), "dataset", "only listed purposes are admitted; another one is refused.", empty=NO_DATASET)  # fmt: skip


@query
def retention_set(content: Json) -> Evidence:
    sections = content["datasets"]
    return _share(sum(bool(s["description"] and s["description"]["retention"]) for s in sections), len(sections), "dataset", "a retention time is set, after which no run starts.", empty=NO_DATASET)  # fmt: skip


# --- who decided ---


@query
def approvals_recorded(content: Json) -> Evidence:
    found = len(list(_like(content, "approv")))
    return _any(found, f"{_count(found, 'approval')} on record, with who and why.", "No approval is recorded.")


@query
def two_people_decide(content: Json) -> Evidence:
    approvers = {name for paper in _like(content, "approv") for name in _approvers(paper["fields"]) if name}
    actors = {run["actor"] for run in _runs(content) if run["actor"]}
    if not approvers:
        return Evidence("none", "No approval is recorded, so nobody but the person who trains decided.")
    if approvers & actors:
        return Evidence("partial", f"{len(approvers & actors)} of {len(approvers)} who approved also trained.")
    return Evidence("present", f"{_count(len(approvers), 'person', 'people')} approved; none of them trained.")


def _approvers(fields: Json) -> list[str]:
    # With access rules the actor of an approval is who asked, and those who signed are named beside.
    named = fields.get("approvers") or fields.get("approver") or fields.get("actor", "")
    return [name.strip() for name in str(named).split(",")]


@query
def identities_proven(content: Json) -> Evidence:
    known = len(_papers(content, "actor"))
    return _any(known, f"Who acts is proven with a key; {_count(known, 'actor')} on record.",
                "Names are what the caller said: no access rules are in force.")  # fmt: skip


@query
def policies_versioned(content: Json) -> Evidence:
    found = len(list(_like(content, "policy")))
    return _any(found, f"{_count(found, 'version')} of policies on record, by digest.", "No policy is recorded.")


@query
def access_granted_by_name(content: Json) -> Evidence:
    found = len(list(_like(content, "grant", "revoke", "role", "actor")))
    return _any(found, f"{_count(found, 'grant or revocation', 'grants or revocations')} on record.", "No grant of access is recorded.")


@query
def decisions_logged(content: Json) -> Evidence:
    decisions = content["records"]["decisions"]
    total = sum(decisions.values())
    listed = ", ".join(f"{count:,} {name}" for name, count in decisions.items())
    return _any(total, f"{_count(total, 'decision')} logged ({listed}).", "No access decision is logged.")


@query
def activity_reviewed(content: Json) -> Evidence:
    found = len(list(_like(content, "review")))
    return _any(found, f"{_count(found, 'review')} on record.",
                "The activity is recorded; that somebody reviewed it is not.", verdict="partial")  # fmt: skip


@query
def break_glass_accounted(content: Json) -> Evidence:
    found = uses_of_break_glass(content["records"])
    if not found:
        return Evidence("not_applicable", "Emergency access was not used.")
    explained = sum(bool(paper["fields"].get("reason") or paper["fields"].get("justification")) for paper in found)
    return _share(explained, len(found), "use of emergency access", "a reason is stated.", empty="")


@query
def releases_registered(content: Json) -> Evidence:
    found = _papers(content, "release")
    return _any(len(found), f"{_count(len(found), 'release')} registered, by digest.",
                "No release is registered: what left, and to whom, is not known here.")  # fmt: skip


# --- keys and sealed files ---


@query
def artefacts_sealed(content: Json) -> Evidence:
    found = [paper for paper in _like(content, "checkpoint", "manifest", "sealed")]
    return _any(len(found), f"{_count(len(found), 'file')} on record as sealed, by digest (AES-256-GCM, FLOE).",
                "No sealed checkpoint is registered in this ledger.")  # fmt: skip


@query
def keys_inventoried(content: Json) -> Evidence:
    found = content["keys"]["inventory"]
    log = content["keys"]["log"]
    return _any(len(found) and log, f"{_count(len(found), 'key')} known, with state and dates; all {log['entries_verified'] if log else 0:,}"
                " signed entries of the key log verify.", "No keyring was given to this report.")  # fmt: skip


@query
def keys_rotated(content: Json) -> Evidence:
    if not content["keys"]["log"]:
        return Evidence("none", "No keyring was given to this report.")
    rotations = content["keys"]["log"]["actions"].get("rotate", 0)
    return _any(rotations, f"{_count(rotations, 'rotation')} on record.",
                "Keys are known, and none was rotated yet.", verdict="partial")  # fmt: skip


@query
def destruction_certified(content: Json) -> Evidence:
    certificates = content["keys"]["certificates"]
    if bad := sum(not certificate["verified"] for certificate in certificates):
        return Evidence("none", f"{bad:,} of {_count(len(certificates), 'certificate')} of destruction: the signature does not fit.")
    if known := sum(certificate["signer_is_the_keyring"] for certificate in certificates):
        keys = sum(len(certificate["keys"]) for certificate in certificates)
        return Evidence("present", f"{_count(known, 'certificate')} of destruction, signed by the keyring, for {_count(keys, 'key')}.")
    if certificates:
        return Evidence("partial", f"{_count(len(certificates), 'certificate')} of destruction; whose key signed is not known here.")
    return Evidence("none", "No certificate of destruction was given to this report.")  # fmt: skip


@query
def report_signed(content: Json) -> Evidence:
    signer = content["signer"]
    return _any(signer is not None, f"This report is signed with key {signer}.", "This report is not signed.")


# --- the software ---


@query
def software_listed(content: Json) -> Evidence:
    sbom = content["software"]["sbom"]
    return Evidence("present", f"{len(sbom['components']):,} components listed; digest {sbom['sha384'][:16]}….")


@query
def tested_by_its_makers(content: Json) -> Evidence:
    return Evidence("partial", f"hushgrad {content['software']['version']} names for each guarantee the test that holds it"
                               " (docs/guarantees.md). That these tests ran here is not recorded.")  # fmt: skip


@query
def not_measured_here(content: Json) -> Evidence:
    return Evidence("none", "Nothing in this ledger speaks about it.")


_WITHOUT_A_CHAIN = ("chain_verified", "ledger_durable", "report_signed", "software_listed", "tested_by_its_makers", "not_measured_here")
