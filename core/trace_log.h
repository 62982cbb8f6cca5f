// Where -d writes: a few topics and a file.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string_view>

namespace penumbra {

class TraceLog {
 public:
  // Bits, as the command line names them: int, in_asm, out_asm, exec, guest_errors, cpu, real_int.
  static constexpr uint32_t kInterrupts = 1, kGuestCode = 2, kHostCode = 4, kExecution = 8, kGuestErrors = 16,
                            kRegisters = 32, kRealInterrupts = 64;

  // `file` is not owned; null drops what is written.
  explicit TraceLog(std::FILE* file = nullptr, uint32_t topics = 0) : file_(file), topics_(topics) {}

  bool has(uint32_t topic) const { return file_ && topics_ & topic; }
  void write(std::string_view text) {
    if (file_) std::fwrite(text.data(), 1, text.size(), file_);
  }
  void flush() {
    if (file_) std::fflush(file_);
  }

 private:
  std::FILE* file_;
  uint32_t topics_;
};

}  // namespace penumbra
