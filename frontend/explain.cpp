#include "frontend/explain.h"

#include <stdexcept>
#include <vector>

#include "frontend/host_file.h"
#include "frontend/user_error.h"
#include "jit/explain.h"

namespace penumbra {

std::string explain(const ExplainOptions& options) {
  constexpr uint64_t kLargest = 16 << 20;
  std::vector<std::byte> code;
  try {
    code = read_host_file(options.path, kLargest, "a flat binary to explain");
  } catch (const std::runtime_error& error) {
    throw UserError(error.what());
  }
  return jit::explain_code({reinterpret_cast<const uint8_t*>(code.data()), code.size()}, options.mode,
                           options.base);
}

}  // namespace penumbra
