#include "accounting/event.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"

namespace hushgrad {

using Json = nlohmann::json;

struct Event::Schema {
  EventKind kind;
  std::string_view maker;
  std::string_view type_name;
  std::vector<Field> fields;
};

// One list a field, in the order of the schema: single values are lists of one.
struct Event::Node {
  EventKind kind;
  std::vector<std::vector<double>> numbers = {};  // numbers, integers up to 2^53 and lists of either
  std::int64_t count = 0;                         // of SelfComposedDpEvent alone: all 64 bits count
  std::vector<Event> children = {};               // the inner event, or all events of a composition
  std::string reason = {};
  int depth = 1;
  std::size_t size = 1;  // events in the tree; shared ones count every time, as a walk meets them
};

const std::vector<Event::Schema>& Event::schemas() {
  using enum EventKind;
  using enum FieldType;
  // A new event is one line here, a maker, a check, and its reading in accountants/spending.cpp.
  static const std::vector<Schema> list{
      {gaussian, "gaussian", "GaussianDpEvent", {{"noise_multiplier", number}}},
      {laplace, "laplace", "LaplaceDpEvent", {{"noise_multiplier", number}}},
      {discrete_gaussian, "discrete_gaussian", "DiscreteGaussianDpEvent",
       {{"standard_deviation", number}, {"sensitivity", integer}}},
      {mixture_of_gaussians, "mixture_of_gaussians", "MixtureOfGaussiansDpEvent",
       {{"standard_deviation", number}, {"sensitivities", numbers}, {"sampling_probs", numbers}}},
      {poisson_sampled, "poisson_sampled", "PoissonSampledDpEvent", {{"sampling_probability", number}, {"event", event}}},
      {truncated_subsampled_gaussian, "truncated_subsampled_gaussian", "TruncatedSubsampledGaussianDpEvent",
       {{"dataset_size", integer}, {"sampling_probability", number}, {"truncated_batch_size", integer},
        {"noise_multiplier", number}}},
      {sampled_without_replacement, "sampled_without_replacement", "SampledWithoutReplacementDpEvent",
       {{"source_dataset_size", integer}, {"sample_size", integer}, {"event", event}}},
      {shuffled_epoch, "shuffled_epoch", "ShuffledEpochDpEvent", {{"event", event}}},
      {balls_in_bins, "balls_in_bins", "BallsInBinsDpEvent", {{"bins", integer}, {"event", event}}},
      {matrix_factorization, "matrix_factorization", "MatrixFactorizationDpEvent",
       {{"noise_multiplier", number}, {"coefficients", numbers}, {"steps", integer}, {"min_separation", integer},
        {"max_participations", integer}}},
      {tree_aggregation, "tree_aggregation", "SingleEpochTreeAggregationDpEvent",
       {{"noise_multiplier", number}, {"step_counts", integers}}},
      {group, "group", "GroupDpEvent", {{"group_size", integer}, {"event", event}}},
      {adaptive_clipping, "adaptive_clipping", "AdaptiveClippingDpEvent",
       {{"noise_multiplier", number}, {"count_noise_stddev", number}}},
      {repeat_and_select, "repeat_and_select", "RepeatAndSelectDpEvent",
       {{"event", event}, {"mean", number}, {"shape", number}}},
      {finite_precision, "finite_precision", "FinitePrecisionDpEvent",
       {{"event", event}, {"order", number}, {"divergence", number}, {"failure", number}}},
      {self_composed, "self_composed", "SelfComposedDpEvent", {{"event", event}, {"count", integer}}},
      {composed, "composed", "ComposedDpEvent", {{"events", events}}},
      {no_op, "no_op", "NoOpDpEvent", {}},
      {non_private, "non_private", "NonPrivateDpEvent", {}},
      {unsupported, "unsupported", "UnsupportedDpEvent", {{"reason", text}}},
  };
  return list;
}

const Event::Schema& Event::schema(EventKind kind) { return schemas()[static_cast<std::size_t>(kind)]; }

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kLargestInteger = (std::int64_t{1} << 53) - 1;  // doubles tell all integers up to here apart

// Text from a file may hold anything; only its head, made printable, goes into a message.
std::string printable(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, 40)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  return out;
}

