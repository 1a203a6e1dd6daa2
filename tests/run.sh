#!/usr/bin/env bash
# Builds everything and runs every test, C++ and Python. Exit code 0 only if all of them passed.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/examples/setup.sh"
cd "$root"

# Reference vectors that are too large for the repository; tests that need them say so and skip without them.
if [[ -z "${HUSHGRAD_SHARED_DIR:-}" && -d "$root/../shared" ]]; then
  HUSHGRAD_SHARED_DIR="$(cd "$root/../shared" && pwd)"
fi
export HUSHGRAD_SHARED_DIR="${HUSHGRAD_SHARED_DIR:-}"
[[ -n "$HUSHGRAD_SHARED_DIR" ]] || unset HUSHGRAD_SHARED_DIR

step "Building the C++ tests"
cmake -S . -B build/tests -G Ninja -DHUSHGRAD_BUILD_TESTS=ON \
  -DCMAKE_PREFIX_PATH="$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)')"
cmake --build build/tests

failed=()
step "C++ tests"
ctest --test-dir build/tests --output-on-failure -j2 2>&1 | tee build/tests/ctest.log || failed+=("C++ tests")
step "Python types"
"$python" -m mypy || failed+=("Python types")
step "Python tests"
"$python" -m pytest "$@" 2>&1 | tee build/tests/pytest.log || failed+=("Python tests")

step "Summary"
grep -E 'tests passed|tests failed|No tests were found' build/tests/ctest.log | sed 's/^/C++:    /' || true
tail -n 1 build/tests/pytest.log | sed 's/^/Python: /'
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
printf 'All tests passed.\n'
