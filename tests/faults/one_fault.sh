# Sourced by the scripts that put one fault at a time into a copy of the core, build it and run tests: each fault must be caught.
#   prepare LIBRARY PROGRAM [FOLDER [TESTS]]   a copy of the source in FOLDER, and LIBRARY built there. TESTS: the PROGRAM of an
#                                              up-to-date build tree; without it, it is built in the copy, which takes minutes
#   without_fault FILTER...                    these tests pass as things are
#   fault NAME FILE SED FILTER                 prints one line; `missed` is 1 when a fault was not caught
# HUSHGRAD_FAULTS: a regular expression, only faults of such names. The library is taken from LD_LIBRARY_PATH.
set -euo pipefail
missed=0
prepare() {
  local root; root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
  library="$1"; work="${3:-$(mktemp -d)}"; build="$work/source/build/faults"; tests="${4:-$build/tests/$2}"
  mkdir -p "$work/source"
  tar -C "$root" --exclude=./build --exclude=./.venv --exclude=./.git --exclude='*.so' -cf - . | tar -C "$work/source" -xmf -
  cmake -S "$work/source" -B "$build" -G Ninja -DHUSHGRAD_WITH_TORCH=OFF -DHUSHGRAD_BUILD_TESTS=ON -DCMAKE_BUILD_TYPE=Release -Wno-author > "$work/configure.log"
  ninja -C "$build" "$library" hushgrad_pkcs11_helper $([[ $# -gt 3 ]] || echo "$2") > "$work/build.log"
  LD_LIBRARY_PATH="$(dirname "$(find "$build" -name "lib$library.so*" | head -1)")"; export LD_LIBRARY_PATH
}
run() { timeout 600 "$tests" --gtest_fail_fast --gtest_filter="$1" > "$work/test.log" 2>&1; }
failing() {
  grep -m1 -oP '^\[  FAILED  \] \K[^, ]+' "$work/test.log" || echo "a crash in $(grep -oP '^\[ RUN      \] \K\S+' "$work/test.log" | tail -1)"
}
without_fault() {
  local filter
  for filter in "$@"; do
    run "$filter" || { echo "the tests fail without a fault, see $work/test.log"; exit 2; }
  done
}
fault() {
  [[ "$1" =~ ${HUSHGRAD_FAULTS:-.} ]] || return 0
  local file="$work/source/$2"
  cp "$file" "$work/original"
  sed -i -E "$3" "$file"
  if cmp -s "$file" "$work/original"; then echo "DOES NOT APPLY  $1"; missed=1; return; fi
  if ! ninja -C "$build" "$library" > "$work/build.log" 2>&1; then
    echo "DOES NOT BUILD  $1"; missed=1
  elif run "$4"; then
    echo "NOT CAUGHT      $1"; missed=1
  else
    echo "caught          $1    by $(failing)"
  fi
  cp "$work/original" "$file"
}
