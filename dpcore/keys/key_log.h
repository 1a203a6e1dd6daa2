// The signed log beside a keyring: what was done, asked and denied. Append-only, hash-chained. Format:
// docs/formats/key_log.md.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "dpcore/keys/signing.h"

namespace hushgrad {

/// What one entry says. No key material, no patient data.
struct KeyLogEntry {
  std::uint64_t sequence = 0;    // 1, 2, ... without gaps
  std::string previous = {};          // SHA-384 of the line before, 96 hexadecimal digits; zeros for the first
  std::string time = {};              // UTC
  std::string keyring = {};           // id
  std::uint64_t generation = 0;  // the keyring's, which this entry leads to
  std::string actor = {};             // id of the identity that acted, or empty
  std::string action = {};
  std::map<std::string, std::string> details = {};
};

/// All entries of the log at a path, verified; made once for a question, under the keyring's lock where it is written.
class KeyLog {
 public:
  /// Reads and verifies: every sequence number, every link, every signature. A part of a line at the end, which a
  /// crash may leave, is not an entry. KeyError when anything does not fit or the file is open to others; an empty log
  /// where there is no file. IoError.
  static KeyLog read(const std::string& path, const PublicKey& signer);

  const std::vector<KeyLogEntry>& entries() const { return entries_; }
  std::uint64_t sequence() const { return entries_.size(); }
  /// Of the line with that sequence number; of nothing, zeros.
  std::string hash_at(std::uint64_t sequence) const;
  /// Throws KeyError unless this log holds the line `sequence` with `hash`: a log that was cut or begun anew does not.
  void check_holds(std::uint64_t sequence, const std::string& hash) const;
  /// Of every operation that was done under approvals.
  std::set<std::string> used_nonces() const;

  /// Appends one entry, signed and synced: it is on disk when this returns. Its sequence and previous are set here.
  /// IoError: nothing of what the entry announces may be done then.
  void append(KeyLogEntry entry, const SigningKey& signer);

 private:
  std::string path_;
  std::vector<KeyLogEntry> entries_;
  std::vector<std::string> hashes_;
  std::uint64_t bytes_ = 0;  // of whole lines
};

}  // namespace hushgrad
