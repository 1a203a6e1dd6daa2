// Which data sets count as neighbours: part of every question and of every answer.
#pragma once

#include <string_view>

#include "dpcore/clipping/clipped_sum.h"

namespace hushgrad {

// enum class Adjacency is that of a clipped sum (clipped_sum.h), so that what was clipped and what is asked cannot differ:
//   add_or_remove_one: one has one record (or user) more.
//   replace_one: one record differs, the number of records is the same and public. Two contributions differ, so a plain sum
//     moves twice as far as under the others.
//   zero_out: one record's contribution is replaced by nothing, its place in every batch stays (dp_accounting:
//     REPLACE_SPECIAL).

std::string_view adjacency_name(Adjacency adjacency);
/// Throws InvalidArgument for an unknown name.
Adjacency adjacency_named(std::string_view name);

}  // namespace hushgrad
