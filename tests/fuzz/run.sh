#!/usr/bin/env bash
# Builds the targets with clang and runs each for SECONDS (default 60): tests/fuzz/run.sh [SECONDS] [BUILD_FOLDER] [TARGET...]
# Prints one line a target: seconds, runs, lines covered of the files under test.
set -euo pipefail
missing() { echo "fuzz: Expected clang with libFuzzer and llvm-cov, received no $1. Install: apt-get install clang llvm libclang-rt-14-dev" >&2; exit 2; }
command -v clang++ > /dev/null || missing clang++
runtime="$(clang++ -print-resource-dir)/lib/linux/libclang_rt.fuzzer-$(uname -m).a"
[[ -f "$runtime" ]] || missing "$runtime"
profdata="$(command -v llvm-profdata || command -v llvm-profdata-14)" || missing llvm-profdata
cov="$(command -v llvm-cov || command -v llvm-cov-14)" || missing llvm-cov
root="$(cd "$(dirname "$0")/../.." && pwd)"; seconds="${1:-60}"; build="${2:-$root/build/fuzz}"
cmake -S "$root" -B "$build" -G Ninja -DHUSHGRAD_FUZZ=ON -DHUSHGRAD_WITH_TORCH=OFF -Wno-author -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ > "$build.log" 2>&1 \
  || { mkdir -p "$build"; cmake -S "$root" -B "$build" -G Ninja -DHUSHGRAD_FUZZ=ON -DHUSHGRAD_WITH_TORCH=OFF -Wno-author -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++; }
targets=(header core key_slot index floe archive keyring key_log key_text approval)
ninja -C "$build" make_seeds "${targets[@]/%/_fuzz}"
mkdir -p "$build/seeds"
"$build/tests/fuzz/make_seeds" "$build/seeds"
declare -A file=([header]=container_header.cpp [core]=sealed_core.cpp [key_slot]=key_slots.cpp [index]=tensor_index.cpp
  [floe]=floe.cpp [archive]=archive.cpp [keyring]='keyring_(file|model|version_1).cpp' [key_log]=key_log.cpp
  [key_text]='(certificate|keyring_model|signing|utc_time).cpp' [approval]=approval.cpp)  # regular expressions
(($# > 2)) && targets=("${@:3}")
for t in "${targets[@]}"; do
  mkdir -p "$build/corpus/$t"
  LLVM_PROFILE_FILE="$build/$t.profraw" nice -n 10 "$build/tests/fuzz/${t}_fuzz" -max_total_time="$seconds" -rss_limit_mb=512 -max_len=20000 \
    -print_final_stats=1 -artifact_prefix="$build/crash_${t}_" "$build/corpus/$t" "$build/seeds/$t" > "$build/$t.log" 2>&1 \
    || { echo "$t: FAILED, see $build/$t.log"; tail -40 "$build/$t.log"; exit 1; }
  "$profdata" merge -sparse "$build/$t.profraw" -o "$build/$t.profdata"
  lines="$("$cov" report "$build/tests/fuzz/${t}_fuzz" -instr-profile="$build/$t.profdata" 2>/dev/null | awk -v f="/${file[$t]}$" '("/" $1) ~ f {all += $8; missed += $9} END {printf "%.1f%%", all ? 100 * (all - missed) / all : 0}')"
  runs="$(awk '/stat::number_of_executed_units/ {print $2}' "$build/$t.log")"
  echo "$t: $seconds s, $runs runs, ${file[$t]} lines $lines"
done
