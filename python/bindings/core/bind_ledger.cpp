// accounting/ledger for hushgrad.ledger: rows cross as tuples, events as their canonical JSON.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "accounting/ledger/ledger.h"
#include "accounting/ledger/note.h"
#include "core/bind.h"

namespace hushgrad::python {
namespace {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

std::optional<py::tuple> row(const std::optional<Budget>& budget) {
  if (!budget) return std::nullopt;
  return py::make_tuple(budget->epsilon, budget->delta, budget->sequence, budget->time, budget->warning, budget->purpose,
                        budget->actor, budget->team, budget->period);
}

py::tuple row(const Budget& budget) { return *row(std::optional(budget)); }

py::tuple row(const LedgerRecord& record) {
  return py::make_tuple(record.kind, record.fields, record.sequence, record.time);
}

std::optional<py::tuple> row(const std::optional<DatasetInfo>& info) {
  if (!info) return std::nullopt;
  return py::make_tuple(info->dataset, info->unit, info->adjacency, info->size_class, info->purposes, info->retention,
                        info->parents, info->transformation, info->actor);
}

py::tuple row(const RunRecord& run) {
  return py::make_tuple(run.run_id, run.info.dataset, run.info.purpose, run.info.actor, run.info.plan_json, run.status,
                        run.steps, run.refusals, run.sequence, run.started, run.finished, run.reserved, run.info.team);
}

py::tuple row(const StepRecord& step) {
  return py::make_tuple(step.sequence, step.run_id, step.dataset, step.event.to_json(), step.count, step.time);
}

// An entry somebody edited may hold any bytes.
py::tuple row(const LedgerEntry& entry) {
  return py::make_tuple(entry.sequence, entry.time, py::bytes(entry.kind), py::bytes(entry.payload), entry.previous,
                        entry.hash);
}

template <typename Record>
py::list rows(const std::vector<Record>& records) {
  py::list list;
  for (const auto& record : records) list.append(row(record));
  return list;
}

// Runs `body` without the GIL: a charge waits for the disk, and for other processes.
template <typename Body>
auto unlocked(Body&& body) {
  const py::gil_scoped_release release;
  return body();
}

}  // namespace

void bind_access(py::module_& m, py::class_<Ledger, std::shared_ptr<Ledger>>& ledger);

void bind_ledger(py::module_& m) {
  m.def("make_note_keys", [](const std::string& name) {
    const NoteKeys keys = make_note_keys(name);
    return py::make_tuple(keys.signer, keys.verifier);
  });
  m.def("sign_note", &sign_note);
  m.def("open_note", &open_note);
  m.def("head_text", [](const std::string& id, std::int64_t sequence, const std::string& hash) {
    return head_text(id, {sequence, hash});
  });
  m.def("head_in", [](const std::string& text, const std::string& id) {
    const LedgerHead head = head_in(text, id);
    return py::make_tuple(head.sequence, head.hash);
  });
  using Name = std::optional<std::string>;
  py::class_<Ledger, std::shared_ptr<Ledger>> ledger(m, "Ledger", "The budget ledger; use hushgrad.ledger.Ledger instead.");
  bind_access(m, ledger);
  ledger
      .def(py::init(&Ledger::open), py::arg("path"), py::arg("create") = true, Unlocked())
      .def_property_readonly("path", &Ledger::path)
      .def_property_readonly("durable", &Ledger::durable)
      .def("id", &Ledger::id, Unlocked())
      .def("set_budget",
           [](Ledger& self, std::string dataset, double epsilon, double delta, std::string purpose, std::string actor,
              double warning, std::string set_by, std::string team, std::string period) {
             self.set_budget({dataset, epsilon, delta, purpose, actor, warning, set_by, team, period});
           },
           Unlocked())
      .def("budgets", [](Ledger& self, const std::string& name) { return rows(unlocked([&] { return self.budgets(name); })); })
      .def("describe_dataset",
           [](Ledger& self, std::string dataset, std::string unit, std::string adjacency, std::string size_class,
              std::vector<std::string> purposes, std::int64_t retention, std::vector<std::string> parents,
              std::string transformation, std::string actor) {
             self.describe_dataset({dataset, unit, adjacency, size_class, purposes, retention, parents, transformation, actor});
           },
           Unlocked())
      .def("dataset_info",
           [](Ledger& self, const std::string& name) { return row(unlocked([&] { return self.dataset_info(name); })); })
      .def("record",
           [](Ledger& self, const std::string& kind, const std::map<std::string, std::string>& fields) {
             return self.record({kind, fields});
           },
           Unlocked())
      .def("records", [](Ledger& self, const std::string& kind) { return rows(unlocked([&] { return self.records(kind); })); })
      .def("budget", [](Ledger& self, const std::string& name) { return row(unlocked([&] { return self.budget(name); })); })
      .def("begin_run",
           [](Ledger& self, std::string dataset, std::string purpose, std::string actor, std::string plan_json, std::string team) {
             return unlocked([&] { return self.begin_run({dataset, purpose, actor, plan_json, team}); });
           })
      .def("charge",
           [](Ledger& self, const std::string& run_id, const std::string& event_json) {
             unlocked([&] { self.charge(run_id, Event::from_json(event_json)); });
           })
      .def("charge_step",
           [](Ledger& self, const std::string& run_id, const std::string& event_json) {
             unlocked([&] { self.charge_step(run_id, Event::from_json(event_json)); });
           })
      .def("settle", &Ledger::settle, Unlocked())
      .def("limit_block", &Ledger::limit_block, Unlocked())
      .def("finish_run", &Ledger::finish_run, Unlocked())
      .def("spent",
           [](Ledger& self, const std::string& dataset, double delta) {
             const Interval epsilon = unlocked([&] { return self.spent(dataset, delta); });
             return py::make_tuple(epsilon.lower, epsilon.upper);
           })
      .def("run_spent",
           [](Ledger& self, const std::string& run_id, double delta) {
             const Interval epsilon = unlocked([&] { return self.run_spent(run_id, delta); });
             return py::make_tuple(epsilon.lower, epsilon.upper);
           })
      .def("dataset_history", [](Ledger& self, const std::string& name) { return self.dataset_history(name).to_json(); },
           Unlocked())
      .def("run_history", [](Ledger& self, const std::string& run_id) { return self.run_history(run_id).to_json(); },
           Unlocked())
      .def("datasets", &Ledger::datasets, Unlocked())
      .def("runs", [](Ledger& self, const Name& name) { return rows(unlocked([&] { return self.runs(name); })); })
      .def("run", [](Ledger& self, const std::string& run_id) { return row(unlocked([&] { return self.run(run_id); })); })
      .def("steps",
           [](Ledger& self, const Name& name, const Name& run_id) {
             return rows(unlocked([&] { return self.steps(name, run_id); }));
           })
      .def("head",
           [](Ledger& self) {
             const LedgerHead head = unlocked([&] { return self.head(); });
             return py::make_tuple(head.sequence, head.hash);
           })
      .def("contains",
           [](Ledger& self, std::int64_t sequence, const std::string& hash) {
             return unlocked([&] { return self.contains({sequence, hash}); });
           })
      .def("expect",
           [](Ledger& self, std::int64_t sequence, const std::string& hash) {
             return unlocked([&] { return self.expect({sequence, hash}); });
           })
      .def("missing",
           [](Ledger& self) {
             py::list list;
             for (const LedgerHead& head : unlocked([&] { return self.missing(); })) list.append(py::make_tuple(head.sequence, head.hash));
             return list;
           })
      .def("repair", &Ledger::repair, Unlocked())
      .def("move_to", &Ledger::move_to, Unlocked())
      .def_static("import_entries",
                  [](const std::string& path,
                     const std::vector<std::tuple<std::int64_t, std::int64_t, std::string, std::string, std::string, std::string>>& rows) {
                    std::vector<LedgerEntry> entries;
                    for (const auto& [sequence, time, kind, payload, previous, hash] : rows) {
                      entries.push_back({sequence, time, kind, payload, previous, hash});
                    }
                    return Ledger::import(path, entries);
                  },
                  Unlocked())
      .def("entries",
           [](Ledger& self, std::int64_t first, std::int64_t limit) {
             return rows(unlocked([&] { return self.entries(first, limit); }));
           })
      .def("verify", [](Ledger& self) {
        const VerifyResult verdict = unlocked([&] { return self.verify(); });
        return py::make_tuple(verdict.ok, verdict.entries, verdict.first_bad, verdict.reason);
      });
}

}  // namespace hushgrad::python
