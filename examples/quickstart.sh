#!/usr/bin/env bash
# Trains a differentially private model on real health data, from nothing: sets everything up, then runs quickstart.py.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/examples/setup.sh"
exec "$python" "$root/examples/quickstart.py" "$@"
