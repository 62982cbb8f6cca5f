// What tests/boot/gdb_program_test.py debugs, on the runtime of tests/guest.
#include "guest.h"

unsigned long total;

unsigned long sum(unsigned count) {
  unsigned long result = 0;
  for (unsigned i = 0; i < count; ++i) result += i;  // one line
  total = result;
  return result;
}

unsigned long triangle(unsigned count) {
  unsigned long result = 0;
  unsigned i = 0;
  while (i < count) {
    ++i;
    result += i;
  }
  return result;  // behind the loop
}

unsigned long factorial(unsigned n) {
  if (n < 2) return 1;
  return n * factorial(n - 1);
}

uint64_t vectors[16][4], stored[16][4];
char extended[10];

// Loads XMM, YMM and x87 registers, and stores what they are then.
void load_registers(void) {
  for (unsigned i = 0; i < 16; ++i)
    for (unsigned j = 0; j < 4; ++j) vectors[i][j] = 0x0101010101010101 * (i * 4 + j + 1);
  write_cr4(read_cr4() | CR4_OSXSAVE);
  asm volatile("xor ecx, ecx; xor edx, edx; mov eax, 7; xsetbv" ::: "eax", "ecx", "edx");
  asm volatile("vmovups ymm0, [%0]; vmovups ymm3, [%0 + 3 * 32]; vmovups ymm7, [%0 + 7 * 32]" ::"r"(vectors));
#ifdef __x86_64__
  asm volatile("vmovups ymm15, [%0 + 15 * 32]" ::"r"(vectors));
#endif
  asm volatile("fninit; fldpi; fld1");
}

void store_registers(void) {
  asm volatile("vmovups [%0], ymm0; vmovups [%0 + 3 * 32], ymm3; vmovups [%0 + 7 * 32], ymm7" ::"r"(stored) : "memory");
  asm volatile("fstp tbyte ptr [%0]" ::"r"(extended) : "memory");
}

void code_moves(void);
#ifdef __x86_64__
extern uint64_t page_pdpt[512], page_pml4[512];
#define MOVED 0x80000000ul
#define TABLE(n) ((uint64_t*)(FREE_PAGES + (n) * 0x1000))

static void invalidate(void) {
  asm volatile("invlpg [%0]" ::"r"(MOVED) : "memory");
}

// A function at MOVED, in one page and in another: MOV EAX, n; RET.
void code_moves(void) {
  unsigned long (*moved)(void) = (unsigned long (*)(void))MOVED;
  for (unsigned i = 0; i < 2; ++i) {
    char* code = (char*)TABLE(8 + i);
    code[0] = (char)0xb8, code[1] = (char)(11 * (i + 1)), code[2] = code[3] = code[4] = 0, code[5] = (char)0xc3;
  }
  page_pdpt[2] = (uint64_t)TABLE(0) | 3;
  TABLE(0)[0] = (uint64_t)TABLE(1) | 3;
  TABLE(1)[0] = (uint64_t)TABLE(8) | 3;
  total = moved();
  TABLE(1)[0] = (uint64_t)TABLE(9) | 3;
  invalidate();
  total = moved();
  // Another address space, where it is the first one again.
  for (unsigned i = 0; i < 512; ++i) TABLE(2)[i] = page_pml4[i], TABLE(3)[i] = page_pdpt[i];
  TABLE(2)[0] = (uint64_t)TABLE(3) | 7;
  TABLE(3)[2] = (uint64_t)TABLE(4) | 3;
  TABLE(4)[0] = (uint64_t)TABLE(5) | 3;
  TABLE(5)[0] = (uint64_t)TABLE(8) | 3;
  write_cr3((unsigned long)TABLE(2));
  total = moved();
  write_cr3((unsigned long)page_pml4);
  total = moved();
}
#else
void code_moves(void) {}
#endif

void guest_main(void) {
  total = triangle(10) + factorial(5);
  sum(1000);
  load_registers();
  store_registers();
  code_moves();
  say("%d\n", total);
  finish();
}
