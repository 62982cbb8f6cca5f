// Virtual-8086 mode: what is sensitive to IOPL, what is left of the privileged instructions, interrupts with and without
// CR4.VME, the I/O bitmap, virtual interrupts in protected mode (CR4.PVI).
#include "runtime/guest.h"

#define CODE_SEGMENT 0x2000u
#define STACK_SEGMENT 0x3000u
#define DATA_SEGMENT 0x4000u
#define IO_MAP 0x88u
#define ESP0 (STACK_TOP - 0x1000)

static uint32_t iopl;

static void set_tss(void) {
  memset(tss + 0x66, 0, sizeof tss - 0x66);
  *(uint32_t*)(tss + 4) = ESP0;
  *(uint16_t*)(tss + 8) = KDATA;
  *(uint16_t*)(tss + 0x66) = IO_MAP;
  gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)tss, IO_MAP + 0x2000, 0x89, 0);
  asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
}
static void redirect(unsigned vector, bool to_program) {
  uint8_t* const map = tss + IO_MAP - 32;
  map[vector / 8] = to_program ? map[vector / 8] & ~(1u << (vector & 7)) : map[vector / 8] | 1u << (vector & 7);
}
static void set_port(unsigned port, bool allowed) {
  uint8_t* const map = tss + IO_MAP;
  map[port / 8] = allowed ? map[port / 8] & ~(1u << (port & 7)) : map[port / 8] | 1u << (port & 7);
}

static void run_v8086(const char* code, struct setup setup) {
  memcpy((void*)(CODE_SEGMENT * 16 + 0x100), code, 256);
  setup.ip = 0x100;
  setup.cs = CODE_SEGMENT;
  setup.ss = STACK_SEGMENT;
  setup.ds = setup.es = DATA_SEGMENT;
  setup.fs = setup.gs = DATA_SEGMENT;
  setup.cpl = 3;
  if (!setup.sp) setup.sp = 0x1000;
  if (!setup.si) setup.si = 0x10;
  if (!setup.di) setup.di = 0x20;
  setup.flags |= FL_VM | iopl;
  run(code, setup);
}

// Vector, error code, where, flags without the arithmetic ones and RF, SP, and the real stack's top words.
static void report_v8086(void) {
  if (caught.vector == END) {
    say("done");
  } else {
    say("vector %x(%x)", caught.vector, caught.error);
  }
  const uint16_t* const stack = (const uint16_t*)(caught.state.ss * 16 + (caught.state.sp & 0xffff));
  say(" %x:%x flags=%x %x:%x [%x,%x,%x] ax=%x\n", caught.state.cs, caught.state.ip,
      caught.state.flags & ~(unsigned long)(FL_ARITHMETIC | FL_RF), caught.state.ss, caught.state.sp, (unsigned long)stack[0],
      (unsigned long)stack[1], (unsigned long)(stack[2] & ~FL_ARITHMETIC), caught.state.ax);
}

#define V(name, text, ...)                                               \
  memset((void*)(STACK_SEGMENT * 16 + 0xf00), 0, 0x200);                  \
  run_v8086(CODE_BITS("16", text), (struct setup){__VA_ARGS__});          \
  say("%s: ", name);                                                     \
  report_v8086()

