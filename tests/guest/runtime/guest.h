// What every guest of tests/guest stands on: a bare machine in 64-bit mode (start64.asm) or in 32-bit protected mode without
// paging (start32.asm), and checks. A check runs a few instructions in a given state until a vector is taken, and prints one
// line: its name, then what happened.
//
//   CHECK("DIV by zero", "xor ecx, ecx; div ecx", .cpl = 3);     DIV by zero: #DE +2
//
// "+2" is the saved RIP from the first instruction; "done" means that the end of the code was reached.
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vector { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XM, END = 0x81 };

enum flag {
  FL_CF = 1, FL_FIXED = 2, FL_TF = 1 << 8, FL_IF = 1 << 9, FL_DF = 1 << 10, FL_IOPL = 3 << 12, FL_NT = 1 << 14,
  FL_RF = 1 << 16, FL_VM = 1 << 17, FL_AC = 1 << 18, FL_VIF = 1 << 19, FL_VIP = 1 << 20, FL_ID = 1 << 21,
};
enum { FL_ARITHMETIC = 0x8d5 };

enum {
  CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_NE = 32, CR0_WP = 1 << 16, CR0_AM = 1 << 18, CR0_NW = 1 << 29,
  CR0_CD = 1 << 30,
};
#define CR0_PG 0x80000000u
enum {
  CR4_VME = 1, CR4_PVI = 2, CR4_TSD = 4, CR4_DE = 8, CR4_PSE = 16, CR4_PAE = 32, CR4_MCE = 64, CR4_PGE = 128, CR4_PCE = 256,
  CR4_OSFXSR = 512, CR4_OSXMMEXCPT = 1024, CR4_UMIP = 2048, CR4_FSGSBASE = 1 << 16, CR4_PCIDE = 1 << 17,
  CR4_OSXSAVE = 1 << 18, CR4_SMEP = 1 << 20, CR4_SMAP = 1 << 21,
};
enum { MSR_EFER = 0xc0000080, EFER_SCE = 1, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11 };

#ifdef __x86_64__
enum selector {
  KCODE = 0x08, KDATA = 0x10, UCODE32 = 0x1b, UDATA = 0x23, UCODE = 0x2b, KCODE32 = 0x30, KCODE16 = 0x38, TSS_SELECTOR = 0x40,
  FREE_SELECTOR = 0x50,
};
#else
enum selector {
  KCODE = 0x08, KDATA = 0x10, UCODE = 0x1b, UDATA = 0x23, KCODE16 = 0x28, KDATA16 = 0x30, TSS_SELECTOR = 0x38,
  DF_TSS_SELECTOR = 0x40, FREE_SELECTOR = 0x48,
};
#endif

// Memory that checks use; nothing else lives there. Each is also in the user alias where there is paging.
#define DATA 0x800000ul        // RSI
#define DATA2 0x810000ul       // RDI
#define STACK_TOP 0x900000ul   // RSP
#define FREE_PAGES 0xa00000ul  // up to RAM_END: page tables and pages of the guest's own
#define RAM_END 0x3000000ul
#ifdef __x86_64__
#define USER_ALIAS 0x40000000ul  // where users see all of memory; the kernel's own view is one to one
#else
#define USER_ALIAS 0ul
#endif

// The order is the assembly code's (`enter`).
struct machine_state {
  unsigned long ax, cx, dx, bx, sp, bp, si, di;
#ifdef __x86_64__
  unsigned long r8, r9, r10, r11, r12, r13, r14, r15;
#endif
  unsigned long ip, flags, cs, ss;
#ifndef __x86_64__
  unsigned long ds, es, fs, gs;
#endif
};

struct catch {
  struct machine_state state;  // in the code that was left
  unsigned long frame;         // address of the frame: error code if there is one, RIP, CS, RFLAGS...
  unsigned long vector;
  unsigned long error;
  unsigned long handler_flags, handler_cs, handler_ss;
  unsigned long handler_ds, handler_es, handler_fs, handler_gs;
  unsigned long cr2, dr6;
};

extern struct catch caught;

// What a check starts with. Zero members mean: CPL 0, flags 2, selectors of that CPL, the addresses above, and 0x1111 * n in
// the other registers.
struct setup {
  unsigned cpl;
  unsigned long ax, cx, dx, bx, sp, bp, si, di, flags, ip;
  unsigned cs, ss, ds, es, fs, gs;  // all but CS and SS outside 64-bit mode only; ES is DS unless given
  // Of the state that was left, what to print: a c d b p(SP) B(BP) s(SI) i(DI) f(flags but RF and the arithmetic ones) F(flags
  // but RF) R(RF) S(CS and SS) m(16 bytes at DATA) 6(DR6) h(flags and CS in the handler) z(SS in the handler) k(the frame's place below STACK_TOP).
  const char* show;
};

// Assembles `text` into a page that users may run, and ends it with INT 81h.
#define CODE_BITS(bits, text)                                                                       \
  ({                                                                                                \
    char* code_;                                                                                    \
    asm volatile(".pushsection .snippets, \"awx\", @progbits\n"                                     \
                 ".code" bits "\n771:\n" text "\nint 0x81\n"                                        \
                 ".code" NATIVE_BITS "\n.popsection\n" LOAD_ADDRESS                                 \
                 : "=r"(code_));                                                                    \
    code_;                                                                                          \
  })
