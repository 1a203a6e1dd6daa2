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
#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/signing.h"
#include "dpcore/sealed/container_writer.h"
#include "dpcore/sealed/key_slots.h"
#include "dpcore/sealed/sealed_core.h"

namespace hushgrad {

/// A tensor as the sealed layer sees it: row-major little-endian bytes and a description. Views the caller's
/// memory.
struct SealedTensor {
  std::string name;   // 1..4096 bytes of UTF-8 without control characters, unique in a file
  std::string dtype;  // BOOL U8 I8 U16 I16 U32 I32 U64 I64 F8_E4M3 F8_E5M2 F16 BF16 F32 F64 C64 C128
  std::vector<std::int64_t> shape;   // [] is a scalar; a 0 means no elements
  std::span<const std::byte> bytes;  // product(shape) * size of dtype
};

/// The same without the bytes.
struct TensorDescription {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t bytes;
};

/// A sealed file, written in two moves: the constructor writes everything under a temporary name, publish() gives it its
/// own. At `path` there is, at every moment and after a crash or kill, the old file, nothing, or the complete new file,
/// never a part. Mode 0600. Of tensors and meta_json only ciphertext reaches the disk. A killed process may leave a
/// `.hgtmp` file of ciphertext beside it.
/// AES-256-GCM in FLOE (c2sp.org/FLOE), a fresh 256-bit key each file, wrapped under the dataset's key; signed by
/// `options.identity` where there is one.
/// Memory: about 2 MiB a thread. `meta_json` is one JSON document, kept byte for byte; index and meta_json
/// together hold at most 64 MiB. The tensors' bytes are not read after the constructor.
/// Errors: InvalidArgument (core, name, dtype, shape, length), KeyError (dataset without a key), IoError
/// (operating system, or the target exists or is not a regular file). After any error the target is as before
/// and the temporary file is gone; if only the last step failed, the fsync of the folder, the new file stands
/// but may not be durable.
class SealedWriter {
 public:
  SealedWriter(const std::string& path, const SealedCore& core, const std::string& meta_json,
               std::span<const SealedTensor> tensors, const KeyProvider& keys, const SealOptions& options = {});
  /// Bytes that come from elsewhere: `described` says what they are (its spans are not looked at), `data` gives them,
  /// one after the other.
  SealedWriter(const std::string& path, const SealedCore& core, const std::string& meta_json,
               std::span<const TensorDescription> described, const PayloadSource& data, const KeyProvider& keys,
               const SealOptions& options = {});

  /// 96 hex digits that name exactly this file. A ledger that records it before publish() can tell this file from every
  /// other later, also from those that somebody with the key made.
  const std::string& digest() const { return container_.digest(); }
  /// Once. IoError.
  void publish() { container_.publish(); }

 private:
  ContainerWriter container_;
};

/// Both moves at once.
void write_sealed(const std::string& path, const SealedCore& core, const std::string& meta_json,
                  std::span<const SealedTensor> tensors, const KeyProvider& keyring,
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

  SealedReader(const std::string& path, const KeyProvider& keyring);
  SealedReader(SealedReader&&) noexcept;
  SealedReader& operator=(SealedReader&&) noexcept;
  ~SealedReader();

  const SealedCore& core() const { return core_; }
  const std::string& meta_json() const { return meta_json_; }
  /// In the order they were written.
  const std::vector<Entry>& tensors() const { return tensors_; }
  /// The entry of that name. InvalidArgument when there is none.
  const Entry& entry(const std::string& name) const;

  /// Names exactly this file; compare it with what a ledger recorded.
  std::string digest() const;
  bool is_signed() const;
  /// Which wrapping of the data key is in use, and what an interrupted re-wrap left.
  const KeySlots& slots() const;
  /// Checks that `writer` signed exactly this file, and from here on each segment before it is handed out: this holds
  /// also against somebody who has the data key. SealError: unsigned, another writer, changed.
  void verify_manifest(const PublicKey& writer);
  /// The same for who knows from elsewhere, a ledger, that digest() is right.
  void trust_digest();

  /// Decrypts the bytes of a tensor into `out`, whose size must be end - begin (InvalidArgument otherwise),
  /// touching only the segments that cover it. On error `out` is zeroed.
  void read(const Entry& entry, std::span<std::byte> out) const;
  /// Part of a tensor, from its byte `offset` on.
  void read(const Entry& entry, std::uint64_t offset, std::span<std::byte> out) const;
  /// Authenticates every byte of the file now, and from here on hands out only what it saw: for who changes memory that is in
  /// use and must know before that nothing will fail but the disk. SealError, IoError.
  void pin(const Progress& progress = {});
  /// Some tensors of the file, each into its place; any order, each once. As read_all(), but only their segments.
  void read_some(std::span<const std::string> names, std::span<const std::span<std::byte>> outs, int threads = 0) const;
  /// Every tensor of the file into its place in `outs`, one for each of tensors(), in one pass that authenticates the
  /// whole file. On error all of them are zeroed.
  void read_all(std::span<const std::span<std::byte>> outs, int threads = 0, const Progress& progress = {}) const;
  /// Authenticates every segment of the file.
  void verify_all(const Progress& progress = {}) const;

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

/// What anybody can see of a file without a key.
struct SealedAppearance {
  SealedCore core;
  std::string digest;
  bool is_signed;
  std::string key_id;  // empty when no slot is whole
  std::uint64_t generation;
  bool damaged_slot;
};
SealedAppearance appearance_of(const std::string& path);

/// Checks without any secret key that `writer` signed exactly this file: an auditor can do it. Reads all of it.
/// SealError: unsigned, another writer, changed.
void verify_manifest(const std::string& path, const PublicKey& writer);

}  // namespace hushgrad