static void sensitive(void) {
  V("CLI", "cli", .flags = FL_IF);
  V("STI", "sti");
  V("STI with VIP", "sti", .flags = FL_VIP);
  V("CLI with VIF", "cli", .flags = FL_IF | FL_VIF);
  V("PUSHF", "pushf", .flags = FL_IF | FL_NT);
  V("PUSHF with VIF", "pushf", .flags = FL_IF | FL_VIF);
  V("PUSHFD", "pushfd", .flags = FL_IF | FL_AC | FL_ID);
  V("POPF of everything but TF and NT", "pushw 0x3ed7; popf", .flags = FL_AC);
  V("POPF of nothing", "pushw 0; popf", .flags = FL_IF | FL_AC);
  V("POPF with IF and VIP", "pushw 0x202; popf", .flags = FL_VIP);
  V("POPF that sets TF", "pushw 0x102; popf; nop; nop", .flags = 0);
  V("POPFD", "pushd 0x3d7ed7 - 0x4000; popfd", .flags = 0);
  V("IRET", "pushw 0x3ed7; push cs; pushw 0x120; iret; .fill 0x20, 1, 0xf4", .flags = 0);
  V("IRET to an END", "pushw 0x202; push cs; call 1f; 1: pop ax; add ax, 2f - 1b; push ax; iret; hlt; 2: nop", .flags = 0);
  V("IRETD", "pushd 0x202; pushd 0x2000; pushd 0x120; iretd; .fill 0x20, 1, 0xf4", .flags = 0);
  V("INT 44h", "int 0x44", .flags = FL_IF);
  V("INT 44h with VIF", "int 0x44", .flags = FL_IF | FL_VIF);
  V("INT 44h with NT", "int 0x44", .flags = FL_NT);
  V("INT 44h with TF", "int 0x44", .flags = FL_TF);
  V("INT3", "int3");
  V("INT 3, two bytes", ".byte 0xcd, 3");
  V("INTO", "mov al, 0x7f; inc al; into");
  V("INTO with OF clear", "xor ax, ax; into");
  V("ICEBP", ".byte 0xf1");
  V("IN al, 80h", "in al, 0x80; mov ax, 0");
  V("OUT dx, ax", "mov dx, 0x80; out dx, ax");
  V("INSB", "mov dx, 0x80; insb; mov ax, 0");
  V("REP OUTSW, CX 2", "mov dx, 0x80; mov cx, 2; rep outsw");
}

static void privileged(void) {
  V("HLT", "hlt");
  V("CLTS", "clts");
  V("LGDT", "lgdt [si]");
  V("LIDT", "lidt [si]");
  V("SGDT", "sgdt [si]");
  V("SIDT", "sidt [si]");
  V("SMSW", "smsw ax");
  V("LMSW", "lmsw ax");
  V("SLDT", "sldt ax");
  V("STR", "str ax");
  V("LLDT", "lldt ax");
  V("LTR", "ltr ax");
  V("VERR", "verr ax");
  V("VERW", "verw ax");
  V("LAR", "lar ax, ax");
  V("LSL", "lsl ax, ax");
  V("ARPL", ".byte 0x63, 0xc0");
  V("MOV from CR0", "mov eax, cr0");
  V("MOV to CR0", "mov cr0, eax");
  V("MOV from DR7", "mov eax, dr7");
  V("MOV from CR1", ".byte 0x0f, 0x20, 0xc8");
  V("INVD", "invd");
  V("WBINVD", "wbinvd");
  V("INVLPG", "invlpg [si]");
  V("RDMSR", "rdmsr");
  V("WRMSR", "wrmsr");
  V("RDTSC", "rdtsc; xor eax, eax");
  V("RDPMC", "mov ecx, 0; rdpmc");
  V("CPUID", "xor eax, eax; cpuid; xor eax, eax");
  V("SYSENTER", "sysenter");
  V("SYSEXIT", "sysexit");
  V("SYSCALL", "syscall");
  V("MONITOR", ".byte 0x0f, 0x01, 0xc8");
  V("UD2", "nop; ud2");
  V("RSM", "rsm");
}

