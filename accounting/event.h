// What a mechanism did, as a value: the only thing an accountant reads and the ledger stores. Names and fields follow
// dp_accounting's events where it has them, so a record can be checked against that library. A stored event never
// changes its meaning: a new meaning is a new kind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hushgrad {

enum class EventKind {
  gaussian,
  laplace,
  discrete_gaussian,
  mixture_of_gaussians,
  poisson_sampled,
  truncated_subsampled_gaussian,
  sampled_without_replacement,
  shuffled_epoch,
  balls_in_bins,
  matrix_factorization,
  tree_aggregation,
  group,
  adaptive_clipping,
  repeat_and_select,
  finite_precision,
  self_composed,
  composed,
  no_op,
  non_private,
  unsupported,
};

/// An immutable tree of privacy events; copies share their children and may be read from any thread.
///
/// A noise multiplier is the standard deviation of the noise divided by the largest norm of what one record contributes
/// (l2; no unit). So an event says nothing about adjacency: the question does (accountants/adjacency.h), and under
/// replace-one two contributions count. In every event `inner` may be any event that its accountants support.
/// A tree has at most max_depth levels and max_events events; larger ones are refused with InvalidArgument, so nobody
/// who walks an event can be made to overflow the stack or to run forever.
///
/// Every maker throws InvalidArgument for a value outside its domain (NaN and infinities included).
class Event {
 public:
  static constexpr int max_depth = 64;
  static constexpr std::size_t max_events = std::size_t{1} << 20;
  static constexpr std::size_t max_json_bytes = std::size_t{1} << 24;
  static constexpr std::size_t max_reason_bytes = 4096;
  static constexpr std::size_t max_list = std::size_t{1} << 16;

  /// Gaussian noise. noise_multiplier: finite and >= 0; 0 is legal and means no protection (epsilon is infinite).
  static Event gaussian(double noise_multiplier);
  /// Laplace noise of scale noise_multiplier * (largest |contribution| of a record) on one number. noise_multiplier >= 0.
  /// A vector is a composition of its coordinates, each with its own multiplier.
  static Event laplace(double noise_multiplier);
  /// Discrete Gaussian noise N_Z(0, standard_deviation^2) (Canonne, Kamath, Steinke 2020) on one integer to which a
  /// record contributes an integer of absolute value at most `sensitivity` >= 1.
  static Event discrete_gaussian(double standard_deviation, std::int64_t sensitivity);
  /// Without the record N(0, standard_deviation^2), with it the mixture that draws N(sensitivities[i],
  /// standard_deviation^2) with sampling_probs[i]. Sensitivities >= 0; probabilities add up to 1 (within 1e-9).
  static Event mixture_of_gaussians(double standard_deviation, std::vector<double> sensitivities,
                                    std::vector<double> sampling_probs);
  /// `inner` on a batch that holds every sample independently with sampling_probability in [0, 1].
  static Event poisson_sampled(double sampling_probability, Event inner);
  /// Gaussian noise on a Poisson batch of dataset_size >= 1 records that is cut to a random subset of
  /// truncated_batch_size >= 0 records where it is larger. dataset_size counts the record in question: under
  /// add-or-remove-one it is that of the larger neighbour.
  static Event truncated_subsampled_gaussian(std::int64_t dataset_size, double sampling_probability,
                                             std::int64_t truncated_batch_size, double noise_multiplier);
  /// `inner` on a uniformly random subset of sample_size out of source_dataset_size records, 0 <= sample_size <=
  /// source_dataset_size >= 1. The sizes are public: the event has no meaning under add-or-remove-one.
  static Event sampled_without_replacement(std::int64_t source_dataset_size, std::int64_t sample_size, Event inner);
  /// One pass over the records in random order, cut into a public number of batches; every record is in exactly one
  /// batch and `inner` is released of each. No amplification is claimed.
  static Event shuffled_epoch(Event inner);
  /// One pass in which every record chooses one of `bins` >= 1 batches uniformly and independently, and `inner` is
  /// released of each batch ("balls in bins", random allocation).
  static Event balls_in_bins(std::int64_t bins, Event inner);
  /// Gaussian noise correlated over `steps` >= 1 steps: releases C x + z with C lower-triangular Toeplitz of first column
  /// `coefficients` (c[0] > 0, non-negative, non-increasing), x the steps' sums and z independent with deviation
  /// noise_multiplier. A record takes part at most max_participations >= 1 times, at least min_separation >= 1 steps
  /// apart. One coefficient is plain DP-SGD without sampling; BLT and banded strategies are given by their coefficients.
  static Event matrix_factorization(double noise_multiplier, std::vector<double> coefficients, std::int64_t steps,
                                    std::int64_t min_separation, std::int64_t max_participations);
  /// Binary tree aggregation restarted after each of step_counts >= 0 steps (Kairouz et al. 2021, Appendix D); a record
  /// takes part once in all of them.
  static Event tree_aggregation(double noise_multiplier, std::vector<std::int64_t> step_counts);
  /// `inner`, where up to group_size >= 1 records belong to one user whose privacy is in question.
  static Event group(std::int64_t group_size, Event inner);
  /// A clipped sum with noise_multiplier and, on the same batch, the sum over its records of (b - 1/2), b the bit
  /// "norm <= clip", with Gaussian noise of deviation count_noise_stddev (Andrew et al. 2021).
  static Event adaptive_clipping(double noise_multiplier, double count_noise_stddev);
  /// `inner` run a random number of times, only the best result released (Papernot and Steinke 2022). mean >= 1 of the
  /// number of runs; shape: >= 0 of the truncated negative binomial (0 logarithmic, 1 geometric), infinity: Poisson.
  static Event repeat_and_select(Event inner, double mean, double shape);
  /// `inner` released by a machine whose noise is not exactly what `inner` says. Outside an event of probability
  /// `failure` in [0, 1], the Renyi divergences of `order` > 1 between the real law of the release and the ideal one, in
  /// both directions and given everything before, are at most `divergence` >= 0.
  static Event finite_precision(Event inner, double order, double divergence, double failure);
  /// `inner` run `count` >= 0 times with fresh randomness, adaptively.
  static Event self_composed(Event inner, std::int64_t count);
  /// All of `events`, adaptively. An empty list is no event at all.
  static Event composed(std::vector<Event> events);
  /// Touched no private data.
  static Event no_op();
  /// Released private data without protection.
  static Event non_private();
  /// Something that no accountant here can bound; `why` is UTF-8, at most max_reason_bytes, and must hold no secret.
  static Event unsupported(std::string why);

