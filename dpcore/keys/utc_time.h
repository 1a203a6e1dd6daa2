// Times as people and files write them: "2026-01-31T12:00:00Z".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hushgrad {

/// Seconds since 1970-01-01T00:00:00Z by the clock of this machine.
std::int64_t utc_now();

/// Years 1970 to 9999. InvalidArgument outside.
std::string utc_text(std::int64_t seconds);

/// The seconds of a text that utc_text() could have written; nothing for any other, 31 February included.
std::optional<std::int64_t> utc_seconds(std::string_view text);

}  // namespace hushgrad