std::string shortest(double value) {
  std::array<char, 32> buffer;
  auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  std::string text(buffer.data(), end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string json_number(double value) { return value == kInfinity ? "\"infinity\"" : shortest(value); }

std::string json_string(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    throw InvalidArgument(
        "[Event.unsupported] Expected UTF-8 text, received other bytes. Describe the event in plain text.");
  }
}

// Refuses depth and repeated keys while parsing, which the finished document no longer shows.
class StrictReader {
 public:
  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    // One level of events takes two of JSON where it is a list.
    if (depth > 2 * Event::max_depth + 2) {
      throw InvalidArgument(message("[Event.from_json] Expected at most ", Event::max_depth,
                                    " levels of events, received more. Compose the events flat."));
    }
    if (event == Json::parse_event_t::object_start) keys_.emplace_back();
    if (event == Json::parse_event_t::object_end) keys_.pop_back();
    if (event == Json::parse_event_t::key && !keys_.back().insert(parsed.get<std::string>()).second) {
      throw InvalidArgument(message("[Event.from_json] Expected every key once, received '",
                                    printable(parsed.get<std::string>()), "' twice. Remove one of them."));
    }
    return true;
  }

 private:
  std::vector<std::set<std::string>> keys_;
};

const Json& field(const Json& object, std::string_view name) {
  auto it = object.find(name);
  if (it == object.end()) {
    throw InvalidArgument(message("[Event.from_json] Expected the field '", name,
                                  "', received an event without it. Write every field of the type."));
  }
  return *it;
}

[[noreturn]] void refuse(std::string_view name, const char* expected, const Json& value) {
  throw InvalidArgument(message("[Event.from_json] Expected ", expected, " in '", name, "', received ",
                                value.type_name(), ". Look at the event's documentation."));
}

double number_of(const Json& value, std::string_view name) {
  if (value.is_string() && value.get<std::string>() == "infinity") return kInfinity;
  if (!value.is_number()) refuse(name, "a number", value);
  return value.get<double>();
}

std::int64_t integer_of(const Json& value, std::string_view name) {
  bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
  if (!fits) refuse(name, "a 64-bit integer without a point", value);
  return value.get<std::int64_t>();
}

const Json& list_of(const Json& value, std::string_view name) {
  if (!value.is_array()) refuse(name, "a list", value);
  return value;
}

std::vector<double> doubles(const std::vector<std::int64_t>& integers) {
  return std::vector<double>(integers.begin(), integers.end());
}

}  // namespace

Event::Event(std::shared_ptr<const Node> node) : node_(std::move(node)) {}

Event Event::make(Node node) {
  if (node.kind != EventKind::self_composed) node.numbers.resize(schema(node.kind).fields.size());
  for (auto& list : node.numbers) {
    for (double& value : list) value += 0.0;  // turns -0 into 0
  }
  check(node);
  for (const Event& child : node.children) {
    node.depth = std::max(node.depth, child.node_->depth + 1);
    node.size += child.node_->size;
  }
  if (node.depth > max_depth) {
    throw InvalidArgument(message("[Event] Expected at most ", max_depth, " levels of events, received ", node.depth,
                                  ". Compose the events flat."));
  }
  if (node.size > max_events) {
    throw InvalidArgument(message("[Event] Expected at most ", max_events, " events in a tree, received ", node.size,
                                  ". Use SelfComposedDpEvent for repeated events."));
  }
  return Event(std::make_shared<const Node>(std::move(node)));
}

namespace {

// Checks of one maker's arguments; the messages carry its name.
class Checks {
 public:
  explicit Checks(std::string_view maker) : maker_(maker) {}

