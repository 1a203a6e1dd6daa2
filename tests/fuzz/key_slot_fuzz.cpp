// State and slots. The checksum is made right first, or nothing behind it would be reached.
#include <algorithm>

#include "dpcore/keys/kdf.h"
#include "dpcore/sealed/key_slots.h"
#include "fuzz/fuzzing.h"

using namespace hushgrad;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> area(ContainerFormat::kSlotAreaBytes);
  const auto input = fuzzing::bytes_of(data, size);
  std::copy_n(input.begin(), std::min(input.size(), area.size()), area.begin());
  fuzzing::guarded([&] { parse_slots(area); });
  for (std::size_t i = 0; i < ContainerFormat::kSlots; ++i) {
    const auto slot = std::span(area).subspan(1 + i * ContainerFormat::kSlotBytes, ContainerFormat::kSlotBytes);
    const Sha384 sum = sha384(slot.first(ContainerFormat::kSlotBytes - sizeof(Sha384)));
    std::copy(sum.begin(), sum.end(), slot.end() - sizeof(Sha384));
  }
  fuzzing::guarded([&] {
    const KeySlots slots = parse_slots(area);
    if (slots.active) open_slot(*slots.active, Sha384{}, fuzzing::KnownKey());
  });
  return 0;
}