  EventKind kind() const;
  /// The name in JSON: "GaussianDpEvent", "PoissonSampledDpEvent", ...
  std::string_view type_name() const;

  /// The fields, by the names of the makers' parameters. Each throws InvalidState when the event has no such field.
  double number(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  const std::vector<double>& numbers(std::string_view name) const;
  std::vector<std::int64_t> integers(std::string_view name) const;
  double noise_multiplier() const { return number("noise_multiplier"); }
  double sampling_probability() const { return number("sampling_probability"); }
  std::int64_t count() const { return integer("count"); }
  const Event& inner() const;
  const std::vector<Event>& events() const;   // composed
  const std::string& reason() const;          // unsupported

  /// Canonical JSON: keys sorted, no white space, shortest decimals that read back to the same double. Equal events
  /// give equal bytes.
  std::string to_json() const;
  /// Reads what to_json() writes; key order and white space are free. Throws InvalidArgument on a missing, unknown or
  /// repeated key, an unknown type, a value outside its domain, or text beyond max_json_bytes or max_depth.
  static Event from_json(std::string_view json);

  /// Same tree, not merely the same privacy.
  friend bool operator==(const Event& a, const Event& b);

  /// What a field of an event holds. Lists of integers are kept as numbers.
  enum class FieldType { number, integer, numbers, integers, event, events, text };
  struct Field {
    std::string_view name;
    FieldType type;
  };
  /// The fields of this event's kind, in the order of its maker's parameters.
  const std::vector<Field>& fields() const;

 private:
  struct Node;
  struct Schema;
  explicit Event(std::shared_ptr<const Node> node);
  static Event make(Node node);
  static const std::vector<Schema>& schemas();
  static const Schema& schema(EventKind kind);
  static void check(const Node& node);
  std::size_t place(std::string_view name, FieldType type) const;
  friend struct EventReader;

  std::shared_ptr<const Node> node_;
};

}  // namespace hushgrad