  void expect(bool ok, std::string_view name, const char* expected, double received) const {
    if (ok) return;
    throw InvalidArgument(message("[Event.", maker_, "] Expected ", name, " ", expected, ", received ", received,
                                  ". Look at the event's documentation."));
  }
  void noise(double value, std::string_view name = "noise_multiplier") const {
    expect(std::isfinite(value) && value >= 0, name, "finite and >= 0", value);
  }
  void probability(double value, std::string_view name) const {
    expect(value >= 0 && value <= 1, name, "in [0, 1]", value);
  }
  void integer(double value, std::string_view name, double least, double most = kLargestInteger) const {
    if (value >= least && value <= most && value == std::floor(value)) return;
    throw InvalidArgument(message("[Event.", maker_, "] Expected an integer ", name, " in [", least, ", ", most,
                                  "], received ", value, ". Look at the event's documentation."));
  }
  void list(const std::vector<double>& values, std::string_view name) const {
    expect(!values.empty() && values.size() <= Event::max_list, name, "of 1 to 65536 values",
           static_cast<double>(values.size()));
  }

 private:
  std::string_view maker_;
};

void check_mixture(const Checks& checks, const std::vector<double>& sensitivities, const std::vector<double>& probs) {
  checks.list(sensitivities, "sensitivities");
  checks.expect(sensitivities.size() == probs.size(), "sampling_probs", "as many as sensitivities",
                static_cast<double>(probs.size()));
  double sum = 0;
  for (double value : sensitivities) checks.noise(value, "sensitivities");
  for (double value : probs) {
    checks.probability(value, "sampling_probs");
    sum += value;
  }
  checks.expect(std::abs(sum - 1) <= 1e-9, "sampling_probs", "with the sum 1", sum);
}

void check_coefficients(const Checks& checks, const std::vector<double>& coefficients) {
  checks.list(coefficients, "coefficients");
  checks.expect(coefficients[0] > 0, "coefficients", "that start above 0", coefficients[0]);
  double before = kInfinity;
  for (double value : coefficients) {
    // The worst pattern of participations is known for such columns only (Kalinin and Lampert 2024, Theorem 2).
    checks.expect(std::isfinite(value) && value >= 0 && value <= before, "coefficients",
                  "finite, non-negative and non-increasing", value);
    before = value;
  }
}

}  // namespace

void Event::check(const Node& node) {
  const Checks checks(schema(node.kind).maker);
  const auto at = [&](std::size_t i) { return node.numbers[i][0]; };
  switch (node.kind) {
    case EventKind::gaussian:
    case EventKind::laplace: return checks.noise(at(0));
    case EventKind::discrete_gaussian:
      checks.noise(at(0), "standard_deviation");
      return checks.integer(at(1), "sensitivity", 1);
    case EventKind::mixture_of_gaussians:
      checks.noise(at(0), "standard_deviation");
      return check_mixture(checks, node.numbers[1], node.numbers[2]);
    case EventKind::poisson_sampled: return checks.probability(at(0), "sampling_probability");
    case EventKind::truncated_subsampled_gaussian:
      checks.integer(at(0), "dataset_size", 1);
      checks.probability(at(1), "sampling_probability");
      checks.integer(at(2), "truncated_batch_size", 0);
      return checks.noise(at(3));
    case EventKind::sampled_without_replacement:
      checks.integer(at(0), "source_dataset_size", 1);
      return checks.integer(at(1), "sample_size", 0, at(0));
    case EventKind::balls_in_bins: return checks.integer(at(0), "bins", 1);
    case EventKind::matrix_factorization:
      checks.noise(at(0));
      check_coefficients(checks, node.numbers[1]);
      checks.integer(at(2), "steps", 1, 1e7);
      checks.integer(at(3), "min_separation", 1);
      return checks.integer(at(4), "max_participations", 1);
    case EventKind::tree_aggregation:
      checks.noise(at(0));
      checks.list(node.numbers[1], "step_counts");
      for (double steps : node.numbers[1]) checks.integer(steps, "step_counts", 0);
      return;
    case EventKind::group: return checks.integer(at(0), "group_size", 1, 4096);
    case EventKind::adaptive_clipping:
      checks.noise(at(0));
      return checks.noise(at(1), "count_noise_stddev");
    case EventKind::repeat_and_select:
      checks.expect(std::isfinite(at(1)) && at(1) >= 1, "mean", "finite and >= 1", at(1));
      return checks.expect(at(2) >= 0, "shape", ">= 0 (infinity: Poisson)", at(2));
    case EventKind::finite_precision:
      checks.expect(std::isfinite(at(1)) && at(1) > 1, "order", "finite and > 1", at(1));
      checks.noise(at(2), "divergence");
      return checks.probability(at(3), "failure");
    case EventKind::self_composed:
      return checks.expect(node.count >= 0, "count", ">= 0", static_cast<double>(node.count));
    case EventKind::unsupported:
      checks.expect(node.reason.size() <= max_reason_bytes, "reason", "of at most 4096 bytes",
                    static_cast<double>(node.reason.size()));
      json_string(node.reason);
      return;
    case EventKind::shuffled_epoch:
    case EventKind::composed:
    case EventKind::no_op:
    case EventKind::non_private: return;
  }
}

