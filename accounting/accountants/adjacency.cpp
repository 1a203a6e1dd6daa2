#include "accounting/accountants/adjacency.h"

#include "dpcore/error.h"

namespace hushgrad {

std::string_view adjacency_name(Adjacency adjacency) {
  switch (adjacency) {
    case Adjacency::add_or_remove_one: return "add_or_remove_one";
    case Adjacency::replace_one: return "replace_one";
    case Adjacency::zero_out: return "zero_out";
  }
  return "";
}

Adjacency adjacency_named(std::string_view name) {
  for (Adjacency one : {Adjacency::add_or_remove_one, Adjacency::replace_one, Adjacency::zero_out}) {
    if (adjacency_name(one) == name) return one;
  }
  throw InvalidArgument(message("[adjacency] Expected the name of an adjacency, received '", name.substr(0, 40),
                                "'. Use add_or_remove_one, replace_one or zero_out."));
}

}  // namespace hushgrad
