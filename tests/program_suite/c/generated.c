// Code made while it runs: fresh, patched before each call, through a second mapping, rewritten by itself, on one page
// with data.
#define _GNU_SOURCE
#include "checksum.h"

#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t (*Function)(uint64_t);

// lea rax, [rdi + immediate]; ret
static unsigned emit_add(unsigned char* at, int32_t immediate) {
  const unsigned char head[] = {0x48, 0x8d, 0x87};
  memcpy(at, head, 3);
  memcpy(at + 3, &immediate, 4);
  at[7] = 0xc3;
  return 8;
}

// A chain of `count` random operations on rax, the argument.
static void emit_random(unsigned char* at, unsigned count) {
  static const unsigned char moves[] = {0x48, 0x89, 0xf8};  // mov rax, rdi
  static const unsigned char operations[][4] = {
      {0x48, 0x01, 0xf8, 0x90},  // add rax, rdi
      {0x48, 0x31, 0xf8, 0x90},  // xor rax, rdi
      {0x48, 0xff, 0xc0, 0x90},  // inc rax
      {0x48, 0xf7, 0xd8, 0x90},  // neg rax
      {0x48, 0xd1, 0xc0, 0x90},  // rol rax, 1
      {0x48, 0x0f, 0xc8, 0x90},  // bswap rax
      {0x48, 0x11, 0xf8, 0x90},  // adc rax, rdi
      {0x48, 0x0f, 0xaf, 0xc7},  // imul rax, rdi
      {0x48, 0x19, 0xf8, 0x90},  // sbb rax, rdi
  };
  memcpy(at, moves, 3), at += 3;
  for (unsigned i = 0; i < count; ++i, at += 4) memcpy(at, operations[next_random() % 9], 4);
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
    add_u64(((Function)code)((uint64_t)i));
  }
  report("patched");

  for (int i = 0; i < 3000; ++i) {
    unsigned char* at = code + next_random() % (size - 600);
    emit_random(at, (unsigned)(next_random() % 120));
    for (int j = 0; j < 3; ++j) add_u64(((Function)at)(next_random()));
  }
  report("anywhere");

  for (int i = 0; i < 600; ++i) {
    unsigned char* at = code + (i % 16) * 4096;
    mprotect(code, size, PROT_READ | PROT_WRITE);
    emit_random(at, 50);
    mprotect(code, size, PROT_READ | PROT_EXEC);
    add_u64(((Function)at)((uint64_t)i));
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
    add_u64(((Function)(executable + at))((uint64_t)i));
  }
  report("two mappings");

  // Written through the file.
  for (int i = 0; i < 500; ++i) {
    unsigned char one[8];
    emit_add(one, i);
    if (pwrite(fd, one, sizeof(one), 4090) != sizeof(one)) return 1;  // across two pages
    add_u64(((Function)(executable + 4090))((uint64_t)i));
  }
  report("pwrite");

  // mov dword [rip + 1], edi; mov eax, imm32; ret: changes its own next instruction.
  const unsigned char self[] = {0x89, 0x3d, 0x01, 0x00, 0x00, 0x00, 0xb8, 0, 0, 0, 0, 0xc3};
  memcpy(code, self, sizeof(self));
  for (int i = 0; i < 2000; ++i) add_u64((uint32_t)((Function)code)((uint64_t)i * 77));
  report("itself");

  // Data beside code, on one page.
  emit_add(code, 1);
  volatile uint64_t* data = (uint64_t*)(code + 64);
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
    unsigned long bytes = 8;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    add_u64(((Function)(code + 4096))(3));
  }
  report("rep movsb");
  return 0;
}