Event Event::gaussian(double noise_multiplier) {
  return make({.kind = EventKind::gaussian, .numbers = {{noise_multiplier}}});
}

Event Event::laplace(double noise_multiplier) {
  return make({.kind = EventKind::laplace, .numbers = {{noise_multiplier}}});
}

Event Event::discrete_gaussian(double standard_deviation, std::int64_t sensitivity) {
  return make({.kind = EventKind::discrete_gaussian,
               .numbers = {{standard_deviation}, {static_cast<double>(sensitivity)}}});
}

Event Event::mixture_of_gaussians(double standard_deviation, std::vector<double> sensitivities,
                                  std::vector<double> sampling_probs) {
  return make({.kind = EventKind::mixture_of_gaussians,
               .numbers = {{standard_deviation}, std::move(sensitivities), std::move(sampling_probs)}});
}

Event Event::poisson_sampled(double sampling_probability, Event inner) {
  return make({.kind = EventKind::poisson_sampled,
               .numbers = {{sampling_probability}, {}},
               .children = {std::move(inner)}});
}

Event Event::truncated_subsampled_gaussian(std::int64_t dataset_size, double sampling_probability,
                                           std::int64_t truncated_batch_size, double noise_multiplier) {
  return make({.kind = EventKind::truncated_subsampled_gaussian,
               .numbers = {{static_cast<double>(dataset_size)}, {sampling_probability},
                           {static_cast<double>(truncated_batch_size)}, {noise_multiplier}}});
}

Event Event::sampled_without_replacement(std::int64_t source_dataset_size, std::int64_t sample_size, Event inner) {
  return make({.kind = EventKind::sampled_without_replacement,
               .numbers = {{static_cast<double>(source_dataset_size)}, {static_cast<double>(sample_size)}, {}},
               .children = {std::move(inner)}});
}

Event Event::shuffled_epoch(Event inner) {
  return make({.kind = EventKind::shuffled_epoch, .numbers = {{}}, .children = {std::move(inner)}});
}

Event Event::balls_in_bins(std::int64_t bins, Event inner) {
  return make({.kind = EventKind::balls_in_bins,
               .numbers = {{static_cast<double>(bins)}, {}},
               .children = {std::move(inner)}});
}

Event Event::matrix_factorization(double noise_multiplier, std::vector<double> coefficients, std::int64_t steps,
                                  std::int64_t min_separation, std::int64_t max_participations) {
  return make({.kind = EventKind::matrix_factorization,
               .numbers = {{noise_multiplier}, std::move(coefficients), {static_cast<double>(steps)},
                           {static_cast<double>(min_separation)}, {static_cast<double>(max_participations)}}});
}

