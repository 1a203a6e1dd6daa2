// A ledger with people in it, on both engines, for tests of what each of them may do.
#pragma once

#include <memory>

#include "accounting/access/people.h"
#include "accounting/ledger/engines.h"

namespace hushgrad::ledger_test {

class Founded : public OnBothEngines {
 protected:
  void SetUp() override {
    OnBothEngines::SetUp();
    if (!IsSkipped()) ledger_ = people_.found(path_);
  }
  std::shared_ptr<Ledger> as(const Key& key) {
    auto handle = Ledger::open(path_, false);
    handle->identify(key);
    return handle;
  }
  std::shared_ptr<Ledger> as(Role role) { return as(people_.key_of(role)); }

  People people_;
  std::shared_ptr<Ledger> ledger_;
};

}  // namespace hushgrad::ledger_test
