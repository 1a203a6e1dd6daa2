// How a KeyProvider passes from _core to _torch. Each may be built with its own pybind11, so that a class registered by
// one is unknown to the other; a capsule around the C++ object is not. Both link the same dpcore.
#pragma once

#include <memory>

#include <pybind11/pybind11.h>

#include "dpcore/error.h"
#include "dpcore/keys/key_provider.h"

namespace hushgrad::python {

inline constexpr char kProviderCapsule[] = "hushgrad.KeyProvider";

/// The provider behind a Python object with a method `_capsule()` (hushgrad.keys.Keyring, any _core.KeyProvider). The
/// result is valid while `object` lives. InvalidArgument for other objects. Needs the GIL.
inline const KeyProvider& provider_of(const pybind11::handle& object) {
  if (!pybind11::hasattr(object, "_capsule")) {
    throw InvalidArgument("[keys] Expected a Keyring or another key provider, received an object of another type.");
  }
  const pybind11::object capsule = object.attr("_capsule")();
  const void* pointer = PyCapsule_GetPointer(capsule.ptr(), kProviderCapsule);
  if (pointer == nullptr) throw pybind11::error_already_set();
  return *static_cast<const KeyProvider*>(pointer);
}

inline pybind11::capsule capsule_of(const KeyProvider& provider) {
  return pybind11::capsule(static_cast<const void*>(&provider), kProviderCapsule);
}

}  // namespace hushgrad::python
