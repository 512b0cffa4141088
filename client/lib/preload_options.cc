// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "client/lib/page_bytes.h"
#include "client/lib/preload.h"

namespace faultline {
namespace {

constexpr char kSocket[] = "FAULTLINE_PRELOAD_SOCKET";
constexpr char kVolume[] = "FAULTLINE_PRELOAD_VOLUME";
constexpr char kOffset[] = "FAULTLINE_PRELOAD_OFFSET";
constexpr char kDevice[] = "FAULTLINE_PRELOAD_DEVICE";
constexpr char kPath[] = "FAULTLINE_PRELOAD_PATH";
constexpr char kMemfd[] = "FAULTLINE_PRELOAD_MEMFD";
constexpr char kAnonymous[] = "FAULTLINE_PRELOAD_ANONYMOUS";
constexpr const char* kAll[] = {kSocket, kVolume, kOffset, kDevice, kPath, kMemfd, kAnonymous};

// Sets `*bytes` from the variable `name`, which is set.
Failure ReadSize(const char* name, uint64_t* bytes) {
  const char* text = getenv(name);
  char* end = nullptr;
  errno = 0;
  const unsigned long long number = strtoull(text, &end, 10);
  const bool starts_well = text[0] >= '0' && text[0] <= '9' && errno == 0;
  constexpr char kUnits[] = "KMGT";
  const char* unit = *end == '\0' ? nullptr : strchr(kUnits, *end);
  const int shift = unit == nullptr ? 0 : 10 * static_cast<int>(unit - kUnits + 1);
  const char* rest = unit == nullptr ? end : end + 1;
  const bool ends_well = *rest == '\0' || (unit != nullptr && strcmp(rest, "iB") == 0);
  *bytes = uint64_t{number} << shift;
  if (starts_well && ends_well && *bytes >> shift == number && *bytes % kPageBytes == 0) {
    return Success();
  }
  return {EINVAL, std::string(name) + " is \"" + text +
                      "\"; write a multiple of 4096 bytes, such as 4096, 64KiB or 4GiB"};
}

Failure ReadChoice(PreloadOptions* options) {
  int choices = 0;
  const struct {
    const char* name;
    PreloadKind kind;
  } kinds[] = {{kPath, PreloadKind::kPath},
               {kMemfd, PreloadKind::kMemfd},
               {kAnonymous, PreloadKind::kAnonymous}};
  for (const auto& [name, kind] : kinds) {
    if (getenv(name) == nullptr) continue;
    ++choices;
    options->kind = kind;
    if (kind == PreloadKind::kPath) {
      options->path = getenv(name);
      continue;
    }
    Failure failure = ReadSize(name, &options->size_bytes);
    if (!failure.ok()) return failure;
    if (options->size_bytes == 0) return {EINVAL, std::string(name) + " is 0"};
  }
  if (choices == 1) return Success();
  return {EINVAL, std::string("set one of ") + kPath + "=FILE, " + kMemfd + "=SIZE and " +
                      kAnonymous + "=SIZE, to say which mapping is meant"};
}

// Takes the entries that name the library out of a list that blanks or colons separate.
void RemoveFromList(char* list, const char* name) {
  const auto base_of = [](const char* path, size_t length) {
    size_t start = length;
    while (start > 0 && path[start - 1] != '/') --start;
    return start;
  };
  const char* base = name + base_of(name, strlen(name));
  char* to = list;
  for (const char* from = list; *from != '\0';) {
    const size_t length = strcspn(from, " :");
    const size_t start = base_of(from, length);
    const bool is_it =
        length - start == strlen(base) && strncmp(from + start, base, length - start) == 0;
    if (!is_it && length > 0) {
      if (to != list) *to++ = ':';
      memmove(to, from, length);
      to += length;
    }
    from += length;
    if (*from != '\0') ++from;
  }
  *to = '\0';
}

bool IsFile(const char* path, int fd) {
  struct stat wanted;
  struct stat found;
  return stat(path, &wanted) == 0 && fstat(fd, &found) == 0 && wanted.st_dev == found.st_dev &&
         wanted.st_ino == found.st_ino;
}

bool IsMemfd(int fd) {
  char link[32];
  char target[64] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  constexpr char kStart[] = "/memfd:";
  return readlink(link, target, sizeof target - 1) > 0 &&
         strncmp(target, kStart, sizeof kStart - 1) == 0;
}

}  // namespace

Failure ReadPreloadOptions(PreloadOptions* options) {
  bool any = false;
  for (const char* name : kAll) any = any || getenv(name) != nullptr;
  if (!any) return Success();
  for (const char* name : {kSocket, kVolume}) {
    const char* value = getenv(name);
    if (value == nullptr || *value == '\0') return {EINVAL, std::string(name) + " is not set"};
  }
  options->socket_path = getenv(kSocket);
  options->volume = getenv(kVolume);
  if (const char* device = getenv(kDevice); device != nullptr) options->device = device;
  options->whole_volume = getenv(kOffset) == nullptr;
  if (!options->whole_volume) {
    Failure failure = ReadSize(kOffset, &options->offset);
    if (!failure.ok()) return failure;
  }
  return ReadChoice(options);
}

void CleanEnvironment(const char* name) {
  for (const char* variable : kAll) unsetenv(variable);
  char* list = getenv("LD_PRELOAD");
  if (list == nullptr) return;
  RemoveFromList(list, name);
  if (*list == '\0') unsetenv("LD_PRELOAD");
}

bool IsMeant(const PreloadOptions& options, const MapCall& call) {
  const int before = errno;
  const uint64_t length = RoundUp(call.length);
  const bool anonymous = (call.flags & MAP_ANONYMOUS) != 0;
  constexpr int kReadWrite = PROT_READ | PROT_WRITE;
  bool meant = false;
  switch (options.kind) {
    case PreloadKind::kNone:
      break;
    case PreloadKind::kPath:
      meant = !anonymous && IsFile(options.path.c_str(), call.fd);
      break;
    case PreloadKind::kMemfd:
      meant = !anonymous && length == options.size_bytes && IsMemfd(call.fd);
      break;
    case PreloadKind::kAnonymous:
      // What is not accessible is address space that the program keeps for later.
      meant = anonymous && length == options.size_bytes && (call.protection & kReadWrite) != 0 &&
              (call.flags & (MAP_STACK | MAP_GROWSDOWN)) == 0;
      break;
  }
  errno = before;
  return meant;
}

}  // namespace faultline
