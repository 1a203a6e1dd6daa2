// Everything a native program needs: #include <hushgrad.h>
#pragma once

#include "accounting/accountants/accountant.h"
#include "accounting/calibrate.h"
#include "accounting/event.h"
#include "accounting/ledger/ledger.h"
#include "dpcore/error.h"
#include "dpcore/keys/keyring.h"
#include "dpcore/sealed/sealed_file.h"
#include "torch_ext/privacy_engine.h"
