// Breakpoints, the trap flag and RF outside 64-bit mode: 16-bit code, segments with bases, virtual-8086 mode, task switches, and the
// instructions that 64-bit mode does not have. The rest is debug64.c's.
#include "runtime/guest.h"

enum { EXECUTION, WRITES, PORTS, ACCESSES };
#define DR7_FIXED 0x400ul
#define BREAK(number, kind, length) \
  (1ul << 2 * (number) | (unsigned long)(kind) << (16 + 4 * (number)) | ((length)-1ul) << (18 + 4 * (number)))
enum { CODE16 = FREE_SELECTOR, DATA_HERE = FREE_SELECTOR + 8, OTHER_TASK = FREE_SELECTOR + 16 };
#define LOW 0x20000u

static unsigned cpl;

// At DATA + 300h, for POP SS; at DATA + 310h, for POPF.
static void fill_stack(void) {
  uint32_t* const stack = (uint32_t*)(DATA + 0x300);
  stack[0] = stack[1] = cpl ? UDATA : KDATA;
  stack[4] = 2;
}

static void run_with(const char* code, unsigned long dr7, struct setup setup) {
  setup.cpl = cpl;
  write_dr7(DR7_FIXED | dr7);
  run(code, setup);
  write_dr7(DR7_FIXED);
}
static void check_with(const char* name, const char* code, unsigned long dr7, struct setup setup) {
  run_with(code, dr7, setup);
  say("%s: ", name);
  report(setup.show ? setup.show : "R6");
}
#define AT(name, offset, text, ...)                                                     \
  do {                                                                                  \
    const char* const code_at_ = CODE(text);                                            \
    fill_stack();                                                                       \
    write_dr0((unsigned long)code_at_ + (offset));                                      \
    check_with(name, code_at_, BREAK(0, EXECUTION, 1), (struct setup){__VA_ARGS__});    \
  } while (0)
#define ON(name, kind, text, ...)                                                       \
  write_dr2(DATA + 0x40);                                                               \
  check_with(name, CODE(text), BREAK(2, kind, 4), (struct setup){.di = DATA + 0x40, .si = DATA + 0x100, __VA_ARGS__})