static void ordinary(void) {
  say("-- segments and limits\n");
  V("segments are bases", "mov ax, 0x5000; mov es, ax; mov ax, es; mov dx, ds", .ax = 0);
  V("MOV SS", "mov ax, 0x3010; mov ss, ax");
  V("POP SS", "pushw 0x3010; pop ss");
  V("MOV to CS", ".byte 0x8e, 0xc8");
  V("read at FFFF, byte", "mov si, 0xffff; mov al, [si]; mov ax, 0");
  V("read at FFFF, word", "mov si, 0xffff; mov ax, [si]; mov ax, 0");
  V("read at FFFD, dword", "mov si, 0xfffd; mov eax, [si]; mov ax, 0");
  V("32-bit address 10000", "mov ebx, 0x10000; mov al, [ebx]; mov ax, 0");
  V("32-bit address FFFF, byte", "mov ebx, 0xffff; mov al, [ebx]; mov ax, 0");
  V("stack word at FFFF", "mov bp, 0xffff; mov ax, [bp]; mov ax, 0");
  V("PUSH with SP 0", "mov sp, 0; push ax");
  V("PUSH with SP 1", "mov sp, 1; push ax");
  V("POP with SP FFFF", "mov sp, 0xffff; pop ax");
  V("CALL", "call 1f; 1: nop");
  V("far CALL", ".byte 0x9a, 0x80, 0x01, 0x00, 0x20; .fill 0x100, 1, 0xf4");
  V("far JMP to 2010:0010", ".byte 0xea, 0x10, 0x00, 0x10, 0x20; .fill 0x10, 1, 0xf4; .fill 0x20, 1, 0x90");
  V("far RET", "pushw 0x2010; pushw 0x10; retf; .fill 0x10, 1, 0xf4; .fill 0x20, 1, 0x90");
  V("LDS", "mov dword ptr [si], 0x50001234; lds ax, [si]");
  V("wrap of an effective address", "mov bx, 0xfff0; mov si, 0x30; mov ax, [bx + si]; mov ax, 0");
  V("linear address beyond 1 MiB", "mov ax, 0xffff; mov es, ax; mov di, 0x20; mov eax, es:[di]; mov ax, 0");
  V("DIV by zero", "xor cx, cx; div cx");
  V("BOUND", "mov dword ptr [si], 0x00090005; mov ax, 4; bound ax, [si]");
  V("x87 with TS", "fnop");
  V("LOCK on a register", ".byte 0xf0, 0x01, 0xc0");
  V("PUSHAD and POPAD", "pushad; popad");
  V("ENTER and LEAVE", "enter 16, 3; leave");
  V("AAM 0", "aam 0");
  V("TF", "nop; nop", .flags = FL_TF);
}

static void frames(void) {
  say("-- frames of the handler\n");
  run_v8086(CODE_BITS("16", "mov ax, 0x1111; mov ds, ax; mov ax, 0x2222; mov es, ax; mov ax, 0x3333; mov fs, ax; mov ax, 0x4444;"
                            "mov gs, ax; ud2"),
            (struct setup){.flags = FL_IF | FL_AC});
  say("#UD: ds=%x es=%x fs=%x gs=%x in the handler %x %x %x %x, flags %x handler %x, frame at %x below ESP 0\n", caught.state.ds,
      caught.state.es, caught.state.fs, caught.state.gs, caught.handler_ds, caught.handler_es, caught.handler_fs, caught.handler_gs,
      caught.state.flags & ~(unsigned long)(FL_ARITHMETIC | FL_RF), caught.handler_flags & ~(unsigned long)FL_ARITHMETIC,
      ESP0 - caught.frame);
  set_gate(0x44, STUB(0x44), 0xee, FREE_SELECTOR, 0);
  static const struct {
    const char* name;
    uint64_t descriptor;
  } kTargets[] = {{"conforming code", 0x00cf9f000000ffff}, {"code of DPL 3", 0x00cffb000000ffff},
                  {"code of DPL 1", 0x00cfbb000000ffff},   {"data", 0x00cf93000000ffff}};
  iopl = FL_IOPL;
  for (unsigned i = 0; i < 4; ++i) {
    gdt[FREE_SELECTOR / 8] = kTargets[i].descriptor;
    say("INT n to %s: ", kTargets[i].name);
    run_v8086(CODE_BITS("16", "int 0x44"), (struct setup){0});
    report_v8086();
  }
  set_gate(0x44, STUB(0x44), 0x8e, KCODE, 0);
  say("INT n through a gate of DPL 0: ");
  run_v8086(CODE_BITS("16", "int 0x44"), (struct setup){0});
  report_v8086();
  say("INT3 through a gate of DPL 0: ");
  set_gate(BP, STUB(BP), 0x8e, KCODE, 0);
  run_v8086(CODE_BITS("16", "int3"), (struct setup){0});
  report_v8086();
}

