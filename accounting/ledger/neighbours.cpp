#include "accounting/ledger/neighbours.h"

#include <nlohmann/json.hpp>

namespace hushgrad::ledger {

Neighbours neighbours_of(const std::string& plan_json) {
  Neighbours neighbours;
  const auto plan = nlohmann::json::parse(plan_json, nullptr, /*allow_exceptions=*/false);
  if (!plan.is_object()) return neighbours;
  for (const auto& [name, value] : {std::pair<const char*, std::string*>{"unit", &neighbours.unit}, {"adjacency", &neighbours.adjacency}}) {
    const auto found = plan.find(name);
    if (found != plan.end() && !found->is_null()) *value = found->is_string() ? found->get<std::string>() : found->dump();
  }
  return neighbours;
}

bool agree(const std::string& adjacency, const std::string& other) { return adjacency.empty() || other.empty() || adjacency == other; }

bool agree(const Neighbours& one, const Neighbours& other) { return one.unit == other.unit && agree(one.adjacency, other.adjacency); }

std::string text_of(const Neighbours& neighbours) {
  return neighbours.unit + (neighbours.adjacency.empty() ? "" : ", " + neighbours.adjacency);
}

}  // namespace hushgrad::ledger