static void protected_mode(void) {
  say("-- 32-bit code, CPL %d\n", (unsigned long)cpl);
  AT("first instruction", 0, "nop; nop");
  AT("RF set", 0, "nop; nop", .flags = FL_RF);
  AT("loop, RF set", 0, "dec ecx; jnz .-1", .flags = FL_RF, .cx = 3, .show = "Rc6");
  AT("INTO that is not taken", 2, "xor eax, eax; into; nop");
  AT("after INTO that is not taken", 3, "xor eax, eax; into; nop");
  AT("BOUND", 0, "bound eax, [esi]");
  AT("after POP SS", 1, "pop ss; nop; nop", .sp = DATA + 0x300);
  AT("one after POP SS", 2, "pop ss; nop; nop", .sp = DATA + 0x300);
  AT("after POP DS", 1, "pop ds; nop; nop", .sp = DATA + 0x300);
  AT("after far JMP", 7, ".byte 0xea; .long 1f; .word 0x1b; 1: nop", .cs = UCODE, .ss = UDATA);
  AT("the PUSHA behind", 1, "nop; pushad");
  AT("target of IRETD", 13, "push 2; mov eax, cs; push eax; lea eax, [1f]; push eax; iretd; 1: nop; nop");
  AT("target of IRETD that sets RF", 16, "push 0x10002; mov eax, cs; push eax; lea eax, [1f]; push eax; iretd; 1: nop; nop");
  say("-- data, CPL %d\n", (unsigned long)cpl);
  for (unsigned kind = WRITES; kind <= ACCESSES; kind += 2) {
    ON("PUSHA", kind, "lea esp, [edi + 16]; pushad; nop");
    ON("POPA", kind, "lea esp, [edi - 8]; popad; nop");
    ON("PUSHA, 16 bits", kind, "lea esp, [edi + 8]; pushaw; nop");
    ON("BOUND", kind, "mov eax, [edi - 4]; bound eax, [edi - 4]; nop", .ax = 1);
    ON("LES", kind, "mov dword ptr [edi + 4], 0x23; les ecx, [edi]; nop");
    *(uint32_t*)(DATA + 0x40) = UDATA;
    ON("LES, selector only", kind, "lea edi, [edi - 4]; les ecx, [edi]; nop");
    ON("ARPL", kind, "arpl [edi], cx; nop");
    ON("XCHG", kind, "xchg eax, [edi]; nop");
    ON("MOVSD", kind, "movsd; nop");
    ON("REP MOVSW", kind, "lea edi, [edi - 4]; rep movsw; nop", .cx = 8, .show = "Rci6");
    ON("FNSAVE", kind, "fnsave [edi - 16]; nop");
    ON("CALL", kind, "lea esp, [edi + 4]; call 1f; 1: nop");
    ON("far CALL, CS", kind, "lea esp, [edi + 4]; mov eax, cs; .byte 0x9a; .long 1f; .word 0x1b; 1: nop", .cs = UCODE, .ss = UDATA);
    ON("far CALL, EIP", kind, "lea esp, [edi + 8]; mov eax, cs; .byte 0x9a; .long 1f; .word 0x1b; 1: nop", .cs = UCODE, .ss = UDATA);
    ON("ENTER with levels", kind, "lea esp, [edi + 12]; enter 4, 2; nop", .bp = STACK_TOP - 0x200);
    check_with("through a segment with a base", CODE("mov fs:[edi], ecx; nop"), BREAK(2, kind, 4),
               (struct setup){.di = 0x40, .fs = DATA_HERE | 3});
  }
  say("-- the trap flag, CPL %d\n", (unsigned long)cpl);
#define TF(name, text, ...) fill_stack(); CHECK(name, text, .cpl = cpl, .flags = FL_TF, .show = "fR6", __VA_ARGS__)
  TF("INTO that is not taken", "into; nop");
  TF("POP SS", "pop ss; nop; nop", .sp = DATA + 0x300);
  TF("POP SS, POP SS", "pop ss; pop ss; nop; nop", .sp = DATA + 0x300);
  TF("POP DS", "pop ds; nop; nop", .sp = DATA + 0x300);
  TF("LES", "les ecx, [esi]; nop", .si = DATA + 0x200);
  TF("PUSHA", "pushad; nop");
  TF("POPA", "popad; nop", .sp = STACK_TOP - 0x200);
  TF("DAA", "daa; nop");
  TF("AAM 0", "aam 0");
  {
    uint8_t* const self = (uint8_t*)CODE(".byte 0xea; .long 0; .word 0x1b");
    memcpy(self + 1, &self, 4);
    check("far JMP to itself", (const char*)self, (struct setup){.cpl = 3, .flags = FL_TF, .show = "fR6"});
  }
  TF("POPF that clears TF", "popfd; nop; nop", .sp = DATA + 0x310);
  TF("LAHF", "lahf; nop");
  TF("SYSENTER without a selector", "sysenter");
}

