// Python bytes as spans. A span is valid while the object lives.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include <pybind11/pybind11.h>

namespace hushgrad::python {

inline std::span<const std::byte> view(const pybind11::bytes& bytes) {
  char* data = nullptr;
  pybind11::ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size) != 0) throw pybind11::error_already_set();
  return std::as_bytes(std::span(data, static_cast<std::size_t>(size)));
}

inline std::optional<std::span<const std::byte>> optional_view(const std::optional<pybind11::bytes>& bytes) {
  if (!bytes) return std::nullopt;
  return view(*bytes);
}

inline pybind11::bytes to_bytes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace hushgrad::python
