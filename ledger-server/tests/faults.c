/* A disk that fails: preloaded into a program, it makes every Nth write or sync of files below a folder fail with EIO, or stop half-way.
 * FAULT_FOLDER: the folder. FAULT_EVERY: N. Only while the file FAULT_SWITCH is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int below(int fd) {
  char link[64], path[4096];
  const char *folder = getenv("FAULT_FOLDER");
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (!folder || length < 0) return 0;
  path[length] = 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

/* 0: works. 1: fails. 2: stops half-way. */
static int fault(int fd) {
  static atomic_uint calls;
  const char *every = getenv("FAULT_EVERY"), *on = getenv("FAULT_SWITCH");
  if (!every || !on || access(on, F_OK) != 0 || !below(fd)) return 0;
  unsigned n = (unsigned)atoi(every), call = atomic_fetch_add(&calls, 1);
  if (n == 0 || call % n != n - 1) return 0;
  return call / n % 2 ? 2 : 1;
}

static int failed(void) {
  errno = EIO;
  return -1;
}

int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  return fault(fd) ? failed() : real(fd);
}

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  return fault(fd) ? failed() : real(fd);
}

ssize_t write(int fd, const void *bytes, size_t length) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  switch (fault(fd)) {
    case 1: return failed();
    case 2: return real(fd, bytes, length > 1 ? length / 2 : length);
  }
  return real(fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  switch (fault(fd)) {
    case 1: return failed();
    case 2: return real(fd, bytes, length > 1 ? length / 2 : length, at);
  }
  return real(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }
