#!/usr/bin/env bash
# The attacks on the ledger at length: kills, restarts, cuts, reservations. Prints one line a run.
#   long_runs.sh BUILD_FOLDER [kills [restarts [reservations of each of 16 processes [cuts]]]]
set -euo pipefail
tests="$1/tests/accounting_tests"
kills="${2:-10000}" restarts="${3:-500}" reservations="${4:-10000}" cuts="${5:-200}"
export HUSHGRAD_STATE_DIR="${HUSHGRAD_STATE_DIR:-$(mktemp -d)}"

run() {
  local name="$1"; shift
  local begin="$SECONDS" log
  log="$(mktemp)"
  if env "$@" nice -n 10 "$tests" --gtest_brief=1 --gtest_filter="$name" > "$log" 2>&1; then
    echo "ok      $name ($((SECONDS - begin)) s): $(grep -v -e '^Running' -e '^Note' -e PASSED -e SKIPPED -e '^\[=' "$log" | tr '\n' ' ')"
  else
    echo "FAILED  $name: $(tail -5 "$log" | tr '\n' ' ')"
    failed=1
  fi
  rm -f "$log"
}

failed=0
run 'LedgerAttacks.*' HUSHGRAD_LEDGER_EVERY=1
run 'LedgerDurability.*'
run 'LedgerCrash.NoAcknowledgedChargeIsEverLost' HUSHGRAD_LEDGER_KILLS="$kills"
run 'Blocks.AKillLosesNoStepAndSpendsAtMostOneBlockMore' HUSHGRAD_LEDGER_KILLS="$kills"
run 'Engines/LedgerStore.KilledProcessesLoseNoStep/*' HUSHGRAD_LEDGER_KILLS="$kills"
run 'Engines/Attacks.SixteenProcessesReachACapInTheMiddle/*' HUSHGRAD_LEDGER_RESERVATIONS="$reservations"
run 'Engine/PostgresAttacks.*' HUSHGRAD_LEDGER_CUTS="$cuts"
run 'Engine/PostgresLedger.AServerThatStopsAtOnceLosesNoStep/*' HUSHGRAD_LEDGER_RESTARTS="$restarts"
exit "$failed"
