#include "accounting/event.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "dpcore/error.h"

namespace hushgrad {

using Json = nlohmann::json;

struct Event::Node {
  EventKind kind;
  double number = 0;            // noise_multiplier or sampling_probability
  std::int64_t count = 0;
  std::vector<Event> children = {};  // inner event, or all events of a composition
  std::string reason = {};
  int depth = 1;
  std::size_t size = 1;  // events in the tree; shared ones count every time, as a walk meets them
};

namespace {

constexpr std::array<std::pair<EventKind, std::string_view>, 7> kTypeNames{{
    {EventKind::gaussian, "GaussianDpEvent"},
    {EventKind::poisson_sampled, "PoissonSampledDpEvent"},
    {EventKind::self_composed, "SelfComposedDpEvent"},
    {EventKind::composed, "ComposedDpEvent"},
    {EventKind::no_op, "NoOpDpEvent"},
    {EventKind::non_private, "NonPrivateDpEvent"},
    {EventKind::unsupported, "UnsupportedDpEvent"},
}};

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

const Json& field(const Json& object, const char* name) {
  auto it = object.find(name);
  if (it == object.end()) {
    throw InvalidArgument(message("[Event.from_json] Expected the field '", name,
                                  "', received an event without it. Write every field of the type."));
  }
  return *it;
}

void expect_size(const Json& object, std::size_t size) {
  if (object.size() == size) return;
  throw InvalidArgument(message("[Event.from_json] Expected ", size, " fields, received ", object.size(),
                                ". Remove the fields that this type does not have."));
}

double number_field(const Json& object, const char* name) {
  const Json& value = field(object, name);
  if (!value.is_number()) {
    throw InvalidArgument(message("[Event.from_json] Expected a number in '", name, "', received ",
                                  value.type_name(), ". Write it as a plain JSON number."));
  }
  return value.get<double>();
}

std::int64_t count_field(const Json& object) {
  const Json& value = field(object, "count");
  bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
  if (!fits) {
    throw InvalidArgument(
        "[Event.from_json] Expected a 64-bit integer in 'count', received something else. Write it without a point.");
  }
  return value.get<std::int64_t>();
}

}  // namespace

Event::Event(std::shared_ptr<const Node> node) : node_(std::move(node)) {}

Event Event::make(Node node) {
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

Event Event::gaussian(double noise_multiplier) {
  if (!(std::isfinite(noise_multiplier) && noise_multiplier >= 0)) {
    throw InvalidArgument(message("[Event.gaussian] Expected a finite noise_multiplier >= 0, received ",
                                  noise_multiplier, ". Give the noise deviation divided by the l2 sensitivity."));
  }
  return make({.kind = EventKind::gaussian, .number = noise_multiplier + 0.0});  // + 0.0 turns -0 into 0
}

Event Event::poisson_sampled(double sampling_probability, Event inner) {
  if (!(sampling_probability >= 0 && sampling_probability <= 1)) {
    throw InvalidArgument(message("[Event.poisson_sampled] Expected 0 <= sampling_probability <= 1, received ",
                                  sampling_probability, ". Give expected_batch_size divided by the data set size."));
  }
  return make({.kind = EventKind::poisson_sampled,
               .number = sampling_probability + 0.0,
               .children = {std::move(inner)}});
}

Event Event::self_composed(Event inner, std::int64_t count) {
  if (count < 0) {
    throw InvalidArgument(message("[Event.self_composed] Expected count >= 0, received ", count,
                                  ". Give the number of repetitions."));
  }
  return make({.kind = EventKind::self_composed, .count = count, .children = {std::move(inner)}});
}

Event Event::composed(std::vector<Event> events) {
  return make({.kind = EventKind::composed, .children = std::move(events)});
}

Event Event::no_op() { return make({.kind = EventKind::no_op}); }

Event Event::non_private() { return make({.kind = EventKind::non_private}); }

Event Event::unsupported(std::string why) {
  if (why.size() > max_reason_bytes) {
    throw InvalidArgument(message("[Event.unsupported] Expected at most ", max_reason_bytes,
                                  " bytes of text, received ", why.size(), ". Shorten the description."));
  }
  json_string(why);
  return make({.kind = EventKind::unsupported, .reason = std::move(why)});
}

EventKind Event::kind() const { return node_->kind; }

std::string_view Event::type_name() const {
  for (const auto& [kind, name] : kTypeNames) {
    if (kind == node_->kind) return name;
  }
  return "";
}

namespace {

void expect_kind(bool ok, const Event& event, const char* name) {
  if (ok) return;
  throw InvalidState(message("[Event.", name, "] Expected an event that has this field, received ",
                             event.type_name(), ". Look at kind() first."));
}

}  // namespace

double Event::noise_multiplier() const {
  expect_kind(kind() == EventKind::gaussian, *this, "noise_multiplier");
  return node_->number;
}

double Event::sampling_probability() const {
  expect_kind(kind() == EventKind::poisson_sampled, *this, "sampling_probability");
  return node_->number;
}

std::int64_t Event::count() const {
  expect_kind(kind() == EventKind::self_composed, *this, "count");
  return node_->count;
}

const Event& Event::inner() const {
  expect_kind(kind() == EventKind::poisson_sampled || kind() == EventKind::self_composed, *this, "inner");
  return node_->children.front();
}

const std::vector<Event>& Event::events() const {
  expect_kind(kind() == EventKind::composed, *this, "events");
  return node_->children;
}

const std::string& Event::reason() const {
  expect_kind(kind() == EventKind::unsupported, *this, "reason");
  return node_->reason;
}

std::string Event::to_json() const {
  std::string type = ",\"type\":\"" + std::string(type_name()) + "\"}";
  switch (kind()) {
    case EventKind::gaussian: return "{\"noise_multiplier\":" + shortest(noise_multiplier()) + type;
    case EventKind::poisson_sampled:
      return "{\"event\":" + inner().to_json() + ",\"sampling_probability\":" + shortest(sampling_probability()) + type;
    case EventKind::self_composed:
      return "{\"count\":" + std::to_string(count()) + ",\"event\":" + inner().to_json() + type;
    case EventKind::composed: {
      std::string list;
      for (const Event& event : events()) list += (list.empty() ? "" : ",") + event.to_json();
      return "{\"events\":[" + list + "]" + type;
    }
    case EventKind::unsupported: return "{\"reason\":" + json_string(reason()) + type;
    case EventKind::no_op:
    case EventKind::non_private: break;
  }
  return "{" + type.substr(1);
}

namespace {

Event event_of(const Json& object) {
  if (!object.is_object()) {
    throw InvalidArgument(message("[Event.from_json] Expected an event object, received ", object.type_name(),
                                  ". Write {\"type\": ...}."));
  }
  const Json& type = field(object, "type");
  const std::string name = type.is_string() ? type.get<std::string>() : "";
  if (name == "GaussianDpEvent") {
    expect_size(object, 2);
    return Event::gaussian(number_field(object, "noise_multiplier"));
  }
  if (name == "PoissonSampledDpEvent") {
    expect_size(object, 3);
    return Event::poisson_sampled(number_field(object, "sampling_probability"), event_of(field(object, "event")));
  }
  if (name == "SelfComposedDpEvent") {
    expect_size(object, 3);
    return Event::self_composed(event_of(field(object, "event")), count_field(object));
  }
  if (name == "ComposedDpEvent") {
    expect_size(object, 2);
    const Json& list = field(object, "events");
    if (!list.is_array()) {
      throw InvalidArgument(message("[Event.from_json] Expected a list in 'events', received ", list.type_name(),
                                    ". Write [ ... ]."));
    }
    std::vector<Event> events;
    for (const Json& item : list) events.push_back(event_of(item));
    return Event::composed(std::move(events));
  }
  if (name == "UnsupportedDpEvent") {
    expect_size(object, 2);
    const Json& reason = field(object, "reason");
    if (!reason.is_string()) {
      throw InvalidArgument(message("[Event.from_json] Expected text in 'reason', received ", reason.type_name(),
                                    ". Write a string."));
    }
    return Event::unsupported(reason.get<std::string>());
  }
  if (name == "NoOpDpEvent" || name == "NonPrivateDpEvent") {
    expect_size(object, 1);
    return name == "NoOpDpEvent" ? Event::no_op() : Event::non_private();
  }
  throw InvalidArgument(message("[Event.from_json] Expected a known event type, received '", printable(name),
                                "'. Record what has no type as UnsupportedDpEvent."));
}

}  // namespace

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
  return event_of(document);
}

bool operator==(const Event& a, const Event& b) {
  if (a.node_ == b.node_) return true;
  const Event::Node& x = *a.node_;
  const Event::Node& y = *b.node_;
  return x.kind == y.kind && x.number == y.number && x.count == y.count && x.reason == y.reason &&
         x.children == y.children;
}

}  // namespace hushgrad
