// Writes a sealed container: first everything under a temporary name, then, when it is told to, the name.
#pragma once

#include <memory>
#include <string>

#include "dpcore/keys/durable_file.h"
#include "dpcore/keys/key_provider.h"
#include "dpcore/keys/signing.h"
#include "dpcore/sealed/payload_source.h"
#include "dpcore/sealed/segments.h"

namespace hushgrad {

/// How to seal. All of it is optional.
struct SealOptions {
  IfExists if_exists = IfExists::refuse;
  const SigningKey* identity = nullptr;  // who signs the manifest; nobody: the file says "unsigned"
  int threads = 0;                       // at most; 0: as many as OpenMP gives
  Progress progress{};
};

/// A container that is written and not yet visible. Destruction without publish() removes it.
class ContainerWriter {
 public:
  /// Seals `payload` (1 byte..4 PiB) beside `core` (at most 1 MiB), under the active key of `dataset`. Writes as
  /// DurableFile does; memory about 2 MiB a thread. InvalidArgument (sizes), KeyError (no key), IoError.
  ContainerWriter(const std::string& path, const std::string& dataset, const std::string& core,
                  const PayloadSource& payload, const KeyProvider& keys, const SealOptions& options = {});

  /// Of the manifest, 96 hex digits. Known before the file has its name, so that a ledger can hold it first.
  const std::string& digest() const { return digest_; }
  /// Makes it durable and gives it its name. Once. IoError.
  void publish() { file_->publish(); }

 private:
  std::unique_ptr<DurableFile> file_;
  std::string digest_;
};

}  // namespace hushgrad
