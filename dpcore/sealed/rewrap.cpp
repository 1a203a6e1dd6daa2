#include "dpcore/sealed/rewrap.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "dpcore/error.h"
#include "dpcore/sealed/container_header.h"
#include "dpcore/sealed/sealed_core.h"

namespace hushgrad {
namespace {

using Format = ContainerFormat;
using SlotBytes = std::array<std::byte, Format::kSlotBytes>;

[[noreturn]] void fail(const char* step, const std::string& path) {
  throw IoError(message("[rewrap] Expected to ", step, " ", path, ", received: ", std::strerror(errno),
                        ". The file opens as before; check permissions and free space, and start again."));
}

// A failed fsync is never tried again: the second try may report success on pages that were lost.
void write_durably(const ContainerHeader& header, std::uint64_t offset, std::span<const std::byte> rest,
                   const std::string& path) {
  while (!rest.empty()) {
    const ssize_t written = ::pwrite(header.file.get(), rest.data(), rest.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write", path);
    rest = rest.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  if (::fsync(header.file.get()) != 0) fail("fsync", path);
}

void write_state(const ContainerHeader& header, std::byte state, const std::string& path) {
  write_durably(header, header.state_offset(), std::span(&state, 1), path);
}

// Clears the other slot and says that the re-wrap is over.
void finish(const ContainerHeader& header, std::size_t other, const SecretBytes& data_key, const std::string& path) {
  write_durably(header, header.slot_offset(other), encode_empty_slot(data_key, header.core_digest), path);
  write_state(header, kIdle, path);
}

ContainerHeader open_locked(const std::string& path) {
  ContainerHeader header = ContainerHeader::open(path, O_RDWR | O_NOFOLLOW);
  while (::flock(header.file.get(), LOCK_EX) != 0) {
    if (errno != EINTR) fail("lock", path);
  }
  header.read_slots(path);
  return header;
}

// Before anything is written: a wrapping that does not open would take the place of one that does.
void check_wrapping(const WrappedKey& wrapped, const SecretBytes& data_key, const KeyProvider& keys) {
  const SecretBytes again = keys.unwrap(wrapped);
  if (equal_in_constant_time(again.bytes(), data_key.bytes())) return;
  throw KeyError(message("[rewrap] Expected the provider of key ", wrapped.key_id,
                         " to give back the key that it wrapped, received another. Do not use this provider."));
}

}  // namespace

Rewrapped rewrap(const std::string& path, const KeyProvider& from, const KeyProvider& to) {
  ContainerHeader header = open_locked(path);
  const KeySlot old = header.active_slot();
  const std::size_t other = 1 - old.index;
  const SecretBytes data_key = authenticate(header, from);
  const WrappedKey wrapped = to.wrap(decode_core(header.core).dataset, data_key.bytes());
  if (wrapped.key_id == old.key.key_id) {
    if (header.slots.unfinished()) finish(header, other, data_key, path);
    return {false, old.key.key_id, wrapped.key_id, old.generation};
  }
  if (old.generation == KeySlot::kMaxGeneration) {  // the next one would be no generation, and the file would not open
    throw SealError("[rewrap] Expected a key slot of a generation that has a next one, received the last. Seal the contents anew.");
  }
  check_wrapping(wrapped, data_key, to);
  const std::uint64_t generation = old.generation + 1;
  const SlotBytes fresh = encode_slot(generation, wrapped, data_key, header.core_digest);
  write_state(header, kRewrapping, path);
  write_durably(header, header.slot_offset(other), fresh, path);
  header.read_slots(path);
  if (header.active_slot().bytes != fresh) {
    throw IoError(message("[rewrap] Expected the new key slot of ", path,
                          " as it was written, received another. The old one is kept; check the disk."));
  }
  finish(header, old.index, data_key, path);
  return {true, old.key.key_id, wrapped.key_id, generation};
}

Rewrapped rewrap(const std::string& path, const KeyProvider& keys) { return rewrap(path, keys, keys); }

}  // namespace hushgrad
