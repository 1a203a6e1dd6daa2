#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "core/bind.h"
#include "dpcore/error.h"
#include "dpcore/random/insecure_seed.h"
#include "dpcore/sampling/fixed_size.h"
#include "dpcore/sampling/poisson.h"
#include "dpcore/sampling/random_allocation.h"
#include "dpcore/sampling/shuffled.h"
#include "dpcore/sampling/truncated_poisson.h"
#include "dpcore/sampling/users.h"

namespace py = pybind11;

namespace hushgrad::python {
namespace {

using Seed = std::optional<std::uint64_t>;

// A generator for each Python object, so that no two objects or processes share a stream.
class Generator {
 public:
  explicit Generator(Seed insecure_seed) {
    if (insecure_seed) {
      insecure_ = std::make_unique<InsecureSeed>(*insecure_seed);
    } else {
      secure_ = std::make_unique<Csprng>();
    }
  }
  Csprng& stream() { return insecure_ ? insecure_->stream() : *secure_; }
  bool insecure() const { return insecure_ != nullptr; }

 private:
  std::unique_ptr<Csprng> secure_;
  std::unique_ptr<InsecureSeed> insecure_;
};

// Under the interpreter lock: the generator serves one thread at a time.
template <typename Sampler>
struct Owning {
  Sampler sampler;
  Generator generator;
};

// Whatever has a numerator and a denominator (fractions.Fraction, int), or a float, which is rounded down.
SamplingRate rate_of(const py::object& rate) {
  if (PyFloat_Check(rate.ptr())) return SamplingRate::from_double(rate.cast<double>());
  try {
    return {rate.attr("numerator").cast<std::int64_t>(), rate.attr("denominator").cast<std::int64_t>()};
  } catch (const py::error_already_set&) {
  } catch (const py::cast_error&) {
  }
  throw InvalidArgument("[sampling_rate] Expected a Fraction with a denominator of at most 2^62, or a float, received something else. "
                        "Use fractions.Fraction(batch_size, population).");
}

py::object fraction(const SamplingRate& rate) {
  return py::module_::import("fractions").attr("Fraction")(rate.numerator(), rate.denominator());
}

template <typename Sampler>
py::class_<Owning<Sampler>> bind_sampler(py::module_& m, const char* name, const char* doc) {
  using Owned = Owning<Sampler>;
  return py::class_<Owned>(m, name, doc)
      .def("draw", [](Owned& s) { return s.sampler.draw(s.generator.stream()); },
           "The next batch: a list of record numbers, possibly empty. Its members and its size are private data.")
      .def_property_readonly("population", [](const Owned& s) { return s.sampler.population(); })
      .def_property_readonly("expected_batch_size", [](const Owned& s) { return s.sampler.expected_batch_size(); })
      .def_property_readonly("steps_per_epoch", [](const Owned& s) { return s.sampler.steps_per_epoch(); })
      .def_property_readonly("insecure", [](const Owned& s) { return s.generator.insecure(); }, "True if made with insecure_seed.");
}

template <typename Sampler>
void bind_epochs(py::class_<Owning<Sampler>>& bound) {
  bound.def("begin_epoch", [](Owning<Sampler>& s) { s.sampler.begin_epoch(s.generator.stream()); },
            "Begins a new epoch, whatever is left of the last.")
      .def_property_readonly("epoch", [](const Owning<Sampler>& s) { return s.sampler.epoch(); }, "Epochs begun so far.");
}

constexpr const char* kPoissonDoc =
    "Poisson batches: every record is in a batch independently with probability sampling_rate, exactly.\n"
    "\n"
    "population: records, >= 1. sampling_rate: a Fraction (or int) in (0, 1], exact, or a float, rounded down to a multiple of\n"
    "2^-62. Raises InvalidArgument otherwise. Cost follows the batch for rates below 1/64, the data set above.\n"
    "insecure_seed: makes the batches repeatable and the privacy void; tests only.\n"
    "Each object has its own cryptographically secure generator, which a forked child does not continue.";

constexpr const char* kTruncatedDoc =
    "Poisson batches, cut to a uniform choice of max_batch_size records where they are larger. Charged as truncated Poisson.\n"
    "max_batch_size: >= 1; the rest as in PoissonSampler.";

constexpr const char* kFixedSizeDoc =
    "Every set of batch_size records is equally likely, independently of all other batches. Charged as sampling without\n"
    "replacement, for a record replaced by another. batch_size: in [1, population]. Raises InvalidArgument otherwise.";

constexpr const char* kShuffledDoc =
    "Epochs in which every record comes once, in a uniformly random order (or, with shuffle=False, in the given one), cut into\n"
    "batches of batch_size; the last may be smaller. Charged without amplification, once an epoch. batch_size: in\n"
    "[1, population]. Raises InvalidArgument otherwise. Memory: 8 bytes a record.";

constexpr const char* kAllocationDoc =
    "Every record takes part in `participations` of an epoch's `steps` batches, each choice equally likely; one is balls in\n"
    "bins. Charged once an epoch, as random allocation. participations: in [1, steps]. Raises InvalidArgument otherwise.";

constexpr const char* kUsersDoc =
    "Poisson batches of users: each user is in a batch independently with probability sampling_rate, with all records or a\n"
    "uniform choice of max_records_per_user of them.\n"
    "\n"
    "owners: the user of every record, any integers. The guarantee is for a user if the user's whole contribution is clipped.\n"
    "Raises InvalidArgument without a record or for max_records_per_user < 1.";

void bind_users(py::module_& m) {
  using Owned = Owning<UserSampler>;
  py::class_<Owned>(m, "UserSampler", kUsersDoc)
      .def(py::init([](const std::vector<std::int64_t>& owners, std::int64_t max_records_per_user, const py::object& sampling_rate, Seed seed) {
             return Owned{UserSampler(UserRecords(owners, max_records_per_user), rate_of(sampling_rate)), Generator(seed)};
           }),
           py::arg("owners"), py::arg("max_records_per_user"), py::arg("sampling_rate"), py::kw_only(), py::arg("insecure_seed") = py::none())
      .def("draw",
           [](Owned& s) {
             UserSampler::Draw draw = s.sampler.draw(s.generator.stream());
             return std::make_pair(std::move(draw.records), std::move(draw.sizes));
           },
           "(records, sizes): record numbers, users one after the other, and how many each user has. Private data.")
      .def_property_readonly("users", [](const Owned& s) { return s.sampler.users().users(); })
      .def_property_readonly("max_records_per_user", [](const Owned& s) { return s.sampler.users().max_records_per_user(); })
      .def_property_readonly("sampling_rate", [](const Owned& s) { return fraction(s.sampler.rate()); })
      .def_property_readonly("expected_batch_size", [](const Owned& s) { return s.sampler.expected_batch_size(); }, "In users.")
      .def_property_readonly("steps_per_epoch", [](const Owned& s) { return s.sampler.steps_per_epoch(); })
      .def_property_readonly("insecure", [](const Owned& s) { return s.generator.insecure(); }, "True if made with insecure_seed.");
}

}  // namespace

void bind_sampling(py::module_& m) {
  bind_sampler<PoissonSampler>(m, "PoissonSampler", kPoissonDoc)
      .def(py::init([](std::int64_t population, const py::object& sampling_rate, Seed seed) {
             return Owning<PoissonSampler>{PoissonSampler(population, rate_of(sampling_rate)), Generator(seed)};
           }),
           py::arg("population"), py::arg("sampling_rate"), py::kw_only(), py::arg("insecure_seed") = py::none())
      .def_property_readonly("sampling_rate", [](const Owning<PoissonSampler>& s) { return fraction(s.sampler.rate()); })
      .def_property_readonly("charged_rate", [](const Owning<PoissonSampler>& s) { return s.sampler.rate().charged(); },
                             "The smallest float that is not below sampling_rate.");
  bind_sampler<TruncatedPoissonSampler>(m, "TruncatedPoissonSampler", kTruncatedDoc)
      .def(py::init([](std::int64_t population, const py::object& sampling_rate, std::int64_t max_batch_size, Seed seed) {
             return Owning<TruncatedPoissonSampler>{TruncatedPoissonSampler(population, rate_of(sampling_rate), max_batch_size), Generator(seed)};
           }),
           py::arg("population"), py::arg("sampling_rate"), py::arg("max_batch_size"), py::kw_only(), py::arg("insecure_seed") = py::none())
      .def_property_readonly("sampling_rate", [](const Owning<TruncatedPoissonSampler>& s) { return fraction(s.sampler.rate()); })
      .def_property_readonly("max_batch_size", [](const Owning<TruncatedPoissonSampler>& s) { return s.sampler.max_batch_size(); });
  bind_sampler<FixedSizeSampler>(m, "FixedSizeSampler", kFixedSizeDoc)
      .def(py::init([](std::int64_t population, std::int64_t batch_size, Seed seed) {
             return Owning<FixedSizeSampler>{FixedSizeSampler(population, batch_size), Generator(seed)};
           }),
           py::arg("population"), py::arg("batch_size"), py::kw_only(), py::arg("insecure_seed") = py::none());
  auto shuffled = bind_sampler<ShuffledSampler>(m, "ShuffledSampler", kShuffledDoc);
  shuffled.def(py::init([](std::int64_t population, std::int64_t batch_size, bool shuffle, Seed seed) {
                 return Owning<ShuffledSampler>{ShuffledSampler(population, batch_size, shuffle ? Order::shuffled : Order::sequential), Generator(seed)};
               }),
               py::arg("population"), py::arg("batch_size"), py::arg("shuffle") = true, py::kw_only(), py::arg("insecure_seed") = py::none());
  bind_epochs(shuffled);
  auto allocation = bind_sampler<RandomAllocationSampler>(m, "RandomAllocationSampler", kAllocationDoc);
  allocation.def(py::init([](std::int64_t population, std::int64_t steps, std::int64_t participations, Seed seed) {
                   return Owning<RandomAllocationSampler>{RandomAllocationSampler(population, steps, participations), Generator(seed)};
                 }),
                 py::arg("population"), py::arg("steps"), py::arg("participations") = 1, py::kw_only(), py::arg("insecure_seed") = py::none());
  bind_epochs(allocation);
  bind_users(m);
}

}  // namespace hushgrad::python
