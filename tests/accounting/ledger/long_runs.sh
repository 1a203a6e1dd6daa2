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

# A long count in slices of a new ledger each: every open reads the whole chain, so one ledger would take quadratic time.
slices() {
  local name="$1" variable="$2" left="$3" size="$4" count
  shift 4
  while ((left > 0)); do
    count=$((left < size ? left : size))
    run "$name" "$variable=$count" "$@"
    left=$((left - count))
  done
}

failed=0
run 'LedgerAttacks.*' HUSHGRAD_LEDGER_EVERY=1
run 'LedgerDurability.*'
slices 'LedgerCrash.NoAcknowledgedChargeIsEverLost' HUSHGRAD_LEDGER_KILLS "$kills" 200
slices 'Blocks.AKillLosesNoStepAndSpendsAtMostOneBlockMore' HUSHGRAD_LEDGER_KILLS "$kills" 200
slices 'Engines/LedgerStore.KilledProcessesLoseNoStep/Sqlite' HUSHGRAD_LEDGER_KILLS "$kills" 200
slices 'Engines/LedgerStore.KilledProcessesLoseNoStep/Postgres' HUSHGRAD_LEDGER_KILLS "$kills" 500
run 'Engines/Attacks.SixteenProcessesReachACapInTheMiddle/*' HUSHGRAD_LEDGER_RESERVATIONS="$reservations"
run 'Engine/PostgresAttacks.*' HUSHGRAD_LEDGER_CUTS="$cuts"
run 'Engine/CutLine.*' HUSHGRAD_LEDGER_EVERY=1
slices 'Engine/PostgresLedger.AServerThatStopsAtOnceLosesNoStep/*' HUSHGRAD_LEDGER_RESTARTS "$restarts" 25 HUSHGRAD_LEDGER_PROCESSES=16
exit "$failed"