Event Event::tree_aggregation(double noise_multiplier, std::vector<std::int64_t> step_counts) {
  return make({.kind = EventKind::tree_aggregation, .numbers = {{noise_multiplier}, doubles(step_counts)}});
}

Event Event::group(std::int64_t group_size, Event inner) {
  return make({.kind = EventKind::group,
               .numbers = {{static_cast<double>(group_size)}, {}},
               .children = {std::move(inner)}});
}

Event Event::adaptive_clipping(double noise_multiplier, double count_noise_stddev) {
  return make({.kind = EventKind::adaptive_clipping, .numbers = {{noise_multiplier}, {count_noise_stddev}}});
}

Event Event::repeat_and_select(Event inner, double mean, double shape) {
  return make({.kind = EventKind::repeat_and_select, .numbers = {{}, {mean}, {shape}}, .children = {std::move(inner)}});
}

Event Event::finite_precision(Event inner, double order, double divergence, double failure) {
  return make({.kind = EventKind::finite_precision,
               .numbers = {{}, {order}, {divergence}, {failure}},
               .children = {std::move(inner)}});
}

Event Event::self_composed(Event inner, std::int64_t count) {
  return make({.kind = EventKind::self_composed, .count = count, .children = {std::move(inner)}});
}

Event Event::composed(std::vector<Event> events) {
  return make({.kind = EventKind::composed, .children = std::move(events)});
}

Event Event::no_op() { return make({.kind = EventKind::no_op}); }

Event Event::non_private() { return make({.kind = EventKind::non_private}); }

Event Event::unsupported(std::string why) {
  return make({.kind = EventKind::unsupported, .reason = std::move(why)});
}

EventKind Event::kind() const { return node_->kind; }

std::string_view Event::type_name() const { return schema(node_->kind).type_name; }

const std::vector<Event::Field>& Event::fields() const { return schema(node_->kind).fields; }

std::size_t Event::place(std::string_view name, FieldType type) const {
  const auto& list = fields();
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].name == name && list[i].type == type) return i;
  }
  throw InvalidState(message("[Event.", name, "] Expected an event that has this field, received ", type_name(),
                             ". Look at kind() first."));
}

double Event::number(std::string_view name) const { return node_->numbers[place(name, FieldType::number)][0]; }

std::int64_t Event::integer(std::string_view name) const {
  const std::size_t at = place(name, FieldType::integer);
  return kind() == EventKind::self_composed ? node_->count : static_cast<std::int64_t>(node_->numbers[at][0]);
}

const std::vector<double>& Event::numbers(std::string_view name) const {
  return node_->numbers[place(name, FieldType::numbers)];
}

std::vector<std::int64_t> Event::integers(std::string_view name) const {
  const auto& list = node_->numbers[place(name, FieldType::integers)];
  return std::vector<std::int64_t>(list.begin(), list.end());
}

const Event& Event::inner() const {
  place("event", FieldType::event);
  return node_->children.front();
}

const std::vector<Event>& Event::events() const {
  place("events", FieldType::events);
  return node_->children;
}

const std::string& Event::reason() const {
  place("reason", FieldType::text);
  return node_->reason;
}

namespace {

template <typename List, typename Show>
std::string json_list(const List& list, Show&& show) {
  std::string text;
  for (const auto& item : list) text += (text.empty() ? "" : ",") + show(item);
  return "[" + text + "]";
}

std::string json_field(const Event& of, const Event::Field& field) {
  using enum Event::FieldType;
  switch (field.type) {
    case number: return json_number(of.number(field.name));
    case integer: return std::to_string(of.integer(field.name));
    case numbers: return json_list(of.numbers(field.name), json_number);
    case integers: return json_list(of.integers(field.name), [](std::int64_t value) { return std::to_string(value); });
    case event: return of.inner().to_json();
    case events: return json_list(of.events(), [](const Event& one) { return one.to_json(); });
    case text: return json_string(of.reason());
  }
  return "";
}

}  // namespace

