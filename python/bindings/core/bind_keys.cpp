// dpcore/keys for hushgrad.keys. Key material crosses into Python only for providers that are written there.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <nlohmann/json.hpp>

#include "bind_provider.h"
#include "core/bind.h"
#include "core/python_key_provider.h"
#include "dpcore/keys/certificate.h"
#include "dpcore/keys/fips.h"
#include "dpcore/keys/joint_provider.h"
#include "dpcore/keys/kdf.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/keys/pkcs11.h"
#include "dpcore/keys/private_file.h"
#include "dpcore/keys/self_test.h"

namespace hushgrad::python {
namespace {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;
using Identity = std::shared_ptr<SigningKey>;
using Passphrase = std::optional<py::bytes>;

KeyringAccess access(const Passphrase& passphrase, const Identity& identity) {
  return {optional_view(passphrase), identity};
}

Authorization authorization(const std::optional<std::string>& operation, const std::vector<std::string>& approvals) {
  Authorization given;
  if (operation) given.operation = operation_from(*operation);
  for (const std::string& approval : approvals) given.approvals.push_back(approval_from(approval));
  return given;
}

std::string log_text(const KeyLog& log) {
  auto entries = nlohmann::json::array();
  for (const KeyLogEntry& entry : log.entries()) {
    entries.push_back({{"sequence", entry.sequence},
                       {"hash", log.hash_at(entry.sequence)},
                       {"time", entry.time},
                       {"generation", entry.generation},
                       {"actor", entry.actor},
                       {"action", entry.action},
                       {"details", entry.details}});
  }
  return entries.dump();
}

// Without the GIL while the provider works: it may be another thread's turn in Python, or call Python itself.
py::list rows_of(const KeyProvider& provider) {
  std::vector<KeyInfo> keys;
  {
    const py::gil_scoped_release unlocked;
    keys = provider.list();
  }
  py::list rows;
  for (const KeyInfo& key : keys) rows.append(key_tuple(key));
  return rows;
}

// What a sealed file does with a provider, for the contract tests of providers.
void bind_provider_tests(py::module_& m) {
  m.def("wrap_for_testing",
        [](const KeyProvider& provider, const std::string& dataset, const py::bytes& data_key) {
          const auto bytes = view(data_key);
          WrappedKey wrapped;
          {
            const py::gil_scoped_release unlocked;
            wrapped = provider.wrap(dataset, bytes);
          }
          return py::make_tuple(wrapped.key_id, to_bytes(wrapped.bytes), wrapped.generation);
        },
        py::arg("provider"), py::arg("dataset"), py::arg("data_key"));
  m.def("unwraps_to_for_testing",
        [](const KeyProvider& provider, const std::string& key_id, const py::bytes& bytes, std::uint64_t generation,
           const py::bytes& data_key) {
          const auto wrapped = view(bytes), expected = view(data_key);
          const py::gil_scoped_release unlocked;
          const SecretBytes found = provider.unwrap({key_id, {wrapped.begin(), wrapped.end()}, generation});
          return equal_in_constant_time(found.bytes(), expected);
        },
        py::arg("provider"), py::arg("key_id"), py::arg("wrapped"), py::arg("generation"), py::arg("data_key"));
}

}  // namespace

void bind_keys(py::module_& m) {
  using Text = std::string;
  using Operation = std::optional<std::string>;
  using Approvals = std::vector<std::string>;
  py::class_<KeyProvider, PythonKeyProvider>(m, "KeyProvider", "Where keys are; use hushgrad.keys.KeyProvider instead.")
      .def(py::init<>())
      .def("_capsule", [](const KeyProvider& self) { return capsule_of(self); });

  // A method that needs approvals: target, reason, and who approved.
  const auto approved = [](auto method) {
    return [method](Keyring& self, const Text& dataset, const Text& tenant, const Text& key_id, const Text& reason,
                    const Operation& operation, const Approvals& approvals) {
      (self.*method)({dataset, tenant, key_id}, reason, authorization(operation, approvals));
    };
  };
  const auto immediate = [](auto method) {
    return [method](Keyring& self, const Text& dataset, const Text& tenant, const Text& key_id, const Text& reason) {
      (self.*method)({dataset, tenant, key_id}, reason);
    };
  };

  py::class_<Keyring, KeyProvider>(m, "Keyring", "A local keyring; use hushgrad.keys.Keyring instead.")
      .def(py::init([](const Text& path, const Passphrase& passphrase, const Identity& identity) {
             return Keyring::open(path, access(passphrase, identity));
           }),
           py::arg("path"), py::arg("passphrase") = py::none(), py::arg("identity") = py::none())
      .def_static("create",
                  [](const Text& path, const Passphrase& passphrase, const Identity& identity, bool machine) {
                    return Keyring::create(path, access(passphrase, identity), machine);
                  },
                  py::arg("path"), py::arg("passphrase") = py::none(), py::arg("identity") = py::none(),
                  py::arg("machine") = false)
      .def_static("accept_restored",
                  [](const Text& path, const Passphrase& passphrase, const Identity& identity, const Text& reason,
                     const Operation& operation, const Approvals& approvals) {
                    Keyring::accept_restored(path, access(passphrase, identity), reason,
                                             authorization(operation, approvals));
                  },
                  py::arg("path"), py::arg("passphrase"), py::arg("identity"), py::arg("reason"), py::arg("operation"),
                  py::arg("approvals"))
      .def_property_readonly("path", &Keyring::path)
      .def_property_readonly("log_path", &Keyring::log_path)
      .def("name", &Keyring::name)
      .def("generation", &Keyring::generation, Unlocked())
      .def("has_key", &Keyring::has_key, py::arg("dataset"), Unlocked())
      .def("list", [](const Keyring& self) { return rows_of(self); })
      .def("create_key",
           [](Keyring& self, const Text& dataset, const Text& tenant, std::int64_t activates, std::int64_t expires,
              std::uint64_t usage_limit, int quorum) {
             self.create_key(dataset, {tenant, activates, expires, usage_limit, quorum});
           },
           py::arg("dataset"), py::arg("tenant") = "default", py::arg("activates") = 0, py::arg("expires") = 0,
           py::arg("usage_limit") = 0, py::arg("quorum") = 0, Unlocked())
      .def("rotate_key", &Keyring::rotate_key, py::arg("dataset"), py::arg("reason") = "", Unlocked())
      .def("suspend", immediate(&Keyring::suspend), py::arg("dataset"), py::arg("tenant"), py::arg("key_id"),
           py::arg("reason"), Unlocked())
      .def("revoke", immediate(&Keyring::revoke), py::arg("dataset"), py::arg("tenant"), py::arg("key_id"),
           py::arg("reason"), Unlocked())
      .def("resume", approved(&Keyring::resume), py::arg("dataset"), py::arg("tenant"), py::arg("key_id"),
           py::arg("reason"), py::arg("operation"), py::arg("approvals"), Unlocked())
      .def("reinstate", approved(&Keyring::reinstate), py::arg("dataset"), py::arg("tenant"), py::arg("key_id"),
           py::arg("reason"), py::arg("operation"), py::arg("approvals"), Unlocked())
      .def("shred",
           [](Keyring& self, const Text& dataset, const Text& tenant, const Text& key_id, const Text& reason,
              const std::vector<Text>& files, const Operation& operation, const Approvals& approvals) {
             return self.shred({dataset, tenant, key_id}, reason, files, authorization(operation, approvals));
           },
           py::arg("dataset"), py::arg("tenant"), py::arg("key_id"), py::arg("reason"), py::arg("files"),
           py::arg("operation"), py::arg("approvals"), Unlocked())
      .def("certificate",
           [](const Keyring& self, const Text& dataset, const Text& tenant, const Text& key_id) {
             return self.certificate({dataset, tenant, key_id});
           },
           py::arg("dataset"), py::arg("tenant"), py::arg("key_id"), Unlocked())
      .def("break_glass",
           [](Keyring& self, const Text& dataset, const Text& tenant, const Text& key_id, const Text& reason, int minutes,
              const Operation& operation, const Approvals& approvals) {
             self.break_glass({dataset, tenant, key_id}, reason, minutes, authorization(operation, approvals));
           },
           py::arg("dataset"), py::arg("tenant"), py::arg("key_id"), py::arg("reason"), py::arg("minutes"),
           py::arg("operation"), py::arg("approvals"), Unlocked())
      .def("add_identity",
           [](Keyring& self, const Text& name, const Text& role, const PublicKey& key, const Operation& operation,
              const Approvals& approvals) {
             self.add_identity(name, role, key, authorization(operation, approvals));
           },
           py::arg("name"), py::arg("role"), py::arg("key"), py::arg("operation"), py::arg("approvals"), Unlocked())
      .def("remove_identity",
           [](Keyring& self, const Text& identity, const Text& reason, const Operation& operation,
              const Approvals& approvals) {
             self.remove_identity(identity, reason, authorization(operation, approvals));
           },
           py::arg("identity"), py::arg("reason"), py::arg("operation"), py::arg("approvals"), Unlocked())
      .def("protect",
           [](Keyring& self, const Passphrase& passphrase, bool machine) {
             self.protect(access(passphrase, nullptr), machine);
           },
           py::arg("passphrase"), py::arg("machine"))
      .def("request",
           [](const Keyring& self, const Text& action, const std::map<Text, Text>& scope, const Text& reason,
              std::int64_t lifetime) { return to_text(self.request(action, scope, reason, lifetime)); },
           py::arg("action"), py::arg("scope"), py::arg("reason"), py::arg("lifetime"), Unlocked())
      .def("describe", &Keyring::describe, Unlocked())
      .def("verify", [](const Keyring& self) { return log_text(self.verify()); }, Unlocked())
      .def_property_readonly("public_key", &Keyring::public_key);
  py::class_<JointProvider, KeyProvider>(m, "JointProvider", "A keyring and another place; use hushgrad.keys.JointProvider instead.")
      .def(py::init<const Keyring&, const KeyProvider&>(), py::arg("keyring"), py::arg("place"), py::keep_alive<1, 2>(),
           py::keep_alive<1, 3>())
      .def("name", &JointProvider::name)
      .def("has_key", &JointProvider::has_key, py::arg("dataset"), Unlocked())
      .def("list", [](const JointProvider& self) { return rows_of(self); });
  py::class_<Pkcs11, KeyProvider>(m, "Pkcs11", "A PKCS#11 token; use hushgrad.keys.Pkcs11 instead.")
      .def(py::init([](const Text& module, const Text& token, const Text& pin_file, int pin_descriptor, int seconds) {
             SecretBytes pin = pin_descriptor < 0 ? read_secret_line(pin_file, "PIN") : read_secret_line(pin_descriptor, "PIN");
             return std::make_unique<Pkcs11>(module, token, std::move(pin), seconds);
           }),
           py::arg("module"), py::arg("token"), py::arg("pin_file"), py::arg("pin_descriptor"), py::arg("seconds"),
           Unlocked())
      .def("name", &Pkcs11::name)
      .def("has_key", &Pkcs11::has_key, py::arg("dataset"), Unlocked())
      .def("list",
           [](const Pkcs11& self) {
             std::vector<KeyInfo> keys;
             {
               const py::gil_scoped_release unlocked;
               keys = self.list();
             }
             py::list rows;
             for (const KeyInfo& key : keys) rows.append(key_tuple(key));
             return rows;
           })
      .def("create_key", &Pkcs11::create_key, py::arg("dataset"), py::arg("tenant"), Unlocked())
      .def("rotate_key", &Pkcs11::rotate_key, py::arg("dataset"), Unlocked())
      .def("suspend", &Pkcs11::suspend, py::arg("dataset"), Unlocked())
      .def("resume", &Pkcs11::resume, py::arg("dataset"), Unlocked())
      .def("revoke", &Pkcs11::revoke, py::arg("dataset"), Unlocked())
      .def("destroy", &Pkcs11::destroy, py::arg("dataset"), Unlocked());
  m.def("self_test", [] {
    std::map<std::string, bool> results;
    for (const SelfTest& test : run_self_tests()) results[test.name] = test.passed;
    return results;
  });
  m.def("read_secret_line",
        [](const Text& path, const Text& what) { return to_bytes(read_secret_line(path, what.c_str()).bytes()); },
        py::arg("path"), py::arg("what"));
  m.def("require_fips", &require_fips);
  m.def("fips_mode", &fips_mode);
  m.def("verify_certificate", &verify_certificate, py::arg("text"), py::arg("signer"));
  bind_provider_tests(m);
}

}  // namespace hushgrad::python
