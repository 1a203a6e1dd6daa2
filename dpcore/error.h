// The whole error taxonomy. Each kind is one class here and one Python class in hushgrad.errors, mapped once in
// python/bindings/bind_errors.h. Messages read "[where] Expected ..., received ... . What to do."; they never hold
// a secret, a key, or a value that depends on one sample.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace hushgrad {

/// Base of everything hushgrad throws on purpose.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument is outside its domain (delta not in (0,1), negative norm, wrong shape or dtype).
class InvalidArgument : public Error { public: using Error::Error; };

/// The model, operator, optimizer or sampler cannot be trained privately as it is.
class Unsupported : public Error { public: using Error::Error; };

/// The call is fine but not now: step without backward, two batches in one step, use after close.
class InvalidState : public Error { public: using Error::Error; };

/// A guarantee would have been broken: an unclipped gradient reached a private parameter, an invariant failed.
class PrivacyViolation : public Error { public: using Error::Error; };

/// The next charge would pass a budget. Nothing was released.
class BudgetExceeded : public Error { public: using Error::Error; };

/// The ledger cannot be read, written durably, or does not verify.
class LedgerError : public Error { public: using Error::Error; };

/// A sealed file is truncated, altered, malformed, or sealed under something else.
class SealError : public Error { public: using Error::Error; };

/// A key is missing, wrong, or may not be used.
class KeyError : public Error { public: using Error::Error; };

/// An operation needs approvals that it does not have. reason() is one word for programs; see check_approvals().
class Denied : public Error {
 public:
  Denied(std::string reason, const std::string& what) : Error(what), reason_(std::move(reason)) {}
  const std::string& reason() const { return reason_; }

 private:
  std::string reason_;
};

/// The operating system refused: open, write, fsync, rename, entropy.
class IoError : public Error { public: using Error::Error; };

/// Builds a message from streamable pieces: throw InvalidArgument(message("[clip] Expected max_grad_norm > 0, received ", c)).
template <typename... Parts>
std::string message(Parts&&... parts) {
  std::ostringstream out;
  out.precision(17);
  (out << ... << std::forward<Parts>(parts));
  return out.str();
}

}  // namespace hushgrad
