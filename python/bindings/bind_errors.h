// The one map from dpcore/error.h to hushgrad.errors. Both extension modules call it: each may be built with its own
// pybind11, and a translator is known only to the pybind11 that registered it.
#pragma once

#include <pybind11/pybind11.h>

#include "dpcore/error.h"

namespace hushgrad::python {

inline void raise_as(const char* name, const std::exception& error) {
  auto type = pybind11::module_::import("hushgrad.errors").attr(name);
  PyErr_SetString(type.ptr(), error.what());
}

inline void raise_denied(const Denied& error) {
  auto raised = pybind11::module_::import("hushgrad.errors").attr("Denied")(error.what());
  raised.attr("reason") = error.reason();
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(raised.ptr())), raised.ptr());
}

inline void bind_errors() {
  pybind11::register_exception_translator([](std::exception_ptr pending) {
    if (!pending) return;
    try {
      std::rethrow_exception(pending);
    } catch (const InvalidArgument& e) { raise_as("InvalidArgument", e);
    } catch (const Unsupported& e) { raise_as("Unsupported", e);
    } catch (const InvalidState& e) { raise_as("InvalidState", e);
    } catch (const PrivacyViolation& e) { raise_as("PrivacyViolation", e);
    } catch (const BudgetExceeded& e) { raise_as("BudgetExceeded", e);
    } catch (const LedgerError& e) { raise_as("LedgerError", e);
    } catch (const SealError& e) { raise_as("SealError", e);
    } catch (const Denied& e) { raise_denied(e);
    } catch (const KeyError& e) { raise_as("KeyError", e);
    } catch (const IoError& e) { raise_as("IoError", e);
    } catch (const Error& e) { raise_as("HushgradError", e);
    }
  });
}

}  // namespace hushgrad::python
