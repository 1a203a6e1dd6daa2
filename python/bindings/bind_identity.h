// A signing key on its way from one extension module to the other: the modules do not share pybind11's types.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "dpcore/error.h"
#include "dpcore/keys/signing.h"

namespace hushgrad::python {

using Identity = std::shared_ptr<const SigningKey>;
constexpr const char* kIdentityCapsule = "hushgrad.identity 1";

inline pybind11::capsule capsule_of(Identity identity) {
  const auto release = [](PyObject* object) { delete static_cast<Identity*>(PyCapsule_GetPointer(object, kIdentityCapsule)); };
  return pybind11::reinterpret_steal<pybind11::capsule>(
      PyCapsule_New(new Identity(std::move(identity)), kIdentityCapsule, release));
}

/// InvalidArgument for anything that capsule_of() has not made.
inline Identity identity_in(const pybind11::object& object) {
  if (PyCapsule_IsValid(object.ptr(), kIdentityCapsule) == 0) {
    throw InvalidArgument("[access] Expected a SigningKey, received an object of another type.");
  }
  return *static_cast<Identity*>(PyCapsule_GetPointer(object.ptr(), kIdentityCapsule));
}

}  // namespace hushgrad::python
