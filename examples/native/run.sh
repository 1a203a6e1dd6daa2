#!/usr/bin/env bash
# Builds train.cpp against the installed package, trains with it on the quickstart's data, and shows that C++ and
# Python open each other's checkpoints. Run it after the quickstart or alone; files go to examples/output.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
source "$root/examples/setup.sh"
here="$root/examples/native"
output="${1:-$root/examples/output}"
build="$root/build/example"

if [[ ! -f "$output/model.sealed" ]]; then
  step "Training in Python"
  "$python" "$root/examples/quickstart.py" --output "$output"
fi

step "Building the native example"
"$python" "$here/export_data.py" "$output"
prefixes="$("$python" -c \
  'import torch, hushgrad; print(torch.utils.cmake_prefix_path + ";" + hushgrad.cmake_prefix_path)')"
cmake -S "$here" -B "$build" -G Ninja -DCMAKE_PREFIX_PATH="$prefixes"
cmake --build "$build"

step "Training in C++"
"$build/train" "$output"

step "Both checkpoints, opened by both languages"
files=("$output/native.sealed" "$output/model.sealed")
"$build/train" "$output" --open "${files[@]}" >"$build/opened_in_cpp"
"$python" "$here/open_checkpoints.py" "$output" "${files[@]}" >"$build/opened_in_python"
diff "$build/opened_in_cpp" "$build/opened_in_python" || fail "C++ and Python disagree about the checkpoints."
cat "$build/opened_in_cpp"
