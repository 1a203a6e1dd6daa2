// _core: the table of contents of what Python sees of dpcore and accounting. Imports without torch.
#include "bind_errors.h"
#include "core/bind.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Bindings of dpcore and accounting; use the hushgrad package instead.";
  hushgrad::python::bind_errors();
  hushgrad::python::bind_random(m);
  hushgrad::python::bind_sampling(m);
  hushgrad::python::bind_noise(m);
  hushgrad::python::bind_accounting(m);
  hushgrad::python::bind_build_facts(m);
  hushgrad::python::bind_ledger(m);
  hushgrad::python::bind_signing(m);
  hushgrad::python::bind_approval(m);
  hushgrad::python::bind_keys(m);
  hushgrad::python::bind_sealed(m);
  hushgrad::python::bind_archive(m);
}