// The IRETD that enters virtual-8086 mode unblocks a pending NMI, whatever IOPL, IF and CR4.VME are.
static void non_maskable(void) {
  say("-- NMI\n");
  volatile uint32_t* const command = (volatile uint32_t*)0xfee00300;  // the local APIC's: an NMI to itself
  default_gates();
  set_tss();
  for (unsigned vector = 0; vector < 256; ++vector) redirect(vector, false);
  for (unsigned vme = 0; vme < 2; ++vme) {
    write_cr4((read_cr4() & ~(unsigned long)CR4_VME) | (vme ? CR4_VME : 0));
    for (iopl = 0; iopl <= FL_IOPL; iopl += FL_IOPL) {
      RUN("mov dword ptr [ebx], 0x4400; 1: jmp 1b", .bx = (unsigned long)command);
      *command = 0x4400;
      say("VME %d, IOPL %d, ", (unsigned long)vme, (unsigned long)(iopl >> 12));
      V("pending", "nop; nop", .flags = FL_IF);
      say("VME %d, IOPL %d, ", (unsigned long)vme, (unsigned long)(iopl >> 12));
      V("over", "nop; nop");
    }
  }
  write_cr4(read_cr4() & ~(unsigned long)CR4_VME);
  iopl = 0;
}

static void io_bitmap(void) {
  say("-- I/O bitmap\n");
  default_gates();
  for (unsigned protected = 0; protected < 2; ++protected) {
    for (iopl = 0; iopl <= FL_IOPL; iopl += FL_IOPL) {
      for (unsigned denied = 0x80; denied <= 0x88; ++denied) {
        set_tss();
        set_port(denied, false);
        say("%s, IOPL %d, port %x denied: byte, word and dword at 80, 84, 87: ", protected ? "protected mode" : "v8086",
            (unsigned long)(iopl >> 12), (unsigned long)denied);
        for (unsigned i = 0; i < 9; ++i) {
          static const unsigned kPorts[3] = {0x80, 0x84, 0x87};
          const struct setup setup = {.cpl = 3, .dx = kPorts[i / 3], .flags = iopl};
          if (protected) {
            run(i % 3 == 0 ? CODE("in al, dx") : i % 3 == 1 ? CODE("in ax, dx") : CODE("in eax, dx"), setup);
          } else {
            run_v8086(i % 3 == 0   ? CODE_BITS("16", "in al, dx")
                      : i % 3 == 1 ? CODE_BITS("16", "in ax, dx")
                                   : CODE_BITS("16", "in eax, dx"),
                      setup);
          }
          say("%c", caught.vector == END ? '.' : caught.vector == GP && caught.error == 0 ? 'G' : '!');
        }
        say("\n");
      }
    }
  }
  iopl = 0;
  static const struct {
    const char* name;
    unsigned map, limit, type;
  } kTss[] = {{"map beyond the limit", 0x1000, 0xfff, 0x89}, {"map at the limit", 0x88, 0x88, 0x89},
              {"the port's byte is the limit", 0x88, 0x98, 0x89}, {"one byte more", 0x88, 0x99, 0x89},
              {"map of 0", 0, 0x2000, 0x89}, {"limit 66", 0x40, 0x66, 0x89}, {"16-bit TSS", 0x40, 0x1000, 0x81}};
  for (unsigned i = 0; i < sizeof kTss / sizeof *kTss; ++i) {
    set_tss();
    *(uint16_t*)(tss + 0x66) = kTss[i].map;
    gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)tss, kTss[i].limit, kTss[i].type, 0);
    if (kTss[i].type == 0x81) {
      *(uint16_t*)(tss + 2) = 0xf000;
      *(uint16_t*)(tss + 4) = KDATA;
    }
    asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
    RUN("in al, 0x80", .cpl = 3);
    say("%s: vector %x(%x)", kTss[i].name, caught.vector, caught.error);
    RUN("in al, 0x88", .cpl = 3);
    say(", port 88 vector %x(%x)\n", caught.vector, caught.error);
  }
  set_tss();
  CHECK("port FFFF, word", "mov edx, 0xffff; in ax, dx", .cpl = 3);
  set_port(0x87, false);
  CHECK("INSD across a denied port", "mov edx, 0x84; insd", .cpl = 3, .show = "i");
  CHECK("REP INSB of a denied port, ECX 0", "mov edx, 0x87; xor ecx, ecx; rep insb", .cpl = 3, .show = "i");
}

