// Where the plaintext of a sealed payload comes from: memory, or files that are read as they are sealed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace hushgrad {

/// One long array of bytes. Safe for concurrent get().
class PayloadSource {
 public:
  virtual ~PayloadSource() = default;
  virtual std::uint64_t size() const = 0;
  /// `size` bytes at `offset`: in place where they lie together in memory, else copied to `room`, which is large enough.
  virtual std::span<const std::byte> get(std::uint64_t offset, std::size_t size, std::span<std::byte> room) const = 0;
};

/// Chunks of memory, one after the other. Views them.
class MemorySource final : public PayloadSource {
 public:
  /// InvalidArgument above 4 PiB.
  explicit MemorySource(std::vector<std::span<const std::byte>> chunks);
  std::uint64_t size() const override { return size_; }
  std::span<const std::byte> get(std::uint64_t offset, std::size_t size, std::span<std::byte> room) const override;

 private:
  std::vector<std::span<const std::byte>> chunks_;
  std::vector<std::uint64_t> starts_;
  std::uint64_t size_ = 0;
};

}  // namespace hushgrad
