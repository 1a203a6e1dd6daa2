#include "core/bind.h"

namespace hushgrad::python {

void bind_ledger(pybind11::module_&) {}

}  // namespace hushgrad::python