static void virtual_interrupts(void) {
  say("-- CR4.PVI: CLI and STI in protected mode at CPL 3\n");
  write_cr4(read_cr4() | CR4_PVI);
  for (unsigned level = 0; level < 4; ++level) {
    say("IOPL %d\n", (unsigned long)level);
    const unsigned flags = level << 12;
    CHECK("CLI", "cli", .cpl = 3, .flags = flags | FL_IF | FL_VIF, .show = "f");
    CHECK("STI", "sti", .cpl = 3, .flags = flags, .show = "f");
    CHECK("STI with VIP", "sti", .cpl = 3, .flags = flags | FL_VIP, .show = "f");
    CHECK("CLI with VIP", "cli", .cpl = 3, .flags = flags | FL_VIP | FL_VIF, .show = "f");
    CHECK("PUSHF", "pushfd; pop eax; and eax, ~0x8d5", .cpl = 3, .flags = flags | FL_VIF, .show = "fa");
    CHECK("POPF", "push 0x202; popfd", .cpl = 3, .flags = flags, .show = "f");
    CHECK("POPF of nothing", "push 0; popfd", .cpl = 3, .flags = flags | FL_IF | FL_VIF, .show = "f");
  }
  write_cr4(read_cr4() & ~(unsigned long)CR4_PVI);
}

static void to_and_fro(void) {
  say("-- IRETD to virtual-8086 mode\n");
  set_tss();
  // The frame is built in the check's own stack: GS FS DS ES SS ESP EFLAGS CS EIP.
  memcpy((void*)(CODE_SEGMENT * 16 + 0x100), CODE_BITS("16", "mov ax, ds; mov bx, es; mov cx, fs; mov dx, gs"), 64);
  CHECK("from CPL 0", "push 0x4444; push 0x3333; push 0x1111; push 0x2222; push 0x3000; push 0x1000; push 0x20002; push 0x2000;"
        "push 0x100; iretd", .show = "acdbSf");
  CHECK("from CPL 0, ESP beyond 64 KiB", "push 0; push 0; push 0; push 0; push 0x3000; push 0x12341000; push 0x20002; push 0x2000;"
        "push 0x100; iretd", .show = "pSf");
  CHECK("from CPL 0, EIP beyond 64 KiB", "push 0; push 0; push 0; push 0; push 0x3000; push 0x1000; push 0x20002; push 0x2000;"
        "push 0x10100; iretd", .show = "Sf");
  CHECK("from CPL 0, all flags", "push 0; push 0; push 0; push 0; push 0x3000; push 0x1000; push 0x3e7ed7; push 0x2000;"
        "push 0x100; iretd", .show = "f");
  CHECK("16-bit IRET cannot", "pushw 0x3000; pushw 0x1000; pushw 2; pushw 8; pushw 0x100; mov word ptr [0x100], 0x81cd;"
        ".byte 0x66; iretd", .show = "f");
}

void guest_main(void) {
  default_gates();
  set_tss();
  // The program's own handlers: END in another segment, so that it is seen where they begin.
  uint32_t* const vectors = (uint32_t*)0;
  for (unsigned vector = 0; vector < 256; ++vector) vectors[vector] = 0x26000000 | vector * 4;
  for (unsigned vector = 0; vector < 256; ++vector) *(uint32_t*)(0x26000 + vector * 4) = 0x909081cd;
  // INT 81h itself always goes to the monitor.
  for (unsigned vme = 0; vme < 2; ++vme) {
    write_cr4((read_cr4() & ~(unsigned long)CR4_VME) | (vme ? CR4_VME : 0));
    for (unsigned to_program = 0; to_program <= vme; ++to_program) {
      for (unsigned level = 0; level < 4; ++level) {
        set_tss();
        for (unsigned vector = 0; vector < 256; ++vector) redirect(vector, to_program && vector != END);
        iopl = level << 12;
        set_gate(0x44, STUB(0x44), 0xee, KCODE, 0);
        set_gate(BP, STUB(BP), 0xee, KCODE, 0);
        set_gate(OF, STUB(OF), 0xee, KCODE, 0);
        say("-- VME %d, interrupts %s, IOPL %d\n", (unsigned long)vme, to_program ? "to the program" : "to the monitor",
            (unsigned long)level);
        sensitive();
      }
    }
  }
  write_cr4(read_cr4() & ~(unsigned long)CR4_VME);
  set_tss();
  iopl = FL_IOPL;
  say("-- privileged instructions\n");
  privileged();
  ordinary();
  frames();
  non_maskable();
  io_bitmap();
  virtual_interrupts();
  to_and_fro();
  finish();
}
