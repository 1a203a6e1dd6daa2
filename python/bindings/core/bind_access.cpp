// accounting/access and the methods of a ledger about it, for hushgrad.ledger and hushgrad.policy.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "accounting/access/digest.h"
#include "accounting/access/policy.h"
#include "accounting/ledger/ledger.h"
#include "accounting/ledger/payload.h"
#include "bind_identity.h"
#include "core/bind.h"

namespace hushgrad::python {
namespace {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

template <typename Body>
auto unlocked(Body&& body) {
  const py::gil_scoped_release release;
  return body();
}

Action known_action(const std::string& name) {
  if (const auto action = action_named(name)) return *action;
  throw InvalidArgument("[access] Expected a known action, received another. See docs/access.md.");
}

Role known_role(const std::string& name) {
  if (const auto role = role_named(name)) return *role;
  throw InvalidArgument("[access] Expected trainer, approver, privacy_officer, auditor or key_custodian, received another role.");
}

py::dict access_rows(const AccessState& access, std::int64_t time) {
  py::list actors, grants, glasses;
  for (const Actor& one : access.actors) {
    actors.append(py::make_tuple(one.name, one.team, one.subject, one.key, one.sequence, one.revoked > 0));
  }
  for (const Grant& one : access.grants) {
    grants.append(py::make_tuple(one.sequence, one.name, to_string(one.role), one.dataset, one.purpose, one.starts, one.expires,
                                 access.is_active(one, time), one.granted_by, one.reason));
  }
  for (const BrokenGlass& one : access.glasses) {
    glasses.append(py::make_tuple(one.sequence, one.actor, to_string(one.action), one.dataset, one.reason, one.time, one.expires,
                                  one.review_due, one.reviewed));
  }
  py::dict rows;
  rows["actors"] = actors;
  rows["grants"] = grants;
  rows["glasses"] = glasses;
  rows["policy"] = access.policy() == nullptr ? 0 : access.policy()->version;
  return rows;
}

AccessRequest request(const std::string& action, const std::string& actor, const std::string& dataset, const std::string& purpose,
                      const std::string& environment, const std::string& proof, std::int64_t approvals,
                      std::optional<double> noise_multiplier, const std::string& sensitivity, const std::string& accountant,
                      bool insecure_seed) {
  return {known_action(action), actor, dataset, purpose, environment, proof, approvals, noise_multiplier, sensitivity, accountant,
          insecure_seed};
}

py::tuple row(const AccessDecision& decision) {
  return py::make_tuple(decision.allowed, decision.rule, decision.word, decision.reason, decision.policy);
}

py::tuple row(const Proposal& proposal) { return py::make_tuple(to_string(proposal.action), proposal.scope); }

std::shared_ptr<const SigningKey> shared(const SigningKey* key) {
  if (key == nullptr) return nullptr;
  const SecretBytes secret = key->pkcs8();
  return std::make_shared<const SigningKey>(SigningKey::from_pkcs8(secret.bytes()));
}

}  // namespace

void bind_access(py::module_& m, py::class_<Ledger, std::shared_ptr<Ledger>>& ledger) {
  m.def("canonical_policy", [](const std::string& text) {
    static_cast<void>(parse_policy(text));
    return ledger::canonical_plan(text);
  });
  m.def("identity_capsule", [](const SigningKey& key) { return capsule_of(shared(&key)); });
  m.def("access_table", [] {
    py::dict table;
    for (const Action action : all_actions()) {
      std::vector<std::string> roles;
      for (const Role role : all_roles()) {
        if (may(role, action)) roles.emplace_back(to_string(role));
      }
      table[to_string(action)] = roles;
    }
    return table;
  });
  ledger
      .def("identify", [](Ledger& self, const SigningKey* key) { self.identify(shared(key)); }, py::arg("key").none(true))
      .def("actor", &Ledger::actor, Unlocked())
      .def("has_access_rules", &Ledger::has_access_rules, Unlocked())
      .def("access",
           [](Ledger& self, std::int64_t time) {
             const AccessState access = unlocked([&] { return self.access(); });
             return access_rows(access, time);
           })
      .def("found_access", &Ledger::found_access, Unlocked())
      .def("add_actor",
           [](Ledger& self, const std::string& name, const PublicKey& key, const std::string& team, const std::string& subject) {
             return self.add_actor({name, key, team, subject});
           },
           Unlocked())
      .def("grant",
           [](Ledger& self, const std::string& name, const std::string& role, const std::string& dataset, const std::string& purpose,
              const std::string& starts, const std::string& expires, const std::string& reason) {
             return self.grant({name, known_role(role), dataset, purpose, starts, expires, reason});
           },
           Unlocked())
      .def("revoke", &Ledger::revoke, Unlocked())
      .def("publish_policy",
           [](Ledger& self, const std::string& policy, const std::string& key, const py::bytes& signature) {
             const std::string bytes = signature;
             return unlocked([&] { return self.publish_policy(policy, key, hex_of(bytes_of(bytes))); });
           })
      .def("test_access",
           [](Ledger& self, const std::string& action, const std::string& actor, const std::string& dataset, const std::string& purpose,
              const std::string& environment, const std::string& proof, std::int64_t approvals, std::optional<double> noise_multiplier,
              const std::string& sensitivity, const std::string& accountant, bool insecure_seed, const std::optional<std::string>& policy) {
             const AccessRequest asked = request(action, actor, dataset, purpose, environment, proof, approvals, noise_multiplier,
                                                 sensitivity, accountant, insecure_seed);
             return row(unlocked([&] { return policy ? self.test_access(asked, parse_policy(*policy)) : self.test_access(asked); }));
           })
      .def("present",
           [](Ledger& self, const std::string& operation, const std::vector<std::string>& texts) {
             std::vector<Approval> approvals;
             for (const std::string& text : texts) approvals.push_back(approval_from(text));
             self.present(operation_from(operation), approvals);
           },
           Unlocked())
      .def("propose_budget",
           [](Ledger& self, std::string dataset, double epsilon, double delta, std::string purpose, std::string actor, double warning,
              std::string set_by, std::string team, std::string period) {
             return row(self.proposal(BudgetLimit{dataset, epsilon, delta, purpose, actor, warning, set_by, team, period}));
           })
      .def("propose_dataset",
           [](Ledger& self, std::string dataset, std::string unit, std::string adjacency, std::string size_class,
              std::vector<std::string> purposes, std::int64_t retention, std::vector<std::string> parents, std::string transformation,
              std::string actor) {
             return row(self.proposal(DatasetInfo{dataset, unit, adjacency, size_class, purposes, retention, parents, transformation, actor}));
           })
      .def("propose_record",
           [](Ledger& self, const std::string& kind, const std::map<std::string, std::string>& fields) {
             return row(self.proposal(LedgerRecord{kind, fields}));
           })
      .def("break_glass",
           [](Ledger& self, const std::string& action, const std::string& dataset, const std::string& reason, std::int64_t seconds) {
             return self.break_glass({known_action(action), dataset, reason, seconds});
           },
           Unlocked())
      .def("review", &Ledger::review, Unlocked())
      .def("release",
           [](Ledger& self, const std::string& kind, const std::string& artifact, const std::string& digest, const std::string& run,
              const std::string& dataset, const std::string& recipient) {
             return self.release({kind, artifact, digest, run, dataset, recipient});
           },
           Unlocked())
      .def("add_provider",
           [](Ledger& self, const std::string& issuer, const std::string& audience, const std::string& jwks, const std::string& algorithms,
              const std::string& mfa) { return self.add_provider({issuer, audience, jwks, algorithms, mfa}); },
           Unlocked())
      .def("open_session",
           [](Ledger& self, const std::string& issuer, const std::string& audience, const std::string& subject, const std::string& token,
              const std::string& expires, const PublicKey& key) {
             return self.open_session({issuer, audience, subject, token, expires, key});
           },
           Unlocked())
      .def("refuse_sign_in", &Ledger::refuse_sign_in, Unlocked())
      .def("authorise_export", &Ledger::authorise_export, Unlocked())
      .def("budget_status", [](Ledger& self, const std::string& name) {
        py::list list;
        for (const BudgetStatus& status : unlocked([&] { return self.budget_status(name); })) {
          const Budget& budget = status.budget;
          list.append(py::make_tuple(py::make_tuple(budget.epsilon, budget.delta, budget.sequence, budget.time, budget.warning,
                                                    budget.purpose, budget.actor, budget.team, budget.period),
                                     status.spent.lower, status.spent.upper, status.warns, status.since));
        }
        return list;
      });
}

}  // namespace hushgrad::python
