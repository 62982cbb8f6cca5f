// Runs a few bytes of 32-bit code on the host CPU, through the 32-bit user code segment that Linux offers to
// 64-bit processes too. For instructions that 64-bit mode dropped.
#pragma once

#include <cpuid.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace penumbra {

class CompatibilityMode {
 public:
  struct Result {
    uint32_t eax, eflags;
  };

  CompatibilityMode() {
    void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (memory == MAP_FAILED) return;
    page_ = static_cast<uint8_t*>(memory);
    // A child tries it: where the kernel has no such segment it dies instead of the test.
    const pid_t child = fork();
    if (child == 0) {
      load({0x40});  // inc eax
      _exit(run(41, 2).eax == 42 ? 0 : 1);
    }
    int status = 1;
    available_ =
        child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  ~CompatibilityMode() {
    if (page_) munmap(page_, kBytes);
  }
  CompatibilityMode(const CompatibilityMode&) = delete;
  CompatibilityMode& operator=(const CompatibilityMode&) = delete;

  bool available() const { return available_; }

  // The CPU on which the undefined flags of the decimal instructions were measured.
  static bool zen5() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __get_cpuid(0, &eax, &ebx, &ecx, &edx);
    if (ebx != signature_AMD_ebx) return false;
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    return ((eax >> 8) & 15) + ((eax >> 20) & 0xff) == 0x1a;
  }

  void load(const std::vector<uint8_t>& instruction) {
    const uint32_t base = low(page_);
    uint8_t* at = page_ + kCode;
    const auto put = [&at](std::initializer_list<uint32_t> bytes) {
      for (const uint32_t byte : bytes) *at++ = static_cast<uint8_t>(byte);
    };
    const auto put32 = [&at](uint32_t value) {
      std::memcpy(at, &value, 4);
      at += 4;
    };
    // Through SS, the only data segment that 64-bit processes have loaded.
    put({0xbc}), put32(base + kFlags);  // mov esp, inputs
    put({0x9d, 0x58});                  // popf; pop eax
    put({0xbc}), put32(base + kBytes);  // mov esp, top
    for (const uint8_t byte : instruction) *at++ = byte;
    put({0x9c, 0x59});                                        // pushf; pop ecx
    put({0xea}), put32(base + kBack), put({kUserCode64, 0});  // jmp far back
    std::memcpy(page_ + kBack, "\x41\xff\xe7", 3);            // jmp r15
    const uint32_t entry = base + kCode;
    const uint16_t selector = kUserCode32;
    std::memcpy(page_ + kPointer, &entry, 4);
    std::memcpy(page_ + kPointer + 4, &selector, 2);
  }

  Result run(uint32_t eax, uint32_t eflags) {
    std::memcpy(page_ + kEax, &eax, 4);
    std::memcpy(page_ + kFlags, &eflags, 4);
    uint64_t rax, rcx;
    // The compiler knows nothing of the far jump: every register but R14 and R15 may be lost.
    asm volatile(
        "sub $128, %%rsp\n push %%rbp\n push %%rbx\n mov %%rsp, %%r14\n lea 1f(%%rip), %%r15\n"
        "ljmp *(%%rdx)\n"
        "1: mov %%r14, %%rsp\n pop %%rbx\n pop %%rbp\n add $128, %%rsp\n cld"
        : "=a"(rax), "=c"(rcx)
        : "d"(page_ + kPointer)
        : "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    return {static_cast<uint32_t>(rax), static_cast<uint32_t>(rcx)};
  }

 private:
  static constexpr unsigned kBytes = 0x1000, kPointer = 0x40, kFlags = 0x50, kEax = 0x54, kBack = 0x80,
                            kCode = 0x100;
  static constexpr uint16_t kUserCode32 = 0x23, kUserCode64 = 0x33;  // Linux' selectors

  static uint32_t low(const void* pointer) {
    return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pointer));
  }

  uint8_t* page_ = nullptr;
  bool available_ = false;
};

}  // namespace penumbra
