// A KeyProvider that is written in Python (a key service): C++ calls its methods, its errors stay in the taxonomy.
#pragma once

#include <string>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/bytes_argument.h"
#include "dpcore/error.h"
#include "dpcore/keys/key_provider.h"

namespace hushgrad::python {

/// Python sees keys as tuples (id, dataset, created, state, tenant, expires) and wrapped keys as (key_id, bytes,
/// generation); see hushgrad.keys.KeyProvider.
inline pybind11::tuple key_tuple(const KeyInfo& key) {
  return pybind11::make_tuple(key.id, key.dataset, key.created, key.state, key.tenant, key.expires);
}

class PythonKeyProvider : public KeyProvider {
 public:
  using KeyProvider::KeyProvider;

  std::string name() const override { return call<std::string>("name"); }
  std::uint64_t generation() const override { return call<std::uint64_t>("generation"); }

  std::vector<KeyInfo> list() const override {
    return guarded([&] {
      std::vector<KeyInfo> keys;
      for (const auto& key : method("_list")()) keys.push_back(key_info(key));
      return keys;
    });
  }
  KeyInfo key(const std::string& key_id) const override {
    return guarded([&] { return key_info(method("_key")(key_id)); });
  }
  WrappedKey wrap(const std::string& dataset, std::span<const std::byte> data_key) const override {
    if (data_key.size() != 32) {
      throw InvalidArgument(message("[keys] Expected a data key of 32 bytes, received ", data_key.size(), "."));
    }
    return guarded([&] {
      const auto [key_id, bytes, generation] =
          method("wrap")(dataset, to_bytes(data_key)).template cast<std::tuple<std::string, pybind11::bytes, std::uint64_t>>();
      const auto wrapped = view(bytes);
      return WrappedKey{key_id, {wrapped.begin(), wrapped.end()}, generation};
    });
  }
  SecretBytes unwrap(const WrappedKey& wrapped) const override {
    return guarded([&] {
      const auto bytes =
          method("unwrap")(wrapped.key_id, to_bytes(wrapped.bytes), wrapped.generation).template cast<pybind11::bytes>();
      const auto clear = view(bytes);
      if (clear.size() != 32) throw SealError("[keys] Expected a data key of 32 bytes from the provider, received another length.");
      SecretBytes data_key(clear.size());
      std::copy(clear.begin(), clear.end(), data_key.bytes().begin());
      return data_key;
    });
  }

 private:
  static KeyInfo key_info(const pybind11::handle& row) {
    const auto [id, dataset, created, state, tenant, expires] =
        row.cast<std::tuple<std::string, std::string, std::string, std::string, std::string, std::string>>();
    return {id, dataset, created, state, tenant, expires};
  }

  // Not get_override(): that finds nothing when a Python function of the same name called us with the provider.
  pybind11::object method(const char* name) const {
    const pybind11::object self = pybind11::cast(static_cast<const KeyProvider*>(this), pybind11::return_value_policy::reference);
    if (!pybind11::hasattr(self, name)) {
      throw InvalidState(message("[keys] Expected the provider to have a method ", name, ", received none."));
    }
    return self.attr(name);
  }

  template <typename Result>
  Result call(const char* name) const {
    return guarded([&] { return method(name)().template cast<Result>(); });
  }

  // Python's exceptions become those of C++ here: this may run under another module, which knows no others.
  template <typename Work>
  auto guarded(const Work& work) const -> decltype(work()) {
    const pybind11::gil_scoped_acquire gil;
    try {
      return work();
    } catch (pybind11::error_already_set& error) {
      const auto errors = pybind11::module_::import("hushgrad.errors");
      const std::string text = pybind11::str(error.value());
      const auto is = [&](const char* kind) { return error.matches(errors.attr(kind)); };
      if (is("InvalidArgument")) throw InvalidArgument(text);
      if (is("SealError")) throw SealError(text);
      if (is("IoError")) throw IoError(text);
      if (is("HushgradError")) throw KeyError(text);
      // The text of a foreign exception may hold anything, the request with its key included.
      const std::string type = pybind11::str(error.type().attr("__name__"));
      throw KeyError(message("[keys] Expected the key provider to answer, received ", type, ". See its own log."));
    } catch (const pybind11::cast_error&) {
      throw KeyError("[keys] Expected the answer that KeyProvider describes, received another type from the provider.");
    }
  }
};

}  // namespace hushgrad::python
