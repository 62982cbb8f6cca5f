// Interrupts and what keeps them away: STI, MOV SS, POPF, IRET, HLT; their order against traps and faults. A timer interrupt is
// pending before each check begins. NMIs, and what blocks and unblocks them.
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

// --- NMI: the local APIC sends them to itself, and gets them from lines.

extern uint64_t page_pml4[512];
#define APIC (1ul << 39)  // where the APICs' registers are mapped
#define IO_APIC (APIC + 0x1000)
enum { SPURIOUS = 0xf0, COMMAND = 0x300, LINT0 = 0x350, NMI_TO_0 = 0x4400, NMI_MODE = 0x400, MASKED = 0x10000, TIMER_INPUT = 2 };

static void map_apics(void) {
  uint64_t* const tables = (uint64_t*)FREE_PAGES;
  memset(tables, 0, 0x3000);
  page_pml4[1] = FREE_PAGES | 3;
  tables[0] = (FREE_PAGES + 0x1000) | 3;
  tables[512] = (FREE_PAGES + 0x2000) | 3;
  tables[1024] = 0xfee00000 | 0x13;
  tables[1025] = 0xfec00000 | 0x13;
}
static volatile uint32_t* apic(unsigned offset) {
  return (volatile uint32_t*)(APIC + offset);
}
static void set_timer_input(uint32_t value) {
  for (unsigned half = 0; half < 2; ++half) {
    *(volatile uint32_t*)IO_APIC = 0x10 + TIMER_INPUT * 2 + 1 - half;
    *(volatile uint32_t*)(IO_APIC + 0x10) = half ? value : 0;
  }
}

#define SEND "mov dword ptr [rbx], 0x4400;"
static void take_nmi(void) {
  RUN(SEND "1: jmp 1b", .bx = APIC + COMMAND);
}
// The handler of the last NMI has not executed IRET, so that this one waits; the IRETQ with which a check begins unblocks it.
static void make_nmi_pending(void) {
  take_nmi();
  *apic(COMMAND) = NMI_TO_0;
}
#define PENDING_NMI(name, text, ...) \
  make_nmi_pending();                \
  CHECK(name, text, __VA_ARGS__)

// A handler of NMIs sends itself another one, and goes on with `body`: was there a second one, and where did it come?
#define IN_HANDLER(name, body)                                                                                             \
  set_gate(NMI, (unsigned long)CODE("inc ecx; cmp ecx, 1; jne 8f;" SEND body "nop; nop; int 0x81;"                          \
                                    "8: mov rax, [rsp]; mov rdx, [rsp + 16]; lea rbp, [rip + 7b]; sub rax, rbp"),          \
           GATE_INTERRUPT, KCODE, 0);                                                                                      \
  RUN("xor ecx, ecx;" SEND "1: jmp 1b", .bx = APIC + COMMAND);                                                              \
  say("%s: %s", name, caught.state.cx == 1 ? "blocked" : "taken");                                                         \
  if (caught.state.cx == 2) say(" +%x flags=%x", caught.state.ax, caught.state.dx & ~(unsigned long)FL_ARITHMETIC);       \
  say("\n");                                                                                                               \
  forget_nmis()

static void forget_nmis(void) {
  default_gates();
  RUN("nop; nop");
  RUN("nop; nop");
}

#define IRETQ_TO_7(flags) "mov rax, rsp; push 0x10; push rax; push " flags "; push 8; lea rax, [rip + 7f]; push rax; iretq; 7:"

