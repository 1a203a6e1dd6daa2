#include "torch_ext/distributed/outcome.h"

#include <nlohmann/json.hpp>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

std::string described(const char* kind, const std::exception& error, const std::string& reason = {}) {
  return nlohmann::json{{"error", kind}, {"message", error.what()}, {"reason", reason}}.dump();
}

}  // namespace

std::string told(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const BudgetExceeded& e) {
    return described("BudgetExceeded", e);
  } catch (const LedgerError& e) {
    return described("LedgerError", e);
  } catch (const Denied& e) {
    return described("Denied", e, e.reason());
  } catch (const PrivacyViolation& e) {
    return described("PrivacyViolation", e);
  } catch (const InvalidArgument& e) {
    return described("InvalidArgument", e);
  } catch (const Unsupported& e) {
    return described("Unsupported", e);
  } catch (const IoError& e) {
    return described("IoError", e);
  } catch (const std::exception& e) {
    return described("InvalidState", e);
  }
}

void throw_told(const std::string& text) {
  const nlohmann::json outcome = nlohmann::json::parse(text);
  if (!outcome.contains("error")) return;
  const auto kind = outcome.at("error").get<std::string>();
  const auto what = outcome.at("message").get<std::string>();
  if (kind == "BudgetExceeded") throw BudgetExceeded(what);
  if (kind == "LedgerError") throw LedgerError(what);
  if (kind == "Denied") throw Denied(outcome.at("reason").get<std::string>(), what);
  if (kind == "PrivacyViolation") throw PrivacyViolation(what);
  if (kind == "InvalidArgument") throw InvalidArgument(what);
  if (kind == "Unsupported") throw Unsupported(what);
  if (kind == "IoError") throw IoError(what);
  throw InvalidState(what);
}

}  // namespace hushgrad
