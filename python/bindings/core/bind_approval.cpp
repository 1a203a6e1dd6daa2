// dpcore/keys/approval for hushgrad.approval: operations and approvals cross as their texts.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/bind.h"
#include "dpcore/keys/approval.h"

namespace hushgrad::python {

namespace py = pybind11;

void bind_approval(py::module_& m) {
  using Scope = std::map<std::string, std::string>;
  m.def("make_operation",
        [](const std::string& action, const Scope& scope, const std::string& reason, const std::string& requester,
           std::int64_t lifetime) { return to_text(make_operation(action, scope, reason, requester, lifetime)); },
        py::arg("action"), py::arg("scope"), py::arg("reason"), py::arg("requester"), py::arg("lifetime"));
  m.def("check_operation", [](const std::string& text) { return to_text(operation_from(text)); }, py::arg("text"));
  m.def("check_approval", [](const std::string& text) { return to_text(approval_from(text)); }, py::arg("text"));
  m.def("approve",
        [](const std::string& text, const SigningKey& approver) {
          return to_text(approve(operation_from(text), approver));
        },
        py::arg("operation"), py::arg("approver"));
  m.def("check_approvals",
        [](const std::string& text, const std::vector<std::string>& approvals, const std::vector<PublicKey>& approvers,
           int quorum, std::int64_t now, const std::set<std::string>& used_nonces) {
          std::vector<Approval> given;
          for (const std::string& approval : approvals) given.push_back(approval_from(approval));
          return check_approvals(operation_from(text), given, {approvers, quorum, now, used_nonces});
        },
        py::arg("operation"), py::arg("approvals"), py::arg("approvers"), py::arg("quorum"), py::arg("now"),
        py::arg("used_nonces"));
  m.def("check_scope",
        [](const std::string& text, const std::string& action, const Scope& scope, const std::string& requester) {
          check_scope(operation_from(text), action, scope, requester);
        },
        py::arg("operation"), py::arg("action"), py::arg("scope"), py::arg("requester"));
}

}  // namespace hushgrad::python
