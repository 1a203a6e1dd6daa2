// Signed notes (C2SP signed-note, https://c2sp.org/signed-note) with Ed25519: heads that somebody else can keep.
#pragma once

#include <string>

#include "accounting/ledger/records.h"

namespace hushgrad {

/// A pair of keys as the signed-note tools write them. `signer` is a secret: "PRIVATE+KEY+name+hash+base64";
/// `verifier` is public: "name+hash+base64".
struct NoteKeys {
  std::string signer;
  std::string verifier;
};

/// New keys from the operating system's randomness. name: not empty, without white space and plus signs.
NoteKeys make_note_keys(const std::string& name);

/// `text` (ends with a line feed, no control characters but that) with a signature line. Throws InvalidArgument for a text
/// or a key of another form.
std::string sign_note(const std::string& text, const std::string& signer);

/// The text of a note that `verifier` has signed. Signatures of others are skipped. Throws InvalidArgument for a note or a
/// key of another form, LedgerError when that key has not signed this text.
std::string open_note(const std::string& note, const std::string& verifier);

/// The text about a head: three lines, "hushgrad-ledger/<ledger id>", the sequence, the hash in base64.
std::string head_text(const std::string& ledger_id, const LedgerHead& head);

/// The head in such a text. Throws InvalidArgument for another form, LedgerError for another ledger.
LedgerHead head_in(const std::string& text, const std::string& ledger_id);

}  // namespace hushgrad
