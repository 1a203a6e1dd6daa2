// Names that people choose: tenants, datasets, identities. Stored in clear, never used as paths.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace hushgrad {

/// Whether `text` is 1..max_bytes bytes of UTF-8 without control characters.
bool is_line(std::string_view text, std::size_t max_bytes);

/// is_line(text, 256) without a space at either end.
bool is_plain_name(std::string_view text);

/// Throws InvalidArgument unless is_plain_name(dataset). The name is stored in clear in keyrings and sealed files: no
/// patient data in it. Never used as a path.
void check_dataset_name(const std::string& dataset);
/// The same for tenants.
void check_tenant_name(const std::string& tenant);

}  // namespace hushgrad
