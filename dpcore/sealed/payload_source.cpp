#include "dpcore/sealed/payload_source.h"

#include <algorithm>
#include <utility>

#include "dpcore/error.h"
#include "dpcore/sealed/container_format.h"

namespace hushgrad {

MemorySource::MemorySource(std::vector<std::span<const std::byte>> chunks) : chunks_(std::move(chunks)) {
  for (const auto& chunk : chunks_) {
    starts_.push_back(size_);
    if (chunk.size() > ContainerFormat::kMaxPayload - size_) {
      throw InvalidArgument("[write_sealed] Expected at most 4 PiB in a file, received more. Split it.");
    }
    size_ += chunk.size();
  }
}

std::span<const std::byte> MemorySource::get(std::uint64_t offset, std::size_t size, std::span<std::byte> room) const {
  auto i = static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), offset) - starts_.begin()) - 1;
  if (offset - starts_[i] + size <= chunks_[i].size()) return chunks_[i].subspan(offset - starts_[i], size);
  for (std::size_t done = 0; done < size; ++i) {
    const auto part = chunks_[i].subspan(static_cast<std::size_t>(offset + done - starts_[i]));
    const std::size_t count = std::min(part.size(), size - done);
    std::copy_n(part.begin(), count, room.begin() + static_cast<std::ptrdiff_t>(done));
    done += count;
  }
  return room.first(size);
}

}  // namespace hushgrad
