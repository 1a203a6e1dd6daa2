// SealedCore as a Python dict, for both extension modules.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <type_traits>

#include "dpcore/error.h"
#include "dpcore/sealed/sealed_core.h"

namespace hushgrad::python {

/// Calls visit(name, member) for every field of a core.
template <typename Core, typename Visit>
void each_core_field(Core& core, const Visit& visit) {
  visit("dataset", core.dataset);
  visit("run_id", core.run_id);
  visit("step", core.step);
  visit("plan_json", core.plan_json);
  visit("ledger_sequence", core.ledger_sequence);
  visit("ledger_hash", core.ledger_hash);
  visit("epsilon_json", core.epsilon_json);
  visit("tenant", core.tenant);
  visit("ledger_id", core.ledger_id);
  visit("policy_id", core.policy_id);
  visit("policy_digest", core.policy_digest);
  visit("keyring_generation", core.keyring_generation);
  visit("previous", core.previous);
  visit("file_id", core.file_id);
  visit("created", core.created);
  visit("writer", core.writer);
  visit("software", core.software);
  visit("index_bytes", core.index_bytes);
  visit("payload_bytes", core.payload_bytes);
}

/// Missing fields keep their defaults. InvalidArgument for unknown ones.
inline SealedCore core_from(const pybind11::dict& fields) {
  SealedCore core;
  std::size_t known = 0;
  each_core_field(core, [&](const char* name, auto& field) {
    if (!fields.contains(name)) return;
    field = fields[name].template cast<std::decay_t<decltype(field)>>();
    ++known;
  });
  if (known != fields.size()) {
    throw InvalidArgument("[write_sealed] Expected only the fields of the core, received others.");
  }
  return core;
}

inline pybind11::dict core_to(const SealedCore& core) {
  pybind11::dict fields;
  each_core_field(core, [&](const char* name, const auto& field) { fields[name] = pybind11::cast(field); });
  return fields;
}

}  // namespace hushgrad::python
