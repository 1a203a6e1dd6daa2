#include "accounting/accountants/accountant.h"

#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "accounting/accountants/pld.h"
#include "accounting/accountants/rdp.h"
#include "dpcore/error.h"

namespace hushgrad {
namespace {

using Entry = std::pair<std::string_view, std::unique_ptr<const Accountant>>;

// A new accountant is one file and one line here.
const std::vector<Entry>& registry() {
  static const std::vector<Entry> entries = [] {
    std::vector<Entry> list;
    list.emplace_back("pld", std::make_unique<PldAccountant>());
    list.emplace_back("rdp", std::make_unique<RdpAccountant>());
    return list;
  }();
  return entries;
}

}  // namespace

const Accountant& accountant(std::string_view name) {
  std::string known;
  for (const auto& [entry_name, entry] : registry()) {
    if (entry_name == name) return *entry;
    known += (known.empty() ? "" : " or ") + std::string(entry_name);
  }
  throw InvalidArgument(message("[accountant] Expected the name of an accountant, received '", name.substr(0, 40),
                                "'. Use ", known, "."));
}

std::vector<std::string_view> accountant_names() {
  std::vector<std::string_view> names;
  for (const auto& entry : registry()) names.push_back(entry.first);
  return names;
}

Interval epsilon(const Event& event, double delta, std::string_view accountant_name, Adjacency adjacency) {
  if (!(delta > 0 && delta < 1)) {
    throw InvalidArgument(message("[epsilon] Expected 0 < delta < 1, received ", delta,
                                  ". Choose delta well below 1 / data set size."));
  }
  return accountant(accountant_name).epsilon(event, delta, adjacency);
}

Interval delta(const Event& event, double epsilon, std::string_view accountant_name, Adjacency adjacency) {
  if (!(epsilon >= 0)) {
    throw InvalidArgument(message("[delta] Expected epsilon >= 0, received ", epsilon,
                                  ". Give a number or infinity."));
  }
  return accountant(accountant_name).delta(event, epsilon, adjacency);
}

}  // namespace hushgrad
