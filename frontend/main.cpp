// penumbra: the program. Exit status: the guest's, or 1 for the host's errors and 2 for the user's.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <system_error>

#include "frontend/explain.h"
#include "frontend/options.h"
#include "frontend/run.h"
#include "frontend/user_error.h"

namespace {

int show(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (written && std::fflush(stdout) == 0) return 0;
  std::perror("penumbra: standard output");
  return 1;
}

// A file opened later must not become standard output because the program was started without one.
void open_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR) == -1) std::abort();
  }
}

struct Execute {
  std::chrono::steady_clock::time_point began;

  int operator()(const penumbra::RunOptions& options) const { return penumbra::run(options, began); }
  int operator()(const penumbra::ExplainOptions& options) const { return show(penumbra::explain(options)); }
  int operator()(const penumbra::ShowText& text) const { return show(text.text); }
};

}  // namespace

int main(int argc, char** argv) {
  const auto began = std::chrono::steady_clock::now();
  open_standard_descriptors();
  try {
    const std::span<const char* const> arguments(argv + (argc > 0), argv + argc);
    const auto command = argc > 0 && penumbra::is_qemu_name(argv[0])
                             ? penumbra::parse_qemu_command_line(arguments)
                             : penumbra::parse_command_line(arguments);
    return std::visit(Execute{began}, command);
  } catch (const penumbra::UserError& error) {
    std::fprintf(stderr, "penumbra: %s\n", error.what());
    return 2;
  } catch (const std::system_error& error) {
    const bool thread = error.code() == std::errc::resource_unavailable_try_again;
    std::fprintf(stderr, "penumbra: %s%s\n", thread ? "the host refuses a thread: " : "", error.what());
    return 1;
  } catch (const std::bad_alloc&) {
    std::fputs("penumbra: the host has no more memory\n", stderr);
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "penumbra: %s\n", error.what());
    return 1;
  }
}
