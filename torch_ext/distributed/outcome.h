// How a step ended on the first process, in words that the others can act on.
#pragma once

#include <exception>
#include <string>

namespace hushgrad {

/// JSON of an error of this library's taxonomy; of anything else an InvalidState.
std::string told(const std::exception_ptr& error);
/// Throws what told() describes, as the kind it was. `text` that describes no error throws nothing.
void throw_told(const std::string& text);

}  // namespace hushgrad