static void narrow(void) {
  say("-- 16-bit code at a base, CPL %d\n", (unsigned long)cpl);
  gdt[CODE16 / 8] = descriptor(LOW, 0xffff, 0x9b | cpl << 5, 0);
  memcpy((void*)(LOW + 0x100), CODE_BITS("16", "nop; mov ax, 5; nop; jmp 1f; nop; 1: inc ax; nop"), 64);
  // QEMU 7.2 crashes where a breakpoint lies in code with a base.
  for (unsigned offset = 0; offset <= 10 && !is_tcg(); ++offset) {
    write_dr0(LOW + 0x100 + offset);
    say("breakpoint at %d: ", (unsigned long)offset);
    run_with((const char*)0, BREAK(0, EXECUTION, 1), (struct setup){.cs = CODE16 | cpl, .ip = 0x100});
    say("vector %d ip=%x dr6=%x ax=%x\n", caught.vector, caught.state.ip, caught.dr6, caught.state.ax);
  }
  write_dr0(0x100);
  say("breakpoint at the offset: ");
  run_with((const char*)0, BREAK(0, EXECUTION, 1), (struct setup){.cs = CODE16 | cpl, .ip = 0x100});
  say("vector %d ip=%x dr6=%x ax=%x\n", caught.vector, caught.state.ip, caught.dr6, caught.state.ax);

  say("-- virtual-8086 mode\n");
  for (unsigned offset = 0; offset <= 10 && !is_tcg(); ++offset) {
    write_dr0(LOW + 0x100 + offset);
    say("breakpoint at %d: ", (unsigned long)offset);
    write_dr7(DR7_FIXED | BREAK(0, EXECUTION, 1));
    run((const char*)0, (struct setup){.cpl = 3, .cs = LOW / 16, .ip = 0x100, .ss = 0x3000, .ds = 0x3000, .sp = 0x1000,
                                       .flags = FL_VM | FL_IOPL | (offset == 10 ? FL_RF : 0)});
    write_dr7(DR7_FIXED);
    say("vector %d %x:%x dr6=%x ax=%x flags=%x\n", caught.vector, caught.state.cs, caught.state.ip, caught.dr6, caught.state.ax,
        caught.state.flags & ~(unsigned long)FL_ARITHMETIC);
  }
  static const struct {
    const char* name;
    const char* bytes;
    unsigned count;
  } kSteps[] = {{"NOP", "\x90\x90", 2},         {"MOV SS", "\x8e\xd0\x90\x90", 4}, {"POP SS", "\x17\x90\x90", 3},
                {"INT3", "\xcc", 1},            {"PUSHF", "\x9c\x90", 2},          {"INTO", "\xce\x90", 2},
                {"HLT", "\xf4", 1},             {"STI", "\xfb\x90\x90", 3},        {"CLI", "\xfa\x90", 2},
                {"REP STOSB", "\xf3\xaa\x90", 3}};
  set_gate(BP, STUB(BP), 0xee, KCODE, 0);
  for (unsigned i = 0; i < sizeof kSteps / sizeof *kSteps; ++i) {
    memcpy((void*)(LOW + 0x100), kSteps[i].bytes, kSteps[i].count);
    memcpy((void*)(LOW + 0x100 + kSteps[i].count), "\xcd\x81", 2);
    say("TF, %s: ", kSteps[i].name);
    run((const char*)0, (struct setup){.cpl = 3, .cs = LOW / 16, .ip = 0x100, .ss = 0x3000, .ds = 0x3000, .sp = 0x1000, .ax = 0x3000,
                                       .cx = 3, .flags = FL_VM | FL_IOPL | FL_TF});
    say("vector %d(%x) %x:%x dr6=%x flags=%x\n", caught.vector, caught.error, caught.state.cs, caught.state.ip, caught.dr6,
        caught.state.flags & ~(unsigned long)FL_ARITHMETIC);
  }
  default_gates();
  write_dr1(0x30000 + 0x40);
  memcpy((void*)(LOW + 0x100), "\xa2\x40\x00\x90\xcd\x81", 6);  // MOV [40h], AL
  say("data breakpoint: ");
  write_dr7(DR7_FIXED | BREAK(1, WRITES, 1));
  run((const char*)0, (struct setup){.cpl = 3, .cs = LOW / 16, .ip = 0x100, .ss = 0x3000, .ds = 0x3000, .sp = 0x1000,
                                     .flags = FL_VM | FL_IOPL});
  write_dr7(DR7_FIXED);
  say("vector %d %x:%x dr6=%x\n", caught.vector, caught.state.cs, caught.state.ip, caught.dr6);
}

static void task_switches(void) {
  say("-- task switches\n");
  static uint32_t other[26];
  static const char* code;
  code = CODE("mov ecx, dr7; mov edx, dr6; nop; str eax");
  for (unsigned way = 0; way < 4; ++way) {
    memset(other, 0, sizeof other);
    other[8] = (uint32_t)code;
    other[9] = 2 | (way == 1 ? FL_TF : 0) | (way == 2 ? FL_RF : 0);
    other[14] = STACK_TOP - 0x2000;
    other[18] = other[20] = other[21] = KDATA;
    other[19] = KCODE;
    other[25] = 0x68 << 16;
    gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, 0x67, 0x89, 0);
    gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)tss, 0x67, 0x89, 0);
    asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
    *(uint32_t*)tss = 0;
    write_dr0((unsigned long)code);
    static const char* const kNames[] = {"no breakpoint", "TF in the new task", "global breakpoint, RF in the new task", "global breakpoint"};
    say("%s: ", kNames[way]);
    write_dr7(DR7_FIXED | 0x255 | (way >= 2 ? 2 : 0));
    run(CODE(".byte 0xea, 0, 0, 0, 0, 0x58, 0"), (struct setup){.cpl = 0});
    say("vector %d at +%x dr7=%x cx=%x dr6=%x\n", caught.vector, caught.state.ip - (unsigned long)code, read_dr7(), caught.state.cx, caught.dr6);
    write_dr7(DR7_FIXED);
    asm volatile("clts");
  }
  gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)tss, 0x67, 0x89, 0);
  asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
}

void guest_main(void) {
  default_gates();
  *(uint32_t*)(tss + 4) = STACK_TOP - 0x1000;
  gdt[DATA_HERE / 8] = descriptor(DATA, 0xfffff, 0xf3, GRANULAR | BIG);
  for (cpl = 0; cpl <= 3; cpl += 3) {
    *(uint32_t*)(DATA + 0x204) = cpl ? UDATA : KDATA;  // for LES
    protected_mode();
    narrow();
  }
  task_switches();
  finish();
}
