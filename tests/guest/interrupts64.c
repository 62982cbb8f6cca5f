// Interrupts and what keeps them away: STI, MOV SS, POPF, IRET, HLT; their order against traps and faults. A timer interrupt is
// pending before each check begins.
#include "runtime/guest.h"

enum { PIC = 0x20, PIT = 0x40, TIMER = 0x30 };

static void start_timer(unsigned count) {
  out8(PIC, 0x11);
  out8(PIC + 1, TIMER);
  out8(PIC + 1, 4);
  out8(PIC + 1, 1);
  out8(PIC + 1, 0xfe);
  out8(PIT + 3, 0x30);  // counter 0, mode 0: the output rises once
  out8(PIT, count & 0xff);
  out8(PIT, count >> 8);
}

static void make_pending(void) {
  start_timer(20);
  do {
    out8(PIC, 0x0a);
  } while (!(in8(PIC) & 1));
}

#define PENDING(name, text, ...)   \
  make_pending();                  \
  CHECK(name, text, __VA_ARGS__)

static void shadows(void) {
  say("-- a pending interrupt\n");
  PENDING("IF clear", "nop; nop", .show = "f");
  PENDING("IF set", "nop; nop", .flags = FL_IF, .show = "fh");
  PENDING("STI", "sti; nop; nop", .show = "fh");
  PENDING("STI, STI", "sti; sti; nop; nop");
  PENDING("STI, STI, CLI", "sti; sti; cli; nop");
  PENDING("STI, CLI", "sti; cli; nop; nop", .show = "f");
  PENDING("STI, CLI, STI, CLI", "sti; cli; sti; cli; nop; nop", .show = "f");
  PENDING("STI, CLI, STI", "sti; cli; sti; nop; nop", .show = "f");
  PENDING("STI, MOV SS", "mov eax, 0x10; sti; mov ss, eax; nop; nop");
  PENDING("STI, MOV DS", "mov eax, 0x10; sti; mov ds, eax; nop; nop");
  PENDING("STI, LSS", "mov dword ptr [rsi], 0x900000; mov word ptr [rsi + 4], 0x10; sti; lss esp, [rsi]; nop; nop");
  PENDING("STI, jump", "sti; jmp 1f; nop; 1: nop; nop");
  PENDING("STI, jump not taken", "xor eax, eax; sti; jnz 1f; nop; 1: nop; nop");
  PENDING("STI, CALL", "sti; call 1f; nop; 1: nop", .show = "p");
  PENDING("STI, RET", "lea rax, [rip + 1f]; push rax; sti; ret; nop; 1: nop; nop", .show = "p");
  PENDING("STI, CPUID", "sti; cpuid; nop");
  PENDING("STI, MOV to CR0", "mov rax, cr0; sti; mov cr0, rax; nop");
  PENDING("STI, MOV to CR3", "mov rax, cr3; sti; mov cr3, rax; nop");
  PENDING("STI, IN", "mov edx, 0x64; sti; in al, dx; nop");
  PENDING("STI, load", "sti; mov eax, [rsi]; nop");
  PENDING("STI, REP MOVSB with RCX 0", "xor ecx, ecx; sti; rep movsb; nop", .show = "c");
  PENDING("STI, HLT", "sti; hlt; nop; nop");
  PENDING("STI, NOP, HLT", "sti; nop; hlt; nop; nop");
  PENDING("STI, INT n", "sti; int 0x81; nop", .show = "f");
  PENDING("STI, UD2", "sti; ud2", .show = "f");
  PENDING("STI, HLT at CPL 3", "sti; hlt", .cpl = 3, .flags = FL_IOPL);
  PENDING("STI, page fault", "mov rax, 0x20000000; sti; mov eax, [rax]", .show = "f");
  PENDING("POPF that sets IF", "push 0x202; popfq; nop; nop");
  PENDING("POPF that sets IF, then CLI", "push 0x202; popfq; cli; nop");
  PENDING("POPF that clears IF in the shadow of STI", "push 2; sti; popfq; nop; nop", .show = "f");
  PENDING("POPF that sets IF, 16 bits", "push 0x202; popf; nop; nop");
  PENDING("IRETQ that sets IF", "push 0x10; mov rax, rsp; push rax; push 0x202; push 8; lea rax, [rip + 1f]; push rax; iretq; 1: nop;"
          "nop");
  PENDING("IRETQ to CPL 3 that sets IF", "push 0x23; push rsp; push 0x202; push 0x2b; lea rax, [rip + 1f]; add rax, 0x40000000;"
          "push rax; iretq; 1: nop; nop");
  PENDING("SYSRET that sets IF", "lea rcx, [rip + 1f]; add rcx, 0x40000000; mov r11d, 0x202; sysretq; 1: nop; nop", .show = "S");
  PENDING("CLI, STI with IF set", "cli; sti; nop; nop", .flags = FL_IF);

  say("-- a pending interrupt, CPL 3\n");
  PENDING("IF set", "nop; nop", .cpl = 3, .flags = FL_IF, .show = "fSh");
  PENDING("IF clear", "nop; nop", .cpl = 3, .show = "f");
  PENDING("STI with IOPL 0", "sti; nop", .cpl = 3);
  PENDING("CLI with IOPL 0", "cli; nop", .cpl = 3);
  PENDING("STI with IOPL 3", "sti; nop; nop", .cpl = 3, .flags = FL_IOPL, .show = "f");
  PENDING("POPF with IOPL 0", "push 0x202; popfq; nop", .cpl = 3, .show = "f");
  PENDING("POPF with IOPL 3", "push 0x202; popfq; nop", .cpl = 3, .flags = FL_IOPL, .show = "f");
  PENDING("SYSCALL with IF masked", "syscall", .cpl = 3, .show = "S");

  say("-- a pending interrupt, 32-bit code\n");
  make_pending();
  check("STI", CODE_BITS("32", "sti; nop; nop"), (struct setup){.cs = KCODE32});
  make_pending();
  check("STI, POP SS", CODE_BITS("32", "push 0x10; sti; pop ss; nop; nop"), (struct setup){.cs = KCODE32});
  make_pending();
  check("STI, POP DS", CODE_BITS("32", "push 0x10; sti; pop ds; nop; nop"), (struct setup){.cs = KCODE32});
  make_pending();
  check("POPFD", CODE_BITS("32", "push 0x202; popfd; nop; nop"), (struct setup){.cs = KCODE32});
}

