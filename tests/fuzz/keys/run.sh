#!/usr/bin/env bash
# Builds the fuzz target of keys with clang, ASan and UBSan, and runs it: run.sh SECONDS [BUILD_FOLDER]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"
seconds="${1:-60}" build="${2:-$(mktemp -d)}"
flags=(-std=c++20 -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -I"$root")
objects=()
for source in approval bytes certificate durable_file fips kdf keyring_model names private_file secret_bytes signing signing_file utc_time; do
  [[ -f "$root/dpcore/keys/$source.cpp" ]] || continue
  objects+=("$build/$source.o")
  [[ "$build/$source.o" -nt "$root/dpcore/keys/$source.cpp" ]] || clang++ "${flags[@]}" -c "$root/dpcore/keys/$source.cpp" -o "$build/$source.o"
done
clang++ "${flags[@]}" -fsanitize=fuzzer "$root/tests/fuzz/keys/text_fuzz.cpp" "${objects[@]}" -lcrypto -o "$build/text_fuzz"
mkdir -p "$build/corpus"
# One whole example of each kind to start from.
python3 - "$build/corpus" <<'PY'
import json, pathlib, sys
corpus = pathlib.Path(sys.argv[1])
dump = lambda o: json.dumps(o, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
operation = {"action": "shred", "created": "2026-01-31T12:00:00Z", "expires": "2026-02-01T12:00:00Z", "format": "hushgrad operation 1",
             "nonce": "1" * 32, "reason": "r", "requester": "2" * 32, "scope": {"dataset": "icu"}}
approval = {"approver": "1" * 32, "format": "hushgrad approval 1", "operation": "2" * 96, "signature": "30"}
key = {"activates": "", "changes": [{"actor": "", "reason": "", "state": "active", "time": "2026-01-31T12:00:00Z"}], "dataset": "",
       "expires": "", "id": "3" * 32, "quorum": 0, "rotation_due": False, "state": "active", "tenant": "default", "usage_limit": 0,
       "uses": 0, "wrapped": "4" * 80}
keyring = {"break_glass": [], "changed": "2026-01-31T12:00:00Z", "generation": 1, "id": "5" * 32, "identities": [], "keys": [key],
           "log": {"hash": "6" * 96, "key": "7777", "public_key": "x", "sequence": 1},
           "protection": {"cost": 0, "kdf": "", "machine": False, "salt": ""}}
pem = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
for kind, text in enumerate([dump(operation), dump(approval), b'{"format":"hushgrad certificate of destruction 1","signature":"30"}', pem,
                             dump(keyring), b"2026-01-31T12:00:00Z"]):
    (corpus / str(kind)).write_bytes(bytes([kind]) + text)
PY
"$build/text_fuzz" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=512 -print_final_stats=1 "$build/corpus"
