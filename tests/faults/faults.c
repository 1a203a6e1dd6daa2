/* A library to preload (LD_PRELOAD): numbers the system calls that change files below one folder, and at the n-th of them
 * kills the process before or after it, lets it fail, or shortens it. Armed by fault_arm() from inside the process (ctypes),
 * so that one interpreter can try every point in forked children. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum action { NONE, KILL_BEFORE, KILL_AFTER, FAIL, SHORT };

static char folder[4096];
static enum action what = NONE;
static int at = -1, error_number;
static atomic_int calls;
static char names[4096];

void fault_arm(const char *below, int action, int n, int error) {
  snprintf(folder, sizeof folder, "%s", below);
  what = (enum action)action;
  at = n;
  error_number = error;
  atomic_store(&calls, 0);
  names[0] = 0;
}
int fault_calls(void) { return atomic_load(&calls); }
const char *fault_names(void) { return names; }

static int below(const char *path) { return folder[0] && strncmp(path, folder, strlen(folder)) == 0; }

static int fd_below(int fd) {
  char link[64], target[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, target, sizeof target - 1);
  if (n < 0) return 0;
  target[n] = 0;
  return below(target);
}

static int at_below(int fd, const char *path) { return path[0] == '/' ? below(path) : fd == AT_FDCWD ? 0 : fd_below(fd); }

/* What happens at this call: 0 go on, 1 fail, 2 shorten, 3 die afterwards. */
static int strike(const char *name) {
  int n = atomic_fetch_add(&calls, 1);
  size_t used = strlen(names);
  snprintf(names + used, sizeof names - used, "%s ", name);
  if (n != at) return 0;
  switch (what) {
    case KILL_BEFORE: kill(getpid(), SIGKILL); return 0;
    case KILL_AFTER: return 3;
    case FAIL: errno = error_number; return 1;
    case SHORT: return 2;
    default: return 0;
  }
}
static long finish(int how, long result) {
  if (how == 3) kill(getpid(), SIGKILL);
  return result;
}

#define INTERCEPT(name, watched, call)        \
  int how = (watched) ? strike(name) : 0;     \
  if (how == 1) return -1;                    \
  return finish(how, call)

ssize_t write(int fd, const void *data, size_t size) {
  int how = fd_below(fd) ? strike("write") : 0;
  if (how == 1) return -1;
  return finish(how, syscall(SYS_write, fd, data, how == 2 && size > 1 ? size / 2 : size));
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
  int how = fd_below(fd) ? strike("pwrite") : 0;
  if (how == 1) return -1;
  return finish(how, syscall(SYS_pwrite64, fd, data, how == 2 && size > 1 ? size / 2 : size, offset));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return pwrite(fd, data, size, offset); }
int fsync(int fd) { INTERCEPT("fsync", fd_below(fd), syscall(SYS_fsync, fd)); }
int fdatasync(int fd) { INTERCEPT("fdatasync", fd_below(fd), syscall(SYS_fdatasync, fd)); }
int ftruncate(int fd, off_t size) { INTERCEPT("ftruncate", fd_below(fd), syscall(SYS_ftruncate, fd, size)); }
int rename(const char *a, const char *b) { INTERCEPT("rename", below(b), syscall(SYS_rename, a, b)); }
int renameat(int f, const char *a, int g, const char *b) { INTERCEPT("renameat", at_below(g, b), syscall(SYS_renameat2, f, a, g, b, 0)); }
int renameat2(int f, const char *a, int g, const char *b, unsigned flags) {
  INTERCEPT("renameat2", at_below(g, b), syscall(SYS_renameat2, f, a, g, b, flags));
}
int unlink(const char *path) { INTERCEPT("unlink", below(path), syscall(SYS_unlink, path)); }
int unlinkat(int f, const char *path, int flags) { INTERCEPT("unlinkat", at_below(f, path), syscall(SYS_unlinkat, f, path, flags)); }
int mkdirat(int f, const char *path, mode_t mode) { INTERCEPT("mkdirat", at_below(f, path), syscall(SYS_mkdirat, f, path, mode)); }
int link(const char *a, const char *b) { INTERCEPT("link", below(b), syscall(SYS_link, a, b)); }
int linkat(int f, const char *a, int g, const char *b, int flags) { INTERCEPT("linkat", at_below(g, b), syscall(SYS_linkat, f, a, g, b, flags)); }

static int open_at(int f, const char *path, int flags, mode_t mode) {
  INTERCEPT("openat", (flags & O_CREAT) && at_below(f, path), syscall(SYS_openat, f, path, flags, mode));
}
#define OPEN_MODE(flags)              \
  mode_t mode = 0;                    \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest;                     \
    va_start(rest, flags);            \
    mode = va_arg(rest, mode_t);      \
    va_end(rest);                     \
  }
int openat(int f, const char *path, int flags, ...) { OPEN_MODE(flags) return open_at(f, path, flags, mode); }
int openat64(int f, const char *path, int flags, ...) { OPEN_MODE(flags) return open_at(f, path, flags, mode); }
int open(const char *path, int flags, ...) { OPEN_MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { OPEN_MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