#ifdef __x86_64__
#define NATIVE_BITS "64"
#define LOAD_ADDRESS "lea %0, [rip + 771b]"
#else
#define NATIVE_BITS "32"
#define LOAD_ADDRESS "mov %0, offset 771b"
#endif
#define CODE(text) CODE_BITS(NATIVE_BITS, text)

#define CHECK(name, text, ...) check(name, CODE(text), (struct setup){__VA_ARGS__})
#define RUN(text, ...) run(CODE(text), (struct setup){__VA_ARGS__})

void guest_main(void);

void run(const char* code, struct setup setup);
// "#GP(0000) +3", and what `show` names, of the last run.
void report(const char* show);
void put_outcome(const char* show);  // without the line's end
void check(const char* name, const char* code, struct setup setup);

// Prints to the debug console: %s %c, and %d %x %X(8 digits) of unsigned long.
void say(const char* format, ...);
void finish(void) __attribute__((noreturn));
void put_text(const char* text, size_t size);

// Checks begin with it: the bare processor (native.c) has CPL 3 only, and ignores what the privileged functions below would do.
#ifdef NATIVE
enum { FIRST_CPL = 3 };
#else
enum { FIRST_CPL = 0 };
#endif

void set_gate(unsigned vector, unsigned long target, unsigned type_and_dpl, unsigned selector, unsigned ist);
void default_gates(void);
#define GATE_INTERRUPT 0x8e
#define GATE_TRAP 0x8f
extern uint64_t gdt[64];
extern char vector_stubs[];
#ifdef __x86_64__
extern uint8_t idt[4096], tss[4096];
#define STUB(vector) ((unsigned long)vector_stubs + (vector) * 32)
#else
extern uint8_t idt[4096], tss[12288], df_tss[4096];
extern char narrow_stub[];  // takes the frame of a 16-bit gate
extern char task_stubs[];   // entries of tasks for vectors with an error code
#define STUB(vector) ((unsigned long)vector_stubs + (vector) * 16)
#endif

void enter(const struct machine_state* state);
#ifndef __x86_64__
// In real mode, with `limits` the selector whose limits DS, ES, FS and GS keep: KDATA16 or KDATA. The image is to be copied to 6000h,
// and interrupt n to lead to 6000h + n * 8; the words from 7000h on are its own.
void enter_real(const struct machine_state* state, unsigned limits);
extern char real_image[], real_image_end[];
#endif

static inline uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags) {
  return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 | (uint64_t)(limit >> 16 & 15) << 48 |
         (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}
enum { GRANULAR = 8, BIG = 4 };

#ifdef NATIVE
#define PRIVILEGED(...) (void)0
#else
#define PRIVILEGED(...) asm volatile(__VA_ARGS__)
#endif
#define IN_OUT_OF(width, type)                                             \
  static inline type in##width(unsigned port) {                            \
    type value;                                                            \
    asm volatile("in %0, dx" : "=a"(value) : "d"((uint16_t)port));         \
    return value;                                                          \
  }                                                                        \
  static inline void out##width(unsigned port, type value) {               \
    asm volatile("out dx, %0" ::"a"(value), "d"((uint16_t)port));          \
  }
IN_OUT_OF(8, uint8_t)
IN_OUT_OF(16, uint16_t)
IN_OUT_OF(32, uint32_t)

#define CONTROL_REGISTER(name)                                                                   \
  static inline unsigned long read_##name(void) {                                                \
    unsigned long value = 0;                                                                     \
    PRIVILEGED("mov %0, " #name : "=r"(value));                                                  \
    return value;                                                                                \
  }                                                                                              \
  static inline void write_##name(unsigned long value) {                                         \
    (void)value;                                                                                 \
    PRIVILEGED("mov " #name ", %0" ::"r"(value) : "memory");                                     \
  }
CONTROL_REGISTER(cr0)
CONTROL_REGISTER(cr2)
CONTROL_REGISTER(cr3)
CONTROL_REGISTER(cr4)
CONTROL_REGISTER(dr0)
CONTROL_REGISTER(dr1)
CONTROL_REGISTER(dr2)
CONTROL_REGISTER(dr3)
CONTROL_REGISTER(dr6)
CONTROL_REGISTER(dr7)

static inline uint64_t read_msr(uint32_t index) {
  uint32_t low = 0, high = 0;
  (void)index;
  PRIVILEGED("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
  return (uint64_t)high << 32 | low;
}
static inline void write_msr(uint32_t index, uint64_t value) {
  (void)index, (void)value;
  PRIVILEGED("wrmsr" ::"c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}
static inline void invlpg(unsigned long address) {
  (void)address;
  PRIVILEGED("invlpg [%0]" ::"r"(address) : "memory");
}
struct cpuid {
  uint32_t eax, ebx, ecx, edx;
};
static inline struct cpuid cpuid(uint32_t function, uint32_t index) {
  struct cpuid leaf;
  asm volatile("cpuid" : "=a"(leaf.eax), "=b"(leaf.ebx), "=c"(leaf.ecx), "=d"(leaf.edx) : "a"(function), "c"(index));
  return leaf;
}

// QEMU does not survive some checks.
static inline bool is_tcg(void) {
  return cpuid(0x40000000, 0).ebx == 0x54474354;
}

#ifdef NATIVE
#include <string.h>
#else
void* memset(void* to, int value, size_t size);
void* memcpy(void* to, const void* from, size_t size);
#endif
