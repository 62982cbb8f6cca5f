#include "frontend/host_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <utility>

#include "frontend/user_error.h"

namespace penumbra {

HostLibrary::HostLibrary(std::string option, const char* file)
    : option_(std::move(option)), handle_(dlopen(file, RTLD_NOW | RTLD_LOCAL)) {
  if (!handle_) throw UserError(fmt::format("{}: {}", option_, dlerror()));
}

void* HostLibrary::symbol(const char* name) const {
  void* const found = dlsym(handle_, name);
  if (!found) throw UserError(fmt::format("{}: {}", option_, dlerror()));
  return found;
}

}  // namespace penumbra
