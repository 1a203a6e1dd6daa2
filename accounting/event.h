// What a mechanism did, as a value: the only thing an accountant reads and the ledger stores. Names and fields follow
// dp_accounting's events, so a record can be checked against that library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace hushgrad {

enum class EventKind { gaussian, poisson_sampled, self_composed, composed, no_op, non_private, unsupported };

/// An immutable tree of privacy events; copies share their children and may be read from any thread.
///
/// A noise multiplier is the standard deviation of the noise divided by the l2 sensitivity (no unit). An event says
/// nothing about adjacency; the accountants read it as add-or-remove-one.
/// A tree has at most max_depth levels and max_events events; larger ones are refused with InvalidArgument, so nobody
/// who walks an event can be made to overflow the stack or to run forever.
class Event {
 public:
  static constexpr int max_depth = 64;
  static constexpr std::size_t max_events = std::size_t{1} << 20;
  static constexpr std::size_t max_json_bytes = std::size_t{1} << 24;
  static constexpr std::size_t max_reason_bytes = 4096;

  /// Gaussian noise. noise_multiplier: finite and >= 0; 0 is legal and means no protection (epsilon is infinite).
  /// Throws InvalidArgument for a negative, infinite or NaN noise_multiplier.
  static Event gaussian(double noise_multiplier);
  /// `inner` on a batch that holds every sample independently with sampling_probability in [0, 1].
  static Event poisson_sampled(double sampling_probability, Event inner);
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
  /// The fields. Each throws InvalidState when the event is of another kind.
  double noise_multiplier() const;            // gaussian
  double sampling_probability() const;        // poisson_sampled
  std::int64_t count() const;                 // self_composed
  const Event& inner() const;                 // poisson_sampled, self_composed
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

 private:
  struct Node;
  explicit Event(std::shared_ptr<const Node> node);
  static Event make(Node node);

  std::shared_ptr<const Node> node_;
};

}  // namespace hushgrad
