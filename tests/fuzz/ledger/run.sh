#!/usr/bin/env bash
# Builds the fuzz targets of the ledger with clang and runs each: run.sh SECONDS BUILD_FOLDER [PYTHON]
# PYTHON, with hushgrad, PyJWT and atheris, runs the one of tokens too.
# What reads is instrumented here (libFuzzer, address and undefined-behaviour sanitizers); the rest comes from the libraries of
# BUILD_FOLDER, a build of the same sources.
set -euo pipefail
root="$(cd "$(dirname "$0")/../../.." && pwd)"
seconds="${1:-60}" libraries="$(cd "${2:-$root/build/core}" && pwd)" build="$root/build/fuzz_ledger"
mkdir -p "$build"
failed=0
flags=(-std=c++20 -g -O1 -fPIC -I"$root" -fsanitize=address,undefined -fno-sanitize-recover=all)
sources=(access/policy access/role access/digest access/access_state access/decision ledger/names ledger/payload ledger/period
  ledger/account ledger/cover ledger/state ledger/state_access ledger/note ledger/chain)
objects=()  # in the order of sources
for source in "${sources[@]}"; do
  object="$build/${source//\//_}.o"
  if [[ ! -f "$object" || "$root/accounting/$source.cpp" -nt "$object" ]]; then
    echo "clang++ ${flags[*]} -fsanitize=fuzzer-no-link -c $root/accounting/$source.cpp -o $object"
  fi
done | xargs -r -P 2 -I{} sh -c '{}'
for source in "${sources[@]}"; do objects+=("$build/${source//\//_}.o"); done
for target in policy_fuzz entries_fuzz note_fuzz; do
  clang++ "${flags[@]}" -fsanitize=fuzzer "$root/tests/fuzz/ledger/$target.cpp" "${objects[@]}" -L"$libraries" -Wl,-rpath,"$libraries" \
    -lhushgrad_accounting -lhushgrad_dpcore -lcrypto -o "$build/$target"
done
for target in policy_fuzz entries_fuzz note_fuzz; do
  corpus="$build/corpus/$target"
  mkdir -p "$corpus"
  case "$target" in
    policy_fuzz) echo '{"version":1,"name":"n","separation":{"insecure_combine":[["trainer","approver"]]},"grants":{"max_hours":8},"break_glass":{"roles":["approver"],"max_minutes":5},"rule":[{"id":"a","effect":"allow","actions":["train"],"datasets":["w*"],"days":["mon"],"hours":"08:00-18:00","not_before":"2026-01-01T00:00:00Z","require":{"max_epsilon":1,"delta":1e-6,"proof":["key"]}}]}' > "$corpus/seed" ;;
    entries_fuzz) printf '%s\n' 'budget {"dataset":"d","delta":1e-05,"epsilon":1.0}' 'run {"actor":"","dataset":"d","plan":{},"purpose":"","run":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}' 'event {"event":{"noise_multiplier":1.0,"type":"GaussianDpEvent"},"run":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}' 'charge {"event":4}' 'reserve {"count":4,"event":4,"holder":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}' 'settle {"reservation":6,"used":2}' 'dataset {"actor":"","adjacency":"","dataset":"e","parents":["d"],"purposes":[],"retention":0,"size_class":"","transformation":"","unit":""}' 'audit {"action":"train","actor":"o","attributes":"{}","covers":"","decision":"denied","host":"","key":"","policy":"","purpose":"","reason":"","rule":"","signature":"","subject":""}' 'revoke {"actor":"o","reason":"","target":"actor:o"}' > "$corpus/seed" ;;
    note_fuzz) printf 'hushgrad-ledger/aa\n1\nAAAA\n\n— witness AAAAAAAA\n' > "$corpus/seed" ;;
  esac
  echo "$target, $seconds s:"
  nice "$build/$target" -max_total_time="$seconds" -max_len=8192 -timeout=30 -print_final_stats=1 "$corpus" > "$build/$target.log" 2>&1 || failed=1
  grep -E "ERROR|SUMMARY|runtime error|number_of_executed_units|DONE|INITED|^artifact" "$build/$target.log" || true
done
if [[ $# -ge 3 ]]; then
  mkdir -p "$build/corpus/token_fuzz"
  echo "token_fuzz, $seconds s:"
  PYTHONPATH="$root/python" nice "$3" "$root/tests/fuzz/ledger/token_fuzz.py" "$build/corpus/token_fuzz" -max_total_time="$seconds" -max_len=2048 -print_final_stats=1 \
    > "$build/token_fuzz.log" 2>&1 || failed=1
  grep -E "ERROR|Error|Exception|number_of_executed_units|DONE|INITED|^artifact" "$build/token_fuzz.log" || true
fi
exit "$failed"
