#include "jit/perf_map.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace penumbra::jit {

PerfMap::PerfMap(const std::string& symbols) {
  if (!symbols.empty()) {
    std::ifstream in(symbols);
    std::string address, type, name;
    while (in >> address >> type >> name) symbols_.emplace(std::strtoull(address.c_str(), nullptr, 16), name);
    if (symbols_.empty()) throw std::runtime_error("--perf-map: " + symbols + " is not a System.map");
  }
  const std::string path = fmt::format("/tmp/perf-{}.map", getpid());
  file_ = std::fopen(path.c_str(), "we");
  if (!file_) throw std::runtime_error("--perf-map: " + path + ": " + std::strerror(errno));
}

PerfMap::~PerfMap() {
  std::fclose(file_);
}

std::string PerfMap::name_of(const Block& block, uint64_t linear) const {
  const bool user = block.key.mode.has(ModeBits::kUser);
  if (!user) {
    const auto next = symbols_.upper_bound(linear);
    constexpr uint64_t kLongest = 1 << 16;
    if (next != symbols_.begin() && linear - std::prev(next)->first < kLongest)
      return std::prev(next)->second;
  }
  return fmt::format("{} {:#x}", user ? "user" : "kernel", linear);
}

void PerfMap::add(const Block& block, LinearAddr linear) {
  fmt::print(file_, "{:x} {:x} {}{}\n", block.host, block.host_bytes, name_of(block, linear.value),
             block.windows ? " windows" : "");
}

}  // namespace penumbra::jit
