#include "dpcore/keys/names.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr std::size_t kMaxNameBytes = 256;

bool is_utf8(std::string_view text) {
  try {
    nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

void check_name(const char* where, const std::string& name) {
  if (is_plain_name(name)) return;
  throw InvalidArgument(message("[", where,
                                "] Expected a name of 1..256 bytes of UTF-8 without control characters and without a "
                                "space at either end, received another. Choose a plain name without patient data."));
}

}  // namespace

bool is_line(std::string_view text, std::size_t max_bytes) {
  if (text.empty() || text.size() > max_bytes) return false;
  const bool controls = std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; });
  return !controls && is_utf8(text);
}

bool is_plain_name(std::string_view text) {
  return is_line(text, kMaxNameBytes) && text.front() != ' ' && text.back() != ' ';
}

void check_dataset_name(const std::string& dataset) { check_name("dataset", dataset); }
void check_tenant_name(const std::string& tenant) { check_name("tenant", tenant); }

}  // namespace hushgrad
