#include "accounting/ledger/names.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "dpcore/error.h"

namespace hushgrad::ledger {
namespace {

constexpr std::uint32_t kMalformed = 0xffffffff;

// One code point from the front of `text`; kMalformed for overlong forms, surrogates and values past U+10FFFF
// (RFC 3629).
std::uint32_t next_code_point(std::string_view& text) {
  const auto lead = static_cast<unsigned char>(text.front());
  const std::size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
  if (length == 0 || length > text.size()) return kMalformed;
  std::uint32_t value = length == 1 ? lead : lead & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte >> 6 != 2) return kMalformed;
    value = value << 6 | (byte & 0x3fu);
  }
  constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kSmallest[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return kMalformed;
  text.remove_prefix(length);
  return value;
}

bool is_forbidden(std::uint32_t point) {
  if (point < 0x20 || (point >= 0x7f && point <= 0x9f)) return true;   // C0, DEL, C1
  if (point == 0x2028 || point == 0x2029) return true;                 // line and paragraph separator
  if (point == 0x061c || point == 0x200e || point == 0x200f) return true;  // direction marks
  // What nobody sees would make a second dataset under the same name. The joiners U+200C and U+200D belong to some scripts.
  if (point == 0x00ad || point == 0x034f || point == 0x180e || point == 0x200b || point == 0xfeff) return true;
  if ((point >= 0x2060 && point <= 0x2064) || (point >= 0xfff9 && point <= 0xfffb) || (point >= 0xe0000 && point <= 0xe0fff)) return true;
  return (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

// Of any width: a name that ends in one looks like the name that does not.
bool is_space(std::uint32_t point) {
  return point == ' ' || point == 0x00a0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x202f || point == 0x205f ||
         point == 0x3000;
}

}  // namespace

void check_name(std::string_view what, std::string_view name, bool may_be_empty, std::size_t max_bytes) {
  const auto refuse = [&](const std::string& expected, const std::string& received) {
    throw InvalidArgument(message("[ledger] Expected ", what, " ", expected, ", received ", received,
                                  ". Choose a plain name."));
  };
  if (name.empty() && !may_be_empty) refuse("to be a name", "an empty text");
  if (name.size() > max_bytes) {
    refuse(message("of at most ", max_bytes, " bytes"), message(name.size(), " bytes"));
  }
  bool is_first = true;
  while (!name.empty()) {
    const std::uint32_t point = next_code_point(name);
    if (point == kMalformed) refuse("in UTF-8", "other bytes");
    if (is_forbidden(point)) refuse("without control and invisible characters", message("code point ", point));
    if (is_space(point) && (is_first || name.empty())) refuse("without a space at either end", "one with such a space");
    is_first = false;
  }
}

}  // namespace hushgrad::ledger