static void non_maskable(void) {
  say("-- NMI\n");
  map_apics();
  take_nmi();
  say("while an endless loop runs: ");
  report("fh");
  PENDING_NMI("IF clear", "nop; nop", .show = "fh");
  PENDING_NMI("IF set", "nop; nop", .flags = FL_IF, .show = "fh");
  PENDING_NMI("TF", "nop; nop", .flags = FL_TF, .show = "f6");
  PENDING_NMI("CPL 3", "nop; nop", .cpl = 3, .show = "fhS");
  PENDING_NMI("32-bit code", "nop; nop", .cs = KCODE32, .show = "fhS");
  PENDING_NMI("before HLT", "hlt", .show = "f");
  PENDING_NMI("before a page fault", "mov eax, [0x20000000]");
  make_nmi_pending();
  make_pending();
  CHECK("NMI and a pending interrupt", "nop; nop", .flags = FL_IF, .show = "f");
  CHECK("then the interrupt", "nop; nop", .flags = FL_IF, .show = "f");
  make_nmi_pending();
  *apic(COMMAND) = NMI_TO_0;
  CHECK("two become one", "nop; nop");
  CHECK("which is over", "nop; nop");
  RUN("mov dword ptr [rbx], 0x4400; nop; nop", .bx = APIC + COMMAND, .flags = FL_TF);
  say("after an instruction with TF: vector %x %s\n", caught.vector, caught.state.ip == STUB(DB) ? "before #DB's handler" : "elsewhere");
  make_nmi_pending();
  set_gate(NMI, STUB(NMI), 0x0e, KCODE, 1);
  CHECK("gate not present", "nop; nop");
  forget_nmis();

  say("-- NMI in the handler of an NMI\n");
  IN_HANDLER("nothing", "7:");
  IN_HANDLER("IRETQ", IRETQ_TO_7("2"));
  IN_HANDLER("IRETQ that sets TF", IRETQ_TO_7("0x102"));
  IN_HANDLER("IRETD", "sub rsp, 20; lea rax, [rip + 7f]; mov [rsp], eax; mov dword ptr [rsp + 4], 8; mov dword ptr [rsp + 8], 2;"
             "lea eax, [rsp + 20]; mov [rsp + 12], eax; mov dword ptr [rsp + 16], 0x10; iretd; 7:");
  IN_HANDLER("IRETQ to CPL 3", "push 0x23; lea rax, [rsp - 0x100]; bts rax, 30; push rax; push 2; push 0x2b; lea rax, [rip + 7f];"
             "bts rax, 30; push rax; iretq; 7:");
  IN_HANDLER("far RET", "push 8; lea rax, [rip + 7f]; push rax; retfq; 7:");
  IN_HANDLER("POPF", "push 2; popfq; 7:");
  IN_HANDLER("STI", "sti; 7: nop; cli;");
  set_gate(BP, (unsigned long)CODE("iretq"), GATE_INTERRUPT, KCODE, 0);
  IN_HANDLER("the IRETQ of an exception's handler", "int3; 7:");
  set_gate(GP, (unsigned long)CODE("nop; nop"), GATE_INTERRUPT, KCODE, 0);
  IN_HANDLER("IRETQ that raises #GP", "push 0x10; push rsp; push 2; push 0; lea rax, [rip + 7f]; push rax; iretq; 7:");

  say("-- lines that end in NMIs, IF clear\n");
  const uint32_t lint0 = *apic(LINT0);
  *apic(SPURIOUS) = 0x1ff;  // enabled by software: else all entries are masked
  *apic(LINT0) = NMI_MODE;
  start_timer(20000);
  CHECK("8259A, HLT", "hlt; nop", .show = "f");
  start_timer(20000);
  CHECK("8259A, endless loop", "1: jmp 1b", .show = "f");
  *apic(LINT0) = lint0;
  set_timer_input(NMI_MODE);
  start_timer(20000);
  CHECK("I/O APIC, HLT", "hlt; nop", .show = "f");
  start_timer(20000);
  CHECK("I/O APIC, endless loop, CPL 3", "1: jmp 1b", .cpl = 3, .show = "f");
  set_timer_input(MASKED);
  forget_nmis();
}

// --- A message of a PCI function (MSI) that is an NMI: the AHCI controller of tests/boot/guest_test.py tells that its disk has read.

static uint32_t pci_read(unsigned device, unsigned offset) {
  out32(0xcf8, 0x80000000u | device << 11 | offset);
  return in32(0xcfc);
}
static void pci_write(unsigned device, unsigned offset, uint32_t value) {
  out32(0xcf8, 0x80000000u | device << 11 | offset);
  out32(0xcfc, value);
}

static void message_of_a_disk(void) {
  enum { AHCI_ID = 0x29228086, COMMAND_REGISTER = 0x04, BAR5 = 0x24, MSI = 0x80, PLACE = 0xe0000000u, MEMORY_AND_MASTER = 6 };
  say("-- a PCI function's message that is an NMI, IF clear\n");
  unsigned device = 0;
  while (pci_read(device, 0) != AHCI_ID) {
    if (++device == 32) return say("no AHCI controller\n");
  }
  pci_write(device, BAR5, PLACE);
  pci_write(device, COMMAND_REGISTER, MEMORY_AND_MASTER);
  pci_write(device, MSI + 4, 0xfee00000);
  pci_write(device, MSI + 8, 0);
  pci_write(device, MSI + 12, NMI_MODE);
  pci_write(device, MSI, 0x10000);
  ((uint64_t*)FREE_PAGES)[1024 + 2] = PLACE | 0x13;
  volatile uint32_t* const ahci = (volatile uint32_t*)(APIC + 0x2000);
  volatile uint32_t* const port = ahci + 0x100 / 4;
  // The list of commands, what is received, the command's table, the sector.
  const uint32_t list = FREE_PAGES + 0x10000, received = list + 0x1000, table = list + 0x2000, sector = list + 0x3000;
  memset((void*)(unsigned long)list, 0, 0x4000);
  const uint32_t header[] = {5 | 1 << 16, 0, table, 0}, region[] = {sector, 0, 0, 511};
  const uint8_t read_dma_ext[] = {0x27, 0x80, 0x25, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0};
  memcpy((void*)(unsigned long)list, header, sizeof header);
  memcpy((void*)(unsigned long)table, read_dma_ext, sizeof read_dma_ext);
  memcpy((void*)(unsigned long)(table + 0x80), region, sizeof region);
  ahci[1] = 0x80000002;  // AHCI enable, interrupts
  port[0] = list;
  port[1] = 0;
  port[2] = received;
  port[3] = 0;
  port[6] = 0x10;
  port[6] = 0x11;
  port[12] = port[4] = 0xffffffff;
  port[5] = 1;
  // It may come before the processor halts.
  RUN("mov dword ptr [rbx], 1; 1: hlt; jmp 1b", .bx = APIC + 0x2138);
  say("AHCI, HLT: vector %x\n", caught.vector);
  pci_write(device, MSI, 0);
  forget_nmis();
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
  non_maskable();
  message_of_a_disk();
  finish();
}
