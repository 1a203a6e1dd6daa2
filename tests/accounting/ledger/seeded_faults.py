"""Breaks the ledger and its access rules on purpose, one fault at a time, and checks that a test notices.

    python seeded_faults.py BUILD_FOLDER [--only WORD ...]

A harness that cannot fail proves nothing. Each fault is one replaced piece of source: it is compiled anew, linked with the objects of an
up-to-date build into a library of its own, and the tests named beside it run with that; they must fail. Neither sources nor build are
touched. Prints a table; exit code 1 when a fault went unnoticed, 2 when the tests fail without one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LEDGER, ACCESS = "accounting/ledger/", "accounting/access/"


@dataclass(frozen=True)
class Fault:
    """What is broken, and who has to notice."""

    name: str
    file: str
    before: str
    after: str
    tests: str


FAULTS = (
    # Charges, blocks and budgets.
    Fault("a reservation is given back when the ledger is opened anew", LEDGER + "state.cpp",
          "  reservations[entry.sequence] = {payload.event_sequence, payload.count,",
          "  run.tally.add(place.run_use, -payload.count / 2); run.record.steps -= payload.count / 2;\n"
          "  reservations[entry.sequence] = {payload.event_sequence, payload.count,", "Blocks.*"),
    Fault("one step more than the budget", LEDGER + "gate.cpp",
          "affordable_steps(history, event, budget.epsilon, budget.delta)}", "affordable_steps(history, event, budget.epsilon, budget.delta) + 1}",
          "BudgetGate*:LedgerConcurrency.*:Engines/Attacks*:Ledger.*"),
    Fault("steps are taken out of blocks that were settled", LEDGER + "ledger.cpp", "for (const auto& [key, block] : given_up) holder_->blocks.erase(key);", "", "Blocks.*"),
    Fault("a block that nobody accounted for is called used up", LEDGER + "ledger.cpp", "    holder_->id = random_id();\n", "", "Engine/CutLine*"),
    Fault("a file that was replaced is not noticed within a block", LEDGER + "ledger.cpp",
          "  session_->check();\n  const std::lock_guard lock(holder_->mutex);\n  if (holder_->draw(key)) return;",
          "  const std::lock_guard lock(holder_->mutex);\n  if (holder_->draw(key)) return;", "Blocks.*"),
    Fault("a descendant's charges do not count", LEDGER + "state.cpp", "if (std::find(found.begin(), found.end(), parent) == found.end()) found.push_back(parent);", "static_cast<void>(parent);", "DatasetLedger.*"),
    Fault("the retention time is ignored", LEDGER + "ledger.cpp", "info.retention > 0 && now >= info.retention", "false && now > 0", "DatasetLedger.*"),
    Fault("records and users are added up", LEDGER + "neighbours.cpp", "return one.unit == other.unit && agree(", "return agree(", "*Neighbours*"),
    # Durability.
    Fault("no sync of the file", LEDGER + "database.cpp", "synchronous = EXTRA", "synchronous = OFF", "LedgerDurability.*:LedgerAttacks.APower*"),
    Fault("the folder is not synced", LEDGER + "database.cpp", "synchronous = EXTRA", "synchronous = FULL", "LedgerDurability.APower*"),
    Fault("a handle goes on after a commit of unknown outcome", LEDGER + "session.cpp", 'give_up(message("[ledger] Expected a durable commit',
          'throw LedgerError(message("[ledger] Expected a durable commit', "LedgerDurability.*:Engine/PostgresAttacks.*"),
    Fault("a child of fork() uses the handle", LEDGER + "session.cpp", "return getpid() == owner_;", "return owner_ != 0;", "Ledger.*:Blocks.*"),
    # The chain, and what was put back.
    Fault("hashes are not compared", LEDGER + "state.cpp", 'if (entry_hash(entry) != entry.hash) return "its content does not match its hash";', "", "Tampering.*:LedgerState.*"),
    Fault("links are not compared", LEDGER + "state.cpp", 'if (entry.previous != hash) return "it does not continue the entry before it";', "", "Tampering.*:LedgerState.*"),
    Fault("guards of the storage are not compared", LEDGER + "session.cpp", "if (const std::string fault = store_->schema_fault(); !fault.empty()) give_up_on_chain(fault);", "", "Tampering.*:*AMissingGuard*"),
    Fault("PostgreSQL: any guard will do", LEDGER + "postgres_store.cpp", "if (found == kExpected) return {};", "return {};", "Engine/PostgresLedger.AGuard*"),
    Fault("PostgreSQL: 127.evil.example is this machine", LEDGER + "postgres_store.cpp", " && host.find_first_not_of(\"0123456789.\") == host.npos", "", "Engine/PostgresLedger.NothingLeaves*"),
    Fault("what was seen before is not compared while a handle is open", LEDGER + "session.cpp",
          "  catch_up();\n  compare_with_what_was_seen();\n", "  catch_up();\n", "PutBack.*"),
    Fault("what was seen before is not compared on opening", LEDGER + "session.cpp", "  compare_with_what_was_seen();\n}", "}", "PutBack.*"),
    Fault("what was seen can sink", LEDGER + "high_water.cpp", "if (before && before->sequence > head.sequence && given_up.count(before->hash) == 0) return;", "static_cast<void>(given_up);", "PutBack.*"),
    Fault("one person repairs", LEDGER + "payload.cpp", 'record.fields.at("first") == record.fields.at("second") ||', "", "PutBack.*"),
    Fault("a note's signature is not looked at", LEDGER + "note.cpp", "if (!is_signed(text,", "if (false && !is_signed(text,", "SignedNote.*"),
    Fault("invisible characters in names", LEDGER + "names.cpp", "if (point == 0x00ad || point == 0x034f", "if (false && point == 0x034f", "Names.*"),
    # Clocks.
    Fault("a clock that is set back turns the ledger back", LEDGER + "session.cpp", "time_ = std::max(time_, microseconds_now());", "time_ = microseconds_now();", "Clocks.*"),
    Fault("a question ahead of time ends a period", LEDGER + "ledger_access.cpp", "for (Account account : found->accounts)", "for (Account& account : found->accounts)", "Clocks.*"),
    Fault("a charge that fails ahead of time ends a period", LEDGER + "ledger.cpp", "    Account later = account;\n", "    Account& later = account;\n", "Clocks.*"),
    Fault("periods begin anew every day", LEDGER + "period.cpp", "return day - days_in(period);", "return day;", "Period.*:Account.*"),
    # Decisions.
    Fault("what was allowed may be something else", LEDGER + "cover.cpp", 'if (covers_of(items) != covers) return "it is not what was allowed";', "", "Engines/Access.Changed*"),
    Fault("a decision may be about another dataset", LEDGER + "cover.cpp", "if (need.subject != subject ||", "if (", "Engines/Access.AKey*"),
    Fault("signatures are not checked", LEDGER + "state_access.cpp", "if (!is_signed) nonsense", "if (!is_signed && false) nonsense", "Engines/Access.Changed*"),
    Fault("the policy is not decided again", LEDGER + "state_access.cpp", "decide(access, request, entry.time)", "decide_by_roles(access, request, entry.time)", "Engines/Insider.AStolen*"),
    Fault("a decision may name any rule", LEDGER + "state_access.cpp", "if (decision.rule != cover.rule || decision.policy != cover.policy) nonsense", "if (false) nonsense", "Engines/Insider.AStolen*"),
    Fault("denials are not kept", LEDGER + "authority.cpp", "  append_signed(state, batch, decision_record(state, outcome, items));\n",
          "  if (outcome.decision.allowed) append_signed(state, batch, decision_record(state, outcome, items));\n", "Engines/Access.Nothing*:Engines/Insider.Every*"),
    Fault("refused sign-ins are not kept", LEDGER + "authority.cpp", '      if (record.kind != "session") throw;\n', "      throw;\n", "Engines/Insider.Every*"),
    Fault("a refused step leaves no decision", LEDGER + "ledger.cpp", "if (state.access.on()) authority_->deny(state, batch, need, message(", "if (false) authority_->deny(state, batch, need, message(", "Engines/Insider.Every*"),
    Fault("a proof that was not written counts", LEDGER + "ledger.cpp", "    authority_->forget(run_id);  // what was decided is not on record\n", "", "Engines/Insider.What*"),
    # Roles, grants, approvals, policies.
    Fault("grants do not expire", ACCESS + "access_state.cpp", "(grant.expires == 0 || time < grant.expires)", "true", "Decision.*:Engines/Access.AGrant*"),
    Fault("a grant counts at its last moment", ACCESS + "access_state.cpp", "time < grant.expires)", "time <= grant.expires)", "Decision.*"),
    Fault("revocations are ignored", ACCESS + "decision.cpp", 'if (grant.revoked) return "revoked";', "", "Decision.*:Engines/Access.ARevoked*"),
    Fault("no proof is needed", ACCESS + "decision.cpp", "if (request.proof.empty()) return", "if (false) return", "Decision.*:Engines/Access.Nothing*"),
    Fault("a token is enough for everything", ACCESS + "decision.cpp", 'if (request.proof != "key" && !session_suffices(request.action))', "if (false)", "Decision.*"),
    Fault("a raise needs nobody", ACCESS + "decision.cpp", "if (!needs_approval(request.action) || request.approvals > 0)", "if (true)", "Decision.*:Engines/Access.Raising*"),
    Fault("one person holds two duties", ACCESS + "access_state.cpp", "if (other.name != grant.name || !lasts || may_combine(other.role, grant.role)) continue;", "if (grant.name.size() < 9999 || lasts) continue;", "Decision.*:Engines/Access.TheLast*"),
    Fault("the last officer can be revoked", ACCESS + "access_state.cpp", "if (!is_governed) refuse(", "if (false && !is_governed) refuse(", "Engines/Access.TheLast*"),
    Fault("two people share a key", ACCESS + "access_state.cpp", "if (known.key == key && known.name != name) refuse(", "if (false) refuse(", "Engines/Access.TheLast*"),
    Fault("approvals can be used again", ACCESS + "access_state.cpp", "  used_nonces.insert(operation.nonce);\n", "", "Engines/Access.Raising*"),
    Fault("tokens can be used again", ACCESS + "access_state.cpp", 'if (!used_tokens.insert(field(record, "token")).second) throw', "if (false) throw", "Engines/Access.AToken*"),
    Fault("an approval fits any numbers", LEDGER + "authority.cpp", "operation.scope == scope &&", "", "Engines/Access.Raising*:Engines/Access.Opening*"),
    Fault("one person approves with a second key", ACCESS + "access_state.cpp", "if (asker.empty() || owner_of(one.approver, time) != asker) continue;", "if (!asker.empty() || one.approver.empty()) continue;", "Engines/Insider.One*"),
    Fault("an approver of one dataset approves for all", ACCESS + "access_state.cpp", "const bool covers = matches(grant.dataset, dataset) &&", "const bool covers = (dataset.empty() || matches(grant.dataset, dataset)) &&", "Engines/Insider.AnApprover*"),
    Fault("an approver of one purpose approves all", ACCESS + "access_state.cpp", "(purpose.empty() || matches(grant.purpose, purpose))", "(purpose.size() < 9999)", "Engines/Insider.AnApprover*"),
    Fault("a glass for one dataset opens the whole ledger", ACCESS + "access_state.cpp", "&& matches(glass.dataset, dataset);", "&& (dataset.empty() || matches(glass.dataset, dataset));", "Engines/Insider.AGlass*"),
    Fault("a sign-in outlives the key it stood for", ACCESS + "access_state.cpp", "if (session.actor == name) session.expires = 0;", "if (session.actor == name) continue;", "Engines/Insider.ASignIn*"),
    Fault("a provider from before the first officer is believed", ACCESS + "access_state.cpp", "if (!on()) providers.clear();", "", "Engines/Insider.AProvider*"),
    Fault("policy: what no rule allows is allowed", ACCESS + "decision.cpp",
          'return denied("policy", "policy:default", "no rule of the policy allows it");', 'return allowed("policy:default");', "PolicyDecision.*"),
    Fault("policy: the cap of an approved run is everybody's", LEDGER + "cover.cpp", "decided->cap(approvals);", "decided->cap(16 + approvals);", "Engines/Insider.More*"),
    Fault("policy: events may have less noise than it asks for", LEDGER + "ledger.cpp", "if (!withheld && least && is_too_quiet(", "if (false && least && is_too_quiet(", "Engines/Access.APolicyDecides*"),
)  # fmt: skip


class Build:
    """An up-to-date build tree, in which nothing is changed, and a library beside it that has one fault."""

    def __init__(self, folder: Path, beside: Path) -> None:
        self.folder, self.beside = folder, beside
        self.commands = {entry["file"]: entry for entry in json.loads(self._ninja("compdb"))}
        library = next(folder.glob("libhushgrad_accounting.so.*.*")).name
        self.link = self._ninja("commands", library).splitlines()[-1].replace(f"-o {library}", f"-o {beside}/{library.split('.so')[0]}.so.0")
        if beside.as_posix() not in self.link:
            raise SystemExit("[seeded_faults] Expected to find how the library is linked, received another command.")
        beside.mkdir(parents=True, exist_ok=True)

    def make(self, fault: Fault) -> str:
        """The library with the fault. Empty when it builds."""
        source = self.beside / Path(fault.file).name
        source.write_text((ROOT / fault.file).read_text().replace(fault.before, fault.after))
        entry = self.commands[str(ROOT / fault.file)]
        made = f"{self.beside}/fault.o"
        command = entry["command"].replace(f"-o {entry['output']}", f"-o {made}").replace(f"-c {entry['file']}", f"-c {source}")
        # Without optimisation: the tests look at what it does, and there are many to compile.
        for words in (f"{command} -O0 -w -MF {made}.d", self.link.replace(entry["output"], made)):
            done = subprocess.run(["nice", "-n", "5", "sh", "-c", words], cwd=self.folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return done.stderr[-400:]
        return ""

    def failing(self, tests: str) -> list[str]:
        """The names of the tests that fail."""
        command = ["nice", "-n", "5", str(self.folder / "tests/accounting_tests"), "--gtest_fail_fast", f"--gtest_filter={tests}"]
        here = {**os.environ, "LD_LIBRARY_PATH": str(self.beside), "HUSHGRAD_STATE_DIR": str(self.beside / "state")}
        try:
            done = subprocess.run(command, env=here, capture_output=True, text=True, errors="replace", check=False, timeout=600)
        except subprocess.TimeoutExpired:
            return ["a test that does not end"]
        names = [line.split("]", 1)[1].split(",")[0].split(" (")[0].strip() for line in done.stdout.splitlines() if line.startswith("[  FAILED  ]")]
        return sorted({name for name in names if "." in name}) or (["a crash"] if done.returncode != 0 else [])

    def _ninja(self, tool: str, *arguments: str) -> str:
        return subprocess.run(["ninja", "-C", self.folder, "-t", tool, *arguments], capture_output=True, text=True, check=True).stdout


def check(fault: Fault, build: Build) -> bool:
    """Whether the tests notice."""
    found = (ROOT / fault.file).read_text().count(fault.before)
    if found != 1:
        return _row("STALE", fault.name, f"found {found} times in {fault.file}")
    if words := build.make(fault):
        return _row("UNBUILT", fault.name, words)
    failing = build.failing(fault.tests)
    return _row("noticed" if failing else "MISSED", fault.name, ", ".join(failing[:2]) or fault.tests)


def _row(verdict: str, name: str, words: str) -> bool:
    print(f"{verdict:8} {name:70} {words}", flush=True)
    return verdict == "noticed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="an up-to-date build tree with tests")
    parser.add_argument("--only", nargs="*", default=[], help="words in the names of faults")
    arguments = parser.parse_args()
    chosen = [fault for fault in FAULTS if not arguments.only or any(word in fault.name for word in arguments.only)]
    with tempfile.TemporaryDirectory() as folder:
        build = Build(arguments.build.resolve(), Path(folder))
        if not arguments.only and (failing := build.failing(":".join(fault.tests for fault in chosen))):
            print("the tests fail without a fault:", *failing)
            return 2
        noticed = [check(fault, build) for fault in chosen]
    print(f"{sum(noticed)} of {len(noticed)} faults noticed")
    return 0 if all(noticed) else 1


if __name__ == "__main__":
    sys.exit(main())
