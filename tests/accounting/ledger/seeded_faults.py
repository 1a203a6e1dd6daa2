"""Breaks the ledger on purpose, one fault at a time, and checks that a test notices: a harness that cannot fail proves nothing.

    python seeded_faults.py BUILD_FOLDER [name ...]

Each fault is one replaced piece of source. It is built into BUILD_FOLDER, the tests named beside it must then fail, and the
source is put back, whatever happens. Use a copy of the tree: what is built meanwhile is broken.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Fault:
    """What is broken, and who has to notice."""

    name: str
    file: str
    before: str
    after: str
    tests: str


FAULTS = (
    Fault("a reservation is given back when the ledger is opened anew", "accounting/ledger/state.cpp",
          "  reservations[entry.sequence] = {payload.event_sequence, payload.count,",
          "  run.tally.add(place.run_use, -payload.count / 2); run.record.steps -= payload.count / 2;\n"
          "  reservations[entry.sequence] = {payload.event_sequence, payload.count,", "Blocks.*"),
    Fault("one step more than the budget", "accounting/ledger/gate.cpp",
          "affordable_steps(history, event, budget.epsilon, budget.delta)}", "affordable_steps(history, event, budget.epsilon, budget.delta) + 1}",
          "BudgetGate*:LedgerConcurrency.*:Engines/Attacks*:Ledger.*"),
    Fault("no sync of the file", "accounting/ledger/database.cpp", "synchronous = EXTRA", "synchronous = OFF", "LedgerDurability.*:LedgerAttacks.APower*"),
    Fault("epsilon is not signed", "accounting/ledger/cover.cpp",
          'if (covers_of(items) != covers) return "it is not what was allowed";', "", "Engines/Access.Changed*"),
    Fault("signatures are not checked", "accounting/ledger/state_access.cpp", "if (!is_signed) nonsense", "if (!is_signed && false) nonsense", "Engines/Access.Changed*"),
    Fault("grants do not expire", "accounting/access/access_state.cpp", "(grant.expires == 0 || time < grant.expires)", "true", "Decision.*:Engines/Access.AGrant*"),
    Fault("a grant counts at its last moment", "accounting/access/access_state.cpp", "time < grant.expires)", "time <= grant.expires)", "Decision.*"),
    Fault("revocations are ignored", "accounting/access/decision.cpp", 'if (grant.revoked) return "revoked";', "", "Decision.*:Engines/Access.ARevoked*"),
    Fault("no proof is needed", "accounting/access/decision.cpp", "if (request.proof.empty()) return", "if (false) return", "Decision.*:Engines/Access.Nothing*"),
    Fault("a raise needs nobody", "accounting/access/decision.cpp", "if (!needs_approval(request.action) || request.approvals > 0)", "if (true)", "Decision.*:Engines/Access.Raising*"),
    Fault("approvals can be used again", "accounting/access/access_state.cpp", "  used_nonces.insert(operation.nonce);\n", "", "Engines/Access.Raising*"),
    Fault("an approval fits any numbers", "accounting/ledger/authority.cpp", "operation.scope == scope &&", "", "Engines/Access.Raising*:Engines/Access.Opening*"),
    Fault("policy: what no rule allows is allowed", "accounting/access/decision.cpp",
          'return denied("policy", "policy:default", "no rule of the policy allows it");', 'return allowed("policy:default");', "PolicyDecision.*"),
    Fault("periods begin anew every day", "accounting/ledger/period.cpp", "return day - days_in(period);", "return day;", "Period.*:Account.*"),
    Fault("a decision may be about another dataset", "accounting/ledger/cover.cpp", "if (need.subject != subject ||", "if (", "Engines/Access.AKey*"),
)  # fmt: skip


def check(fault: Fault, build: Path) -> bool:
    """Whether the tests notice."""
    source = ROOT / fault.file
    whole = source.read_text()
    if fault.before not in whole:
        print(f"STALE    {fault.name}: {fault.file} has changed")
        return False
    try:
        source.write_text(whole.replace(fault.before, fault.after))
        built = subprocess.run(["nice", "-n", "10", "ninja", "-C", build, "hushgrad_accounting", "accounting_tests"], capture_output=True, text=True, check=False)
        if built.returncode != 0:
            print(f"UNBUILT  {fault.name}: {built.stdout[-500:]}")
            return False
        done = subprocess.run(["nice", "-n", "10", build / "tests/accounting_tests", f"--gtest_filter={fault.tests}"], capture_output=True, text=True, check=False)
    finally:
        source.write_text(whole)
    failed = [line.split("]", 1)[1].strip().split(",")[0].split(" (")[0] for line in done.stdout.splitlines() if line.startswith("[  FAILED  ]")]
    noticed = done.returncode != 0
    print(f"{'noticed ' if noticed else 'MISSED  '} {fault.name}: {', '.join(sorted(set(failed))[:3]) or ('crashed' if noticed else 'nothing failed')}", flush=True)
    return noticed


def main(arguments: list[str]) -> int:
    """Exit code 1 when a fault went unnoticed."""
    build = Path(arguments[0]).resolve()
    chosen = [fault for fault in FAULTS if not arguments[1:] or any(word in fault.name for word in arguments[1:])]
    good = [check(fault, build) for fault in chosen]
    subprocess.run(["nice", "-n", "10", "ninja", "-C", build, "hushgrad_accounting"], capture_output=True, check=False)
    print(f"{sum(good)} of {len(good)} faults noticed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
