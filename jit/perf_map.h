// Names translated blocks for Linux `perf` in /tmp/perf-PID.map, the file it looks for
// (linux/tools/perf/Documentation, jit-interface.txt): `perf record build/release/penumbra run --perf-map
// ...`, then `perf report`.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

#include "jit/block.h"

namespace penumbra::jit {

class PerfMap {
 public:
  // `symbols`: a System.map of the guest's kernel, or empty. Throws std::runtime_error naming the file that
  // cannot be opened or has no symbols.
  explicit PerfMap(const std::string& symbols);
  ~PerfMap();
  PerfMap(const PerfMap&) = delete;
  PerfMap& operator=(const PerfMap&) = delete;

  // "kernel_function+offset", "user page" or "kernel page", and "windows" for blocks that use the shadow
  // windows.
  void add(const Block& block, LinearAddr linear);

 private:
  std::string name_of(const Block& block, uint64_t linear) const;

  std::FILE* file_;
  std::map<uint64_t, std::string> symbols_;
};

}  // namespace penumbra::jit
