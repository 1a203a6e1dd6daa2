// Known answers, computed anew: whether the cryptography of this machine still does what the standards say.
#pragma once

#include <string>
#include <vector>

namespace hushgrad {

struct SelfTest {
  std::string name;  // "SHA-384"
  bool passed = false;
};

/// SHA-384, HMAC-SHA-384, HKDF-Expand-SHA-384, AES-256-GCM, AES-256-KWP and ECDSA P-384 against published answers; each
/// must also refuse an altered input, where it can. Milliseconds. Never throws: what fails is false.
std::vector<SelfTest> run_self_tests();

/// The first caller runs the tests; InvalidState when any failed, then and for good: nothing is sealed or opened with
/// broken cryptography.
void require_self_tests();

}  // namespace hushgrad