std::string Event::to_json() const {
  std::vector<Field> sorted = fields();
  std::sort(sorted.begin(), sorted.end(), [](const Field& a, const Field& b) { return a.name < b.name; });
  std::string text = "{";
  for (const Field& field : sorted) text += "\"" + std::string(field.name) + "\":" + json_field(*this, field) + ",";
  return text + "\"type\":\"" + std::string(type_name()) + "\"}";  // no field sorts behind "type"
}

struct EventReader {
  static Event read(const Json& object) {
    if (!object.is_object()) {
      throw InvalidArgument(message("[Event.from_json] Expected an event object, received ", object.type_name(),
                                    ". Write {\"type\": ...}."));
    }
    const Json& type = field(object, "type");
    const std::string name = type.is_string() ? type.get<std::string>() : "";
    for (const Event::Schema& schema : Event::schemas()) {
      if (schema.type_name == name) return read(object, schema);
    }
    throw InvalidArgument(message("[Event.from_json] Expected a known event type, received '", printable(name),
                                  "'. Record what has no type as UnsupportedDpEvent."));
  }

 private:
  static Event read(const Json& object, const Event::Schema& schema) {
    if (object.size() != schema.fields.size() + 1) {
      throw InvalidArgument(message("[Event.from_json] Expected ", schema.fields.size() + 1, " fields, received ",
                                    object.size(), ". Write the fields that this type has, and no others."));
    }
    Event::Node node{.kind = schema.kind};
    for (const Event::Field& one : schema.fields) add(node, one, field(object, one.name));
    return Event::make(std::move(node));
  }

  static void add(Event::Node& node, const Event::Field& one, const Json& value) {
    using enum Event::FieldType;
    std::vector<double> values;
    switch (one.type) {
      case number: values.push_back(number_of(value, one.name)); break;
      case integer: {
        const std::int64_t whole = integer_of(value, one.name);
        if (node.kind == EventKind::self_composed) node.count = whole;
        values.push_back(static_cast<double>(whole));
        break;
      }
      case numbers:
        for (const Json& item : list_of(value, one.name)) values.push_back(number_of(item, one.name));
        break;
      case integers:
        for (const Json& item : list_of(value, one.name)) {
          values.push_back(static_cast<double>(integer_of(item, one.name)));
        }
        break;
      case event: node.children.push_back(read(value)); break;
      case events:
        for (const Json& item : list_of(value, one.name)) node.children.push_back(read(item));
        break;
      case text:
        if (!value.is_string()) refuse(one.name, "text", value);
        node.reason = value.get<std::string>();
        break;
    }
    if (node.kind != EventKind::self_composed) node.numbers.push_back(std::move(values));
  }
};

Event Event::from_json(std::string_view json) {
  if (json.size() > max_json_bytes) {
    throw InvalidArgument(message("[Event.from_json] Expected at most ", max_json_bytes, " bytes, received ",
                                  json.size(), ". Use SelfComposedDpEvent for repeated events."));
  }
  StrictReader reader;
  Json document;
  try {
    document = Json::parse(
        json.begin(), json.end(),
        [&reader](int depth, Json::parse_event_t event, Json& parsed) { return reader(depth, event, parsed); });
  } catch (const Json::exception& e) {
    throw InvalidArgument(message("[Event.from_json] Expected one JSON object, received malformed text (error ", e.id,
                                  "). Check that the text is complete."));
  }
  return EventReader::read(document);
}

bool operator==(const Event& a, const Event& b) {
  if (a.node_ == b.node_) return true;
  const Event::Node& x = *a.node_;
  const Event::Node& y = *b.node_;
  return x.kind == y.kind && x.numbers == y.numbers && x.count == y.count && x.reason == y.reason &&
         x.children == y.children;
}

}  // namespace hushgrad
