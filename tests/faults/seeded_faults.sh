#!/usr/bin/env bash
# Puts one fault at a time into a copy of the core, builds it, and runs the tests of sealed files or keys: each fault must be caught.
# usage: tests/faults/seeded_faults.sh [FOLDER [TESTS]]     prints one line a fault; exit 1 when one is not caught
# TESTS: the dpcore_tests of an up-to-date build tree; without it they are built here, which takes minutes.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"; work="${1:-$(mktemp -d)}"
build="$work/source/build/faults"
mkdir -p "$work/source"
tar -C "$root" --exclude=./build --exclude=./.venv --exclude=./.git --exclude='*.so' -cf - . | tar -C "$work/source" -xmf -
cmake -S "$work/source" -B "$build" -G Ninja -DHUSHGRAD_WITH_TORCH=OFF -DHUSHGRAD_BUILD_TESTS=ON -DCMAKE_BUILD_TYPE=Release -Wno-author > "$work/configure.log"
tests="${2:-$build/tests/dpcore_tests}"
ninja -C "$build" hushgrad_dpcore hushgrad_pkcs11_helper $([[ $# -gt 1 ]] || echo dpcore_tests) > "$work/build.log"
export LD_LIBRARY_PATH="$(dirname "$(find "$build" -name 'libhushgrad_dpcore.so*' | head -1)")"
run() { timeout 300 "$tests" --gtest_fail_fast --gtest_filter="$1" > "$work/test.log" 2>&1; }
sealed='Container*:Sealed*:Manifest*:Rewrap*:TensorIndex*:Archive*:Golden*:Floe.*:Gcm*:DurableFile*:-*ForksShare*:*EverySegment*:*OfHeaderAndTrailer*'  # no slow ones
keys='Keyring*:Joint*:DualControl*:Approval*:Pkcs11Test*:Signing*:-*MalformedLines*:*FlippedBitsAndCuts*'
for filter in "$sealed" "$keys"; do
  run "$filter" || { echo "the tests fail without a fault, see $work/test.log"; exit 2; }
done
missed=0
# fault <name> <file> <sed expression> [<tests>]
fault() {
  [[ "$1" =~ ${HUSHGRAD_FAULTS:-.} ]] || return 0  # a regular expression: only these
  local file="$work/source/$2"
  cp "$file" "$work/original"
  sed -i -E "$3" "$file"
  if cmp -s "$file" "$work/original"; then echo "DOES NOT APPLY  $1"; missed=1; return; fi
  if ! ninja -C "$build" hushgrad_dpcore > "$work/build.log" 2>&1; then
    echo "DOES NOT BUILD  $1"; missed=1
  elif run "${4:-$sealed}"; then
    echo "NOT CAUGHT      $1"; missed=1
  else
    echo "caught          $1    by $(grep -m1 -oP '^\[  FAILED  \] \K\S+' "$work/test.log" || echo a crash)"
  fi
  cp "$work/original" "$file"
}
fault "15 of 16 tag bytes are compared" dpcore/sealed/gcm.cpp 's/EVP_CTRL_AEAD_SET_TAG, static_cast<int>\(tag\.size\(\)\)/EVP_CTRL_AEAD_SET_TAG, static_cast<int>(tag.size() - 1)/'
fault "MACs are compared without their last byte" dpcore/keys/kdf.cpp 's/CRYPTO_memcmp\(([^,]+), ([^,]+), ([a-z_]+)\.size\(\)\)/CRYPTO_memcmp(\1, \2, \3.size() - 1)/'
fault "the fsync before the rename is left out" dpcore/keys/durable_file.cpp 's/if \(::fsync\(file_\) != 0\) fail\("fsync"\);//'
fault "the fsync of a re-wrap is left out" dpcore/sealed/rewrap.cpp 's/if \(::fsync\(header\.file\.get\(\)\) != 0\) fail\("fsync", path\);//'
fault "every segment has the same nonce" dpcore/sealed/floe.cpp 's/^  fill_random\(iv\);$/  iv = {};/'
fault "the lower generation wins" dpcore/sealed/key_slots.cpp 's/a\.generation > b\.generation/a.generation < b.generation/'
fault "a re-wrap leaves the old slot" dpcore/sealed/rewrap.cpp 's/write_durably\(header, header\.slot_offset\(other\), encode_empty_slot/if (false) &/'
fault "a damaged slot is no matter" dpcore/sealed/key_slots.h 's/return active && \(rewrapping \|\| \(other && other->generation == 0\)\);/return active.has_value();/'
fault "the slot's MAC does not cover the core" dpcore/sealed/key_slots.cpp 's/^  append\(covered, core_digest\);$/  static_cast<void>(core_digest);/'
fault "trailing bytes are let through" dpcore/sealed/container_header.cpp 's/if \(file_bytes != expected\)/if (file_bytes < expected)/'
fault "any version opens" dpcore/sealed/container_header.cpp 's/version != Format::kVersion \|\| //'
fault "the signature is not looked at" dpcore/sealed/manifest.cpp 's/if \(writer\.verify\((.*)\)\) return;/if (writer.verify(\1) || true) return;/'
fault "segments are not held against the manifest" dpcore/sealed/container.cpp 's/if \(!digests_\.empty\(\) \&\& /if (false \&\& /'
fault "a negative epsilon is an epsilon" dpcore/sealed/sealed_core.cpp 's/value\.get<double>\(\) >= 0 && //'
fault "an archive may climb out" dpcore/sealed/archive.cpp 's/ \|\| part == "\.\."//'
fault "an index may overlap" dpcore/sealed/tensor_index.cpp 's/entry\.begin != begin/entry.begin > begin/'
fault "a failed read leaves what it has" dpcore/sealed/container.cpp 's/for \(const Destination& part : parts\) std::fill\(part\.out\.begin\(\), part\.out\.end\(\), std::byte\{0\}\);//'
fault "what was pinned may be swapped" dpcore/sealed/container.cpp 's/if \(!seals_\.empty\(\) \&\& /if (false \&\& /'
fault "an epsilon may nest without end" dpcore/sealed/sealed_core.cpp 's/return depth < kDeepestEpsilon \&\&/return depth >= 0 \&\&/'
fault "a re-wrap passes the last generation" dpcore/sealed/rewrap.cpp 's/if \(old\.generation == KeySlot::kMaxGeneration\)/if (false)/'
fault "a hostile keyring says what Argon2id costs" dpcore/keys/keyring_model.cpp 's/ \&\& Argon2Cost\{.*\}\.acceptable\(\)//' 'PassphraseKeyring*'
fault "an older keyring is as good as the newest" dpcore/keys/keyring.cpp 's/model\.generation < seen->generation \|\|/false \&\&/' "$keys"
fault "another keyring in its place is taken" dpcore/keys/keyring.cpp 's/const bool named = contents \&\& .*;/const bool named = false;/' "$keys"
fault "one of two places is enough" dpcore/keys/joint_provider.cpp 's/hmac_sha384\(a\.bytes\(\), b\.bytes\(\)\)/hmac_sha384(b.bytes(), a.bytes().first(0))/' "$keys"
fault "what was seen may get older" dpcore/keys/state_folder.cpp 's/if \(known->generation > news\.generation\) seen = \*known;//' "$keys"
fault "a revoked key opens" dpcore/keys/keyring_model.cpp 's/if \(state == kActive \|\| state == kDeactivated\) return true;/if (state != kSuspended) return true;/' "$keys"
fault "uses are not counted" dpcore/keys/keyring_change.cpp 's/^  key->uses \+= 1;$//' "$keys"
fault "one approval too few is enough" dpcore/keys/approval.cpp 's/approvers\.size\(\) < static_cast/approvers.size() + 1 < static_cast/' "$keys"
fault "an approval serves twice" dpcore/keys/approval.cpp 's/rules\.used_nonces\.contains\(operation\.nonce\)/false/' "$keys"
fault "people approve what they ask for" dpcore/keys/approval.cpp 's/approval\.approver == operation\.requester/operation.requester.empty()/' "$keys"
fault "signatures of approvals are not looked at" dpcore/keys/approval.cpp 's/if \(!known->verify\(kContext, text_bytes\(text\), approval\.signature\)\)/if (false)/' "$keys"
fault "the last custodian can be removed" dpcore/keys/keyring_change.cpp 's/found->role == "custodian" \&\& /false \&\& /' "$keys"
fault "signatures of the key log are not looked at" dpcore/keys/key_log.cpp 's/if \(!signer\.verify\((.*)\)\) refuse\(path, sequence, "a sig/if (!signer.verify(\1) \&\& sequence == 0) refuse(path, sequence, "a sig/' "$keys"
fault "the key is changed before the log" dpcore/keys/keyring_change.cpp 's/^  log\.append\(std::move\(entry\), open_log_key\(model, root\)\);$/  replace_keyring(path(), keyring_text(model, root, state_->protection()).bytes(), erase); log.append(std::move(entry), open_log_key(model, root));/' "$keys"
fault "shredding leaves the old bytes" dpcore/keys/keyring_file.cpp 's/if \(old\.get\(\) >= 0\) overwrite/if (old.get() >= 1000) overwrite/' "$keys"
fault "a certificate tells of what was only announced" dpcore/keys/keyring_change.cpp 's/if \(key == nullptr \|\| key->state != kDestroyed \|\| .*\) return std::nullopt;/if (key == nullptr) return std::nullopt;/' "$keys"
fault "a refused PIN is tried again" dpcore/keys/pkcs11_client.cpp 's/if \(answer\[0\] == "pin"\) refused_ = true;//' "$keys"
fault "a hung token is waited for" dpcore/keys/pkcs11_client.cpp 's/Clock::now\(\) \+ std::chrono::seconds\(seconds_\)/Clock::now() + std::chrono::seconds(40)/' "$keys"
exit "$missed"
