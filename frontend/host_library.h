// Libraries of the host that are loaded when they are asked for: those for windows and viewers bring dozens
// of others, whose start would cost every machine without a window.
#pragma once

#include <string>

namespace penumbra {

class HostLibrary {
 public:
  // Throws UserError, which begins with `option`, when the host has no such library.
  HostLibrary(std::string option, const char* file);
  // It stays loaded: libraries of this kind leave threads and exit handlers behind.
  HostLibrary(const HostLibrary&) = delete;
  HostLibrary& operator=(const HostLibrary&) = delete;

  // A function of the type that its header declares.
  template <class Function>
  void find(Function*& function, const char* name) const {
    // SAFETY: POSIX lets dlsym()'s pointer stand for a function; the type is that of the header of this
    // library's version.
    function = reinterpret_cast<Function*>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;
  std::string option_;
  void* handle_;
};

}  // namespace penumbra
