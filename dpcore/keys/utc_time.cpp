#include "dpcore/keys/utc_time.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr std::int64_t kEnd = 253402300800;  // 10000-01-01T00:00:00Z

}  // namespace

std::int64_t utc_now() { return std::time(nullptr); }

std::string utc_text(std::int64_t seconds) {
  if (seconds < 0 || seconds >= kEnd) {
    throw InvalidArgument("[time] Expected a time of the years 1970 to 9999, received another.");
  }
  const std::time_t time = seconds;
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::optional<std::int64_t> utc_seconds(std::string_view text) {
  constexpr std::string_view pattern = "dddd-dd-ddTdd:dd:ddZ";
  const bool fits = std::equal(text.begin(), text.end(), pattern.begin(), pattern.end(),
                               [](char c, char p) { return p == 'd' ? c >= '0' && c <= '9' : c == p; });
  if (!fits) return std::nullopt;
  std::tm utc{};
  std::sscanf(std::string(text).c_str(), "%d-%d-%dT%d:%d:%d", &utc.tm_year, &utc.tm_mon, &utc.tm_mday, &utc.tm_hour,
              &utc.tm_min, &utc.tm_sec);
  utc.tm_year -= 1900;
  utc.tm_mon -= 1;
  const std::int64_t seconds = timegm(&utc);
  if (seconds < 0 || seconds >= kEnd || utc_text(seconds) != text) return std::nullopt;
  return seconds;
}

}  // namespace hushgrad