static void traps(void) {
  say("-- a pending interrupt and the trap flag\n");
  PENDING("TF", "nop; nop", .flags = FL_TF, .show = "f6");
  PENDING("TF and IF", "nop; nop", .flags = FL_TF | FL_IF, .show = "f6");
  PENDING("TF, STI", "sti; nop; nop", .flags = FL_TF, .show = "f6");
  PENDING("TF, MOV SS", "mov ss, eax; nop; nop", .ax = KDATA, .flags = FL_TF, .show = "f6");
  PENDING("TF, POPF that sets IF", "popfq; nop; nop", .sp = STACK_TOP - 8, .flags = FL_TF, .show = "f6");
  PENDING("POPF that sets TF and IF", "push 0x302; popfq; nop; nop", .show = "f6");
  PENDING("POPF that sets TF, STI", "push 0x102; popfq; sti; nop; nop", .show = "f6");
  PENDING("STI, POPF that sets TF", "push 0x302; sti; popfq; nop; nop", .show = "f6");
  PENDING("STI, ICEBP", "sti; .byte 0xf1", .show = "f6");
  PENDING("STI, INT3", "sti; int3", .show = "f");
}

static void halt_and_repeat(void) {
  say("-- interrupts that come later\n");
  start_timer(20000);
  CHECK("HLT", "hlt; nop", .flags = FL_IF, .show = "f");
  start_timer(20000);
  CHECK("STI, HLT", "sti; hlt; nop", .show = "f");
  start_timer(20000);
  CHECK("HLT, jump to HLT", "1: hlt; nop; jmp 1b", .flags = FL_IF);
  start_timer(20000);
  CHECK("endless loop", "1: jmp 1b", .flags = FL_IF);
  start_timer(20000);
  CHECK("endless loop, CPL 3", "1: jmp 1b", .cpl = 3, .flags = FL_IF);

  start_timer(20000);
  RUN("1: mov rdi, rbx; mov rcx, rbp; rep stosb; jmp 1b", .bx = DATA2, .bp = 0x10000, .flags = FL_IF);
  const bool in_loop = caught.vector == TIMER && caught.state.di + caught.state.cx == DATA2 + 0x10000;
  say("REP STOSB: %s\n", in_loop || caught.state.cx == 0x2222 || caught.state.cx == 0 ? "consistent" : "not consistent");
}

void guest_main(void) {
  default_gates();
  write_msr(0xc0000081, 0x0018000800000000);                   // STAR: SYSCALL to 08, SYSRET to 18 + 16
  write_msr(0xc0000082, (unsigned long)CODE("nop; nop"));      // LSTAR
  write_msr(0xc0000084, FL_IF | FL_TF);                        // SFMASK
  *(unsigned long*)(STACK_TOP - 8) = 0x302;
  const uint64_t rsp0 = STACK_TOP - 0x1000;
  memcpy(tss + 4, &rsp0, 8);
  shadows();
  traps();
  halt_and_repeat();
  finish();
}
