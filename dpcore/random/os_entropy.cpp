#include "dpcore/random/os_entropy.h"

#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

#include "dpcore/error.h"
#include "dpcore/random/aes_ctr.h"

namespace hushgrad {

OsEntropy::OsEntropy() {
  if (getentropy(bytes_.data(), bytes_.size()) == 0) return;
  throw IoError(
      "[random] Expected entropy from the operating system, received an error from getentropy. Check that "
      "the sandbox "
      "or container allows the getrandom system call.");
}

OsEntropy::~OsEntropy() { wipe(bytes_); }

}  // namespace hushgrad
