#!/usr/bin/env bash
# Builds the fuzz targets of the ledger with clang and runs each for some seconds: run.sh [seconds [build folder]]
set -euo pipefail
root="$(cd "$(dirname "$0")/../../.." && pwd)"
seconds="${1:-60}" build="${2:-$root/build/fuzz}"
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DHUSHGRAD_FUZZ=ON -DHUSHGRAD_WITH_TORCH=OFF \
  -DOpenMP_CXX_FLAGS=-fopenmp=libgomp -DOpenMP_CXX_LIB_NAMES=gomp -DOpenMP_gomp_LIBRARY="$(gcc -print-file-name=libgomp.so)" > /dev/null
ninja -C "$build" ledger_fuzzers
for target in policy_fuzz entries_fuzz note_fuzz; do
  corpus="$build/corpus/$target"
  mkdir -p "$corpus"
  case "$target" in
    policy_fuzz) echo '{"version":1,"name":"n","separation":{"insecure_combine":[["trainer","approver"]]},"grants":{"max_hours":8},"break_glass":{"roles":["approver"],"max_minutes":5},"rule":[{"id":"a","effect":"allow","actions":["train"],"datasets":["w*"],"days":["mon"],"hours":"08:00-18:00","not_before":"2026-01-01T00:00:00Z","require":{"max_epsilon":1,"delta":1e-6,"proof":["key"]}}]}' > "$corpus/seed" ;;
    entries_fuzz) printf '%s\n' 'budget {"dataset":"d","delta":1e-05,"epsilon":1.0}' 'run {"actor":"","dataset":"d","plan":{},"purpose":"","run":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}' 'event {"event":{"noise_multiplier":1.0,"type":"GaussianDpEvent"},"run":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}' 'charge {"event":4}' 'reserve {"count":4,"event":4,"holder":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}' 'settle {"reservation":6,"used":2}' 'dataset {"actor":"","adjacency":"","dataset":"e","parents":["d"],"purposes":[],"retention":0,"size_class":"","transformation":"","unit":""}' 'audit {"action":"train","actor":"o","attributes":"{}","covers":"","decision":"denied","host":"","key":"","policy":"","purpose":"","reason":"","rule":"","signature":"","subject":""}' 'revoke {"actor":"o","reason":"","target":"actor:o"}' > "$corpus/seed" ;;
    note_fuzz) printf 'hushgrad-ledger/aa\n1\nAAAA\n\n— witness AAAAAAAA\n' > "$corpus/seed" ;;
  esac
  "$build/tests/fuzz/ledger/$target" -max_total_time="$seconds" -max_len=8192 -timeout=10 -print_final_stats=1 "$corpus" 2>&1 | grep -E "ERROR|SUMMARY|number_of_executed_units|DONE|^artifact" || true
done
