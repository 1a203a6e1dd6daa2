// Sealed files: named tensors and a JSON tree, encrypted and authenticated in one file under the key of a
// dataset. Format, promises and limits: docs/formats/sealed_file.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/keyring.h"

namespace hushgrad {

/// A tensor as the sealed layer sees it: row-major little-endian bytes and a description. Views the caller's
/// memory.
struct SealedTensor {
  std::string name;   // 1..4096 bytes of UTF-8 without control characters, unique in a file
  std::string dtype;  // BOOL U8 I8 U16 I16 U32 I32 U64 I64 F8_E4M3 F8_E5M2 F16 BF16 F32 F64 C64 C128
  std::vector<std::int64_t> shape;   // [] is a scalar; a 0 means no elements
  std::span<const std::byte> bytes;  // product(shape) * size of dtype
};

/// What a sealed file says about itself in clear: readable without a key (inspect_sealed), authenticated with
/// one. The budget is never read from here; the ledger is authoritative. 1 MiB at most, all together.
struct SealedCore {
  std::string dataset;  // whose key seals the file; rules: check_dataset_name()
  std::string run_id;
  std::int64_t step = 0;             // >= 0
  std::string plan_json = "{}";      // the privacy plan, one JSON document, kept byte for byte
  std::int64_t ledger_sequence = 0;  // >= 0; position of the ledger when this was written
  std::string ledger_hash;
  std::string epsilon_json = "{}";  // what was spent, one JSON document; informative

  bool operator==(const SealedCore&) const = default;
};

/// Writes a sealed file, durably and atomically: at `path` there is, at every moment and after a crash or
/// kill, the old file, nothing, or the complete new file, never a part. Mode 0600. Of tensors and meta_json
/// only ciphertext reaches the disk. A killed process may leave a `.hgtmp` file of ciphertext beside it.
/// AES-256-GCM in FLOE (c2sp.org/FLOE), a fresh 256-bit key each file, wrapped by AES-256-KWP under the
/// dataset's key.
/// Memory: about 2 MiB a thread. `meta_json` is one JSON document, kept byte for byte; index and meta_json
/// together hold at most 64 MiB.
/// Errors: InvalidArgument (core, name, dtype, shape, length), KeyError (dataset without a key), IoError
/// (operating system, or the target exists or is not a regular file). After any error the target is as before
/// and the temporary file is gone; if only the last step failed, the fsync of the folder, the new file stands
/// but may not be durable.
void write_sealed(const std::string& path, const SealedCore& core, const std::string& meta_json,
                  std::span<const SealedTensor> tensors, const Keyring& keyring,
                  IfExists if_exists = IfExists::refuse);

class Container;

/// Reads a sealed file.
/// Guarantees:
///  - Version, suite and flags are checked before any key is used; the key is chosen by its id, no key is
///    tried.
///  - The header is authenticated before it is parsed, and each 1 MiB segment before any byte of it is handed
///    out.
///  - File length, segment count and position of every segment are authenticated: a cut, longer, reordered or
///    mixed file is an error.
/// The descriptor stays open: a file replaced later does not change what is read. Safe for concurrent reads.
/// Errors: SealError (truncated, altered, malformed), KeyError (key not in the keyring, or of another
/// dataset), IoError.
class SealedReader {
 public:
  struct Entry {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::uint64_t begin, end;  // bytes in the tensor area
  };

  SealedReader(const std::string& path, const Keyring& keyring);
  SealedReader(SealedReader&&) noexcept;
  SealedReader& operator=(SealedReader&&) noexcept;
  ~SealedReader();

  const SealedCore& core() const { return core_; }
  const std::string& meta_json() const { return meta_json_; }
  /// In the order they were written.
  const std::vector<Entry>& tensors() const { return tensors_; }
  /// The entry of that name. InvalidArgument when there is none.
  const Entry& entry(const std::string& name) const;

  /// Decrypts the bytes of a tensor into `out`, whose size must be end - begin (InvalidArgument otherwise),
  /// touching only the segments that cover it. On error `out` is zeroed.
  void read(const Entry& entry, std::span<std::byte> out) const;
  /// Authenticates every segment of the file.
  void verify_all() const;

 private:
  std::unique_ptr<Container> container_;
  SealedCore core_;
  std::string meta_json_;
  std::vector<Entry> tensors_;
  std::uint64_t data_offset_ = 0;  // of the tensor area, in the plaintext
};

/// What a file claims about itself, read without a key: UNAUTHENTICATED, anybody may have written it. Good
/// for choosing a keyring or listing a folder, never for a decision about a budget. SealError when malformed.
SealedCore inspect_sealed(const std::string& path);

}  // namespace hushgrad
