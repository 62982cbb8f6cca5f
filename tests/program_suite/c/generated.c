// Code made while it runs: fresh, patched before each call, through a second mapping, rewritten by itself, on one page
// with data.
#define _GNU_SOURCE
#include "checksum.h"

#include <sys/mman.h>
#include <unistd.h>

// The argument and the result are one register wide.
typedef uintptr_t (*Function)(uintptr_t);

// The argument in the result's register; in 64-bit code also in RDI.
#ifdef __x86_64__
static const unsigned char prologue[] = {0x48, 0x89, 0xf8, 0x90};  // mov rax, rdi
#define WIDE 0x48
#define OTHER 0xf8                          // ModRM of "rax, rdi"
static const unsigned char store_over_next[] = {0x89, 0x3d, 0x01, 0x00, 0x00, 0x00};  // mov dword [rip + 1], edi
#else
static const unsigned char prologue[] = {0x8b, 0x44, 0x24, 0x04};  // mov eax, [esp + 4]
#define WIDE 0x3e                           // a DS prefix, which changes nothing
#define OTHER 0xc0                          // ModRM of "eax, eax"
#endif

// prologue; lea rax, [rax + immediate]; ret
static unsigned emit_add(unsigned char* at, int32_t immediate) {
  memcpy(at, prologue, 4);
  const unsigned char lea[] = {WIDE, 0x8d, 0x80};
  memcpy(at + 4, lea, 3);
  memcpy(at + 7, &immediate, 4);
  at[11] = 0xc3;
  return 12;
}

// A chain of `count` random operations on the argument.
static void emit_random(unsigned char* at, unsigned count) {
  static const unsigned char operations[][4] = {
      {WIDE, 0x01, OTHER, 0x90},  // add rax, rdi
      {WIDE, 0x31, OTHER, 0x90},  // xor rax, rdi
      {WIDE, 0xff, 0xc0, 0x90},   // inc rax
      {WIDE, 0xf7, 0xd8, 0x90},   // neg rax
      {WIDE, 0xd1, 0xc0, 0x90},   // rol rax, 1
      {WIDE, 0x0f, 0xc8, 0x90},   // bswap rax
      {WIDE, 0x11, OTHER, 0x90},  // adc rax, rdi
      {WIDE, 0x0f, 0xaf, 0xc0},   // imul rax, rax
      {WIDE, 0x19, OTHER, 0x90},  // sbb rax, rdi
      {WIDE, 0x83, 0xf0, 0x5b},   // xor rax, 91
  };
  memcpy(at, prologue, 4), at += 4;
  for (unsigned i = 0; i < count; ++i, at += 4) memcpy(at, operations[next_random() % 10], 4);
  *at = 0xc3;
}

static void* map(int fd, size_t size, int protection) {
  return mmap(NULL, size, protection, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
}

int main(void) {
  const size_t size = 1 << 16;
  const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
  unsigned char* code = map(-1, size, all);

  for (int i = 0; i < 3000; ++i) {
    emit_add(code, i * 7);
    add_u64(((Function)code)((uintptr_t)i));
  }
  report("patched");

  for (int i = 0; i < 3000; ++i) {
    unsigned char* at = code + next_random() % (size - 600);
    emit_random(at, (unsigned)(next_random() % 120));
    for (int j = 0; j < 3; ++j) add_u64(((Function)at)((uintptr_t)next_random()));
  }
  report("anywhere");

  for (int i = 0; i < 600; ++i) {
    unsigned char* at = code + (i % 16) * 4096;
    mprotect(code, size, PROT_READ | PROT_WRITE);
    emit_random(at, 50);
    mprotect(code, size, PROT_READ | PROT_EXEC);
    add_u64(((Function)at)((uintptr_t)i));
  }
  mprotect(code, size, all);
  report("write xor execute");

  const int fd = memfd_create("code", 0);
  if (ftruncate(fd, (off_t)size) != 0) return 1;
  unsigned char* writable = map(fd, size, PROT_READ | PROT_WRITE);
  unsigned char* executable = map(fd, size, PROT_READ | PROT_EXEC);
  for (int i = 0; i < 2000; ++i) {
    const unsigned at = (unsigned)(next_random() % (size - 300));
    emit_random(writable + at, 60);
    add_u64(((Function)(executable + at))((uintptr_t)i));
  }
  report("two mappings");

  // Written through the file.
  for (int i = 0; i < 500; ++i) {
    unsigned char one[12];
    emit_add(one, i);
    if (pwrite(fd, one, sizeof(one), 4090) != sizeof(one)) return 1;  // across two pages
    add_u64(((Function)(executable + 4090))((uintptr_t)i));
  }
  report("pwrite");

  // Changes its own next instruction: mov eax, imm32; ret.
  {
    unsigned char* at = code;
#ifdef __x86_64__
    memcpy(at, store_over_next, 6), at += 6;
#else
    memcpy(at, prologue, 4), at += 4;
    const uint32_t target = (uint32_t)(uintptr_t)at + 6;
    *at++ = 0xa3;  // mov [target], eax
    memcpy(at, &target, 4), at += 4;
#endif
    const unsigned char next[] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(at, next, 6);
  }
  for (int i = 0; i < 2000; ++i) add_u64((uint32_t)((Function)code)((uintptr_t)i * 77));
  report("itself");

  // Data beside code, on one page.
  emit_add(code, 1);
  volatile uintptr_t* data = (uintptr_t*)(code + 64);
  *data = 0;
  for (int i = 0; i < 20000; ++i) *data = ((Function)code)(*data);
  add_u64(*data);
  report("data beside it");

  // Another mapping at the same address.
  for (int i = 0; i < 400; ++i) {
    unsigned char* at = mmap(code, 4096, all, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    emit_add(at, i);
    add_u64(((Function)at)(1000));
  }
  report("mapped anew");

  // rep movsb copies code over the function that was just run.
  emit_add(code + 4096, 5);
  for (int i = 0; i < 1000; ++i) {
    emit_add(code + 8192, i);
    void *to = code + 4096, *from = code + 8192;
    unsigned long bytes = 12;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    add_u64(((Function)(code + 4096))(3));
  }
  report("rep movsb");
  return 0;
}
