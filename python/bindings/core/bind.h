#pragma once

#include <pybind11/pybind11.h>

namespace hushgrad::python {

void bind_random(pybind11::module_& m);      // dpcore/random
void bind_sampling(pybind11::module_& m);    // dpcore/sampling
void bind_noise(pybind11::module_& m);       // dpcore/noise
void bind_accounting(pybind11::module_& m);  // accounting/accountants, accounting/event.h
void bind_build_facts(pybind11::module_& m);  // accounting/build_facts.h
void bind_ledger(pybind11::module_& m);      // accounting/ledger
void bind_keys(pybind11::module_& m);        // dpcore/keys
void bind_signing(pybind11::module_& m);     // dpcore/keys/signing.h
void bind_approval(pybind11::module_& m);    // dpcore/keys/approval.h
void bind_sealed(pybind11::module_& m);      // dpcore/sealed
void bind_archive(pybind11::module_& m);     // dpcore/sealed archives

}  // namespace hushgrad::python
