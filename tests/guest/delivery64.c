// How long mode delivers exceptions and interrupts, and how IRET returns: stacks, IST, gates that are wrong, double faults.
#include "runtime/guest.h"

#define RSP0 (STACK_TOP - 0x1000)
#define IST2 (STACK_TOP - 0x2008)  // not aligned
#define NOT_CANONICAL 0x800000000000ul

static void set_tss(unsigned offset, uint64_t value) {
  memcpy(tss + offset, &value, 8);
}
enum { TSS_RSP0 = 4, TSS_RSP1 = 12, TSS_RSP2 = 20, TSS_IST1 = 36 };
#define TSS_IST(n) (TSS_IST1 + 8 * ((n)-1))

static void set_descriptor(unsigned selector, uint64_t low) {
  gdt[selector / 8] = low;
}

static void stacks(void) {
  say("-- stacks\n");
  set_tss(TSS_RSP0, RSP0);
  set_tss(TSS_IST(2), IST2);
  for (unsigned vector = 0; vector < 2; ++vector) {
    const bool trap_gate = vector;
    set_gate(UD, STUB(UD), trap_gate ? GATE_TRAP : GATE_INTERRUPT, KCODE, 0);
    set_gate(GP, STUB(GP), trap_gate ? GATE_TRAP : GATE_INTERRUPT, KCODE, 0);
    say(trap_gate ? "-- trap gates without IST\n" : "-- interrupt gates without IST\n");
    for (unsigned low = 0; low < 32; low += 8) {
      const unsigned long sp = STACK_TOP - low;
      CHECK("CPL 0, no error code", "ud2", .sp = sp, .show = "kpShz");
      CHECK("CPL 0, error code", "mov ss, eax", .ax = 0x999, .sp = sp, .show = "kpShz");
      CHECK("CPL 3, no error code", "ud2", .cpl = 3, .sp = sp + USER_ALIAS, .show = "kpShz");
      CHECK("CPL 3, error code", "hlt", .cpl = 3, .sp = sp + USER_ALIAS, .show = "kpShz");
    }
    CHECK("CPL 0, odd stack", "ud2", .sp = STACK_TOP - 5, .show = "kpShz");
    CHECK("flags that the handler loses, CPL 0", "ud2", .flags = FL_IF | FL_NT | FL_DF | FL_IOPL | FL_AC | FL_ID,
          .show = "fh");
    CHECK("flags that the handler loses, CPL 3", "ud2", .cpl = 3, .flags = FL_IF | FL_NT | FL_DF | FL_IOPL | FL_AC | FL_ID,
          .show = "fh");
    check("from 32-bit code, CPL 3", CODE_BITS("32", "ud2"), (struct setup){.cpl = 3, .cs = UCODE32, .show = "kpShz"});
    check("from 32-bit code, CPL 0", CODE_BITS("32", "ud2"), (struct setup){.cs = KCODE32, .show = "kpShz"});
    check("from 16-bit code, CPL 0", CODE_BITS("16", "ud2"), (struct setup){.cs = KCODE32, .show = "kpShz"});
    for (unsigned ist = 1; ist <= 2; ++ist) {
      set_gate(UD, STUB(UD), trap_gate ? GATE_TRAP : GATE_INTERRUPT, KCODE, ist);
      if (ist == 2) {
        CHECK("IST 2, CPL 0", "ud2", .show = "kpShz");
        CHECK("IST 2, CPL 3", "ud2", .cpl = 3, .show = "kpShz");
      } else {
        CHECK("IST 1, CPL 0", "ud2", .show = "pShz");
        CHECK("IST 1, CPL 3", "ud2", .cpl = 3, .show = "pShz");
      }
    }
  }
  for (unsigned ist = 3; ist <= 7; ++ist) {
    set_tss(TSS_IST(ist), STACK_TOP - ist * 0x100);
    set_gate(UD, STUB(UD), GATE_INTERRUPT, KCODE, ist);
    say("IST %d, CPL 3: ", (unsigned long)ist);
    RUN("ud2", .cpl = 3);
    report("kh");
  }
  default_gates();

  say("-- stacks that are wrong\n");
  set_gate(DF, STUB(DF), GATE_INTERRUPT, KCODE, 1);
  set_gate(UD, STUB(UD), GATE_INTERRUPT, KCODE, 0);
  set_gate(BP, STUB(BP), GATE_INTERRUPT | 0x60, KCODE, 0);
  set_gate(SS, STUB(SS), GATE_INTERRUPT, KCODE, 1);
  set_tss(TSS_RSP0, NOT_CANONICAL);
  CHECK("RSP 0 not canonical, #UD", "ud2", .cpl = 3, .show = "pS");
  CHECK("RSP 0 not canonical, INT3", "nop; int3", .cpl = 3, .show = "pS");
  set_tss(TSS_RSP0, 0x30000000);
  CHECK("RSP 0 not present, #UD", "ud2", .cpl = 3, .show = "pS");
  CHECK("RSP 0 not present, INT3", "nop; int3", .cpl = 3, .show = "pS");
  set_tss(TSS_RSP0, 0x40000010);
  CHECK("RSP 0 half not present, INT3", "nop; int3", .cpl = 3, .show = "pS");
  CHECK("RSP not canonical, CPL 0", "nop; int3", .sp = NOT_CANONICAL, .show = "pS");
  CHECK("RSP not present, CPL 0", "nop; int3", .sp = 0x30000000, .show = "pS");
  CHECK("RSP 8, CPL 0", "nop; int3", .sp = 8, .show = "pS");
  set_tss(TSS_IST(2), NOT_CANONICAL - 8);
  set_gate(BP, STUB(BP), GATE_INTERRUPT | 0x60, KCODE, 2);
  CHECK("IST 2 below the hole, not present", "nop; int3", .show = "pS");
  set_tss(TSS_IST(2), 0);
  CHECK("IST 2 zero", "nop; int3", .show = "pS");
  set_tss(TSS_RSP0, RSP0);

  say("-- TSS limit\n");
  const uint64_t descriptor = gdt[TSS_SELECTOR / 8];
  static const unsigned kLimits[] = {3, 10, 11, 12, 0x2a, 0x2b, 0x2c, 0x32, 0x33, 0x67};
  for (unsigned i = 0; i < sizeof kLimits / sizeof *kLimits; ++i) {
    set_descriptor(TSS_SELECTOR, (descriptor & ~0xf00000000fffful & ~(2ul << 40)) | kLimits[i]);
    asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
    set_tss(TSS_IST(2), IST2);
    // The handlers of #TS, #DF and END use IST 1, which needs a limit of 2Bh: they go without.
    default_gates();
    for (unsigned vector = 0; vector < 256; ++vector) {
      set_gate(vector, STUB(vector), vector == END || vector == BP ? GATE_INTERRUPT | 0x60 : GATE_INTERRUPT, KCODE,
               vector == BP ? 2 : 0);
    }
    say("limit %x, IST 2, CPL 0: ", (unsigned long)kLimits[i]);
    RUN("nop; int3");
    report("k");
    set_gate(BP, STUB(BP), GATE_INTERRUPT | 0x60, KCODE, 0);
    if (kLimits[i] < 11) continue;  // CPL 3 would lead to a triple fault
    say("limit %x, CPL 3: ", (unsigned long)kLimits[i]);
    RUN("nop; int3", .cpl = 3);
    report("k");
  }
  set_descriptor(TSS_SELECTOR, descriptor & ~(2ul << 40));
  asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
  default_gates();
}

static void gates(void) {
  const unsigned free = FREE_SELECTOR;
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    say("-- gates, CPL %d\n", (unsigned long)cpl);
    for (unsigned type = 0; type < 32; ++type) {
      set_gate(0x40, STUB(0x40), 0xe0 | type, KCODE, 1);
      say("gate of type %x: ", (unsigned long)type);
      RUN("nop; int 0x40", .cpl = cpl);
      report("");
    }
    for (unsigned dpl = 0; dpl < 4; ++dpl) {
      say("gate of DPL %d, INT n: ", (unsigned long)dpl);
      set_gate(0x40, STUB(0x40), GATE_INTERRUPT | dpl << 5, KCODE, 1);
      RUN("nop; int 0x40", .cpl = cpl);
      report("");
      say("gate of DPL %d, #UD: ", (unsigned long)dpl);
      set_gate(UD, STUB(UD), GATE_INTERRUPT | dpl << 5, KCODE, 1);
      RUN("ud2", .cpl = cpl);
      report("");
    }
    set_gate(0x40, STUB(0x40), 0x6e, KCODE, 1);
    CHECK("gate not present, INT n", "int 0x40", .cpl = cpl);
    set_gate(UD, STUB(UD), 0x6e, KCODE, 1);
    CHECK("gate not present, #UD", "nop; ud2", .cpl = cpl);
    set_gate(0x40, STUB(0x40), 0x0e, KCODE, 1);
    CHECK("gate not present and DPL 0, INT n", "int 0x40", .cpl = cpl);
    set_gate(UD, STUB(UD), 0x0e, KCODE, 1);
    CHECK("gate not present and DPL 0, #UD", "nop; ud2", .cpl = cpl);
    set_gate(UD, STUB(UD), 0, 0, 0);
    CHECK("gate zero, #UD", "nop; ud2", .cpl = cpl);
    set_gate(GP, STUB(GP), GATE_INTERRUPT, KCODE, 1);

    static const struct {
      const char* name;
      unsigned selector;
      uint64_t descriptor;
    } kTargets[] = {
        {"selector 0", 0, 0},
        {"selector 3", 3, 0},
        {"selector beyond the GDT", 0xff8, 0},
        {"selector in an LDT that is not there", 0xc, 0},
        {"data segment", FREE_SELECTOR, 0x00af93000000ffff},
        {"read-only data segment", FREE_SELECTOR, 0x00af91000000ffff},
        {"32-bit code segment", FREE_SELECTOR, 0x00cf9b000000ffff},
        {"L and D", FREE_SELECTOR, 0x00ef9b000000ffff},
        {"16-bit code segment", FREE_SELECTOR, 0x000f9b000000ffff},
        {"code segment not present", FREE_SELECTOR, 0x00af1b000000ffff},
        {"32-bit code segment not present", FREE_SELECTOR, 0x00cf1b000000ffff},
        {"data segment not present", FREE_SELECTOR, 0x00af13000000ffff},
        {"code segment, DPL 3", FREE_SELECTOR, 0x00affb000000ffff},
        {"code segment, DPL 3, RPL 3", FREE_SELECTOR + 3, 0x00affb000000ffff},
        {"code segment, DPL 0, RPL 3", FREE_SELECTOR + 3, 0x00af9b000000ffff},
        {"conforming code segment, DPL 0", FREE_SELECTOR, 0x00af9f000000ffff},
        {"conforming code segment, DPL 3", FREE_SELECTOR, 0x00afff000000ffff},
        {"code segment, not accessed", FREE_SELECTOR, 0x00af98000000ffff},
        {"TSS", TSS_SELECTOR, 0},
    };
    for (unsigned i = 0; i < sizeof kTargets / sizeof *kTargets; ++i) {
      set_descriptor(free, kTargets[i].descriptor);
      // No handler that would run at CPL 3: the stubs are the kernel's.
      const unsigned access = kTargets[i].descriptor >> 40 & 0xff;
      if (cpl == 3 && (access & 0x9c) == 0x9c) continue;
      if (cpl == 3 && (access & 0xf8) == 0xf8) continue;
      set_gate(0x40, STUB(0x40), GATE_INTERRUPT | 0x60, kTargets[i].selector, 1);
      set_gate(UD, STUB(UD), GATE_INTERRUPT, kTargets[i].selector, 1);
      say("%s, INT n: ", kTargets[i].name);
      RUN("nop; int 0x40", .cpl = cpl);
      report("h");
      if (kTargets[i].descriptor) say("descriptor: %x\n", (unsigned long)gdt[free / 8]);
      set_descriptor(free, kTargets[i].descriptor);
      say("%s, #UD: ", kTargets[i].name);
      RUN("ud2", .cpl = cpl);
      report("h");
    }
    default_gates();
    set_gate(0x40, NOT_CANONICAL, GATE_INTERRUPT | 0x60, KCODE, 1);
    CHECK("target not canonical, INT n", "nop; int 0x40", .cpl = cpl);
    set_gate(UD, NOT_CANONICAL, GATE_INTERRUPT | 0x60, KCODE, 1);
    CHECK("target not canonical, #UD", "nop; ud2", .cpl = cpl);
    set_gate(0x40, 0x30000000, GATE_INTERRUPT | 0x60, KCODE, 1);
    CHECK("target not present, INT n", "nop; int 0x40", .cpl = cpl, .show = "S");
    default_gates();
  }

  say("-- IDT limit\n");
  struct {
    uint16_t limit;
    unsigned long base;
  } __attribute__((packed)) table = {0, (unsigned long)idt};
  static const unsigned kLimits[] = {0x81 * 16 + 15, 0x81 * 16 + 14, 0x81 * 16 + 8, 0x81 * 16 + 7, 0x81 * 16, 0x80 * 16};
  for (unsigned i = 0; i < sizeof kLimits / sizeof *kLimits; ++i) {
    table.limit = kLimits[i];
    asm volatile("lidt %0" ::"m"(table));
    say("INT 81h, limit %x: ", (unsigned long)kLimits[i]);
    RUN("nop");
    report("");
  }
  default_gates();
}

// Two exceptions at once: the second while the first is delivered.
static void second_exceptions(void) {
  static const struct {
    const char* name;
    unsigned vector;
  } kFirst[] = {{"#DE", DE}, {"#UD", UD}, {"#NP", NP}, {"#SS", SS}, {"#GP", GP}, {"#PF", PF}, {"#BP", BP}, {"#XM", XM},
                {"#AC", AC}, {"#NM", NM}, {"#DB", DB}};
  static const char* const kSecond[] = {"#NP", "#GP", "#PF", "#SS"};
  say("-- a second exception\n");
  write_cr0(read_cr0() | CR0_AM);
  for (unsigned first = 0; first < sizeof kFirst / sizeof *kFirst; ++first) {
    for (unsigned second = 0; second < 4; ++second) {
      const unsigned vector = kFirst[first].vector;
      default_gates();
      switch (second) {
        case 0: set_gate(vector, STUB(vector), 0x6e, KCODE, 1); break;
        case 1: set_gate(vector, STUB(vector), GATE_INTERRUPT | 0x60, KDATA, 1); break;
        case 2:
          set_tss(TSS_IST(2), 0x30000000);
          set_gate(vector, STUB(vector), GATE_INTERRUPT | 0x60, KCODE, 2);
          break;
        case 3:
          set_tss(TSS_IST(2), NOT_CANONICAL + 0x100);
          set_gate(vector, STUB(vector), GATE_INTERRUPT | 0x60, KCODE, 2);
          break;
      }
      // The same vector twice would need a gate that is both right and wrong.
      if ((second == 0 && vector == NP) || (second == 1 && vector == GP) || (second == 2 && vector == PF) ||
          (second == 3 && vector == SS)) {
        say("(double fault) ");
      }
      say("%s, then %s: ", kFirst[first].name, kSecond[second]);
      set_descriptor(FREE_SELECTOR, 0x00cff3000000ffff & ~(1ul << 47));
      switch (vector) {
        case DE: RUN("xor ecx, ecx; div ecx", .cpl = 3); break;
        case UD: RUN("nop; ud2", .cpl = 3); break;
        case NP: RUN("mov eax, 0x53; mov fs, eax", .cpl = 3); break;
        case SS: RUN("mov rbp, 1; ror rbp, 2; mov eax, [rbp]", .cpl = 3); break;
        case GP: RUN("nop; hlt", .cpl = 3); break;
        case PF: RUN("mov eax, 0x20000000; mov eax, [rax]", .cpl = 3); break;
        case BP: RUN("nop; int3", .cpl = 3); break;
        case XM:
          RUN("mov dword ptr [rsi], 0x1d80; ldmxcsr [rsi]; pxor xmm0, xmm0; pxor xmm1, xmm1; divss xmm0, xmm1", .cpl = 3);
          break;
        case AC: RUN("mov eax, [rsi + 1]", .cpl = 3, .flags = FL_AC); break;
        case NM:
          write_cr0(read_cr0() | CR0_TS);
          RUN("nop; fnop", .cpl = 3);
          write_cr0(read_cr0() & ~(unsigned long)CR0_TS);
          break;
        case DB: RUN("nop; nop", .cpl = 3, .flags = FL_TF); break;
      }
      report("");
      static uint32_t mxcsr = 0x1f80;
      asm volatile("ldmxcsr %0" ::"m"(mxcsr));
    }
  }
  write_cr0(read_cr0() & ~(unsigned long)CR0_AM);
  default_gates();
}

#define FRAME(ss, sp, flags, cs, ip) "push " ss "; push " sp "; push " flags "; push " cs "; " ip "; push rax;"
#define HERE "lea rax, [rip + 9f]"
static void iret(void) {
  say("-- IRET, CPL 0\n");
  set_tss(TSS_RSP0, RSP0);
  CHECK("IRETQ to CPL 0", FRAME("0x10", "rsp", "2", "8", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 0, SS null", FRAME("0", "rsp", "2", "8", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 0, SS RPL 3", FRAME("3", "rsp", "2", "8", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 0, SS of DPL 3", FRAME("0x20", "rsp", "2", "8", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 3, SS null", FRAME("3", "rsp", "2", "0x2b", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 3, SS of RPL 0", FRAME("0x20", "rsp", "2", "0x2b", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 3, SS of DPL 0", FRAME("0x13", "rsp", "2", "0x2b", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 3, SS a code segment", FRAME("0x2b", "rsp", "2", "0x2b", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 3, page not user", FRAME("0x23", "rsp", "2", "0x2b", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 3", FRAME("0x23", "rsp", "2", "0x2b", HERE "; add rax, 0x40000000") "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to CPL 3, all flags", FRAME("0x23", "rsp", "0x1240ed7", "0x2b", HERE "; add rax, 0x40000000") "iretq; 9:",
        .show = "pSF");
  CHECK("IRETQ to CPL 3, VM set", FRAME("0x23", "rsp", "0x20002", "0x2b", HERE "; add rax, 0x40000000") "iretq; 9:",
        .show = "pSF");
  CHECK("IRETQ to CPL 0, RPL 3 of a code segment of DPL 0", FRAME("0x10", "rsp", "2", "0xb", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to a code segment of DPL 3 with RPL 0", FRAME("0x10", "rsp", "2", "0x28", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to selector 0", FRAME("0x10", "rsp", "2", "0", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to selector 3", FRAME("0x10", "rsp", "2", "3", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to a data segment", FRAME("0x10", "rsp", "2", "0x10", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to a selector beyond the GDT", FRAME("0x10", "rsp", "2", "0xff8", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to a TSS", FRAME("0x10", "rsp", "2", "0x40", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ, SS beyond the GDT", FRAME("0xff8", "rsp", "2", "8", HERE) "iretq; 9:", .show = "pSf");
  set_descriptor(FREE_SELECTOR, 0x00cf13000000ffff);
  CHECK("IRETQ, SS not present", FRAME("0x50", "rsp", "2", "8", HERE) "iretq; 9:", .show = "pSf");
  set_descriptor(FREE_SELECTOR, 0x00cf91000000ffff);
  CHECK("IRETQ, SS read-only", FRAME("0x50", "rsp", "2", "8", HERE) "iretq; 9:", .show = "pSf");
  set_descriptor(FREE_SELECTOR, 0x00af1b000000ffff);
  CHECK("IRETQ, CS not present", FRAME("0x10", "rsp", "2", "0x50", HERE) "iretq; 9:", .show = "pSf");
  set_descriptor(FREE_SELECTOR, 0x00ef9b000000ffff);
  CHECK("IRETQ, CS with L and D", FRAME("0x10", "rsp", "2", "0x50", HERE) "iretq; 9:", .show = "pSf");
  set_descriptor(FREE_SELECTOR, 0x00af9e000000ffff);
  CHECK("IRETQ, conforming CS", FRAME("0x10", "rsp", "2", "0x50", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ, conforming CS of DPL 0, RPL 3",
        FRAME("0x23", "rsp", "2", "0x53", HERE "; add rax, 0x40000000") "iretq; 9:", .show = "pSf");
  set_descriptor(FREE_SELECTOR, 0x00affe000000ffff);
  CHECK("IRETQ, conforming CS of DPL 3, RPL 0", FRAME("0x10", "rsp", "2", "0x50", HERE) "iretq; 9:", .show = "pSf");
  set_descriptor(FREE_SELECTOR, 0x00af9a000000ffff);
  CHECK("IRETQ sets the accessed bit", FRAME("0x10", "rsp", "2", "0x50", HERE) "iretq; 9:", .show = "pSf");
  say("descriptor: %x\n", (unsigned long)gdt[FREE_SELECTOR / 8]);
  CHECK("IRETQ to an address that is not canonical", FRAME("0x10", "rsp", "2", "8", "mov rax, 1; ror rax, 2") "iretq; 9:",
        .show = "S");
  CHECK("IRETQ to CPL 3, not canonical", FRAME("0x23", "rsp", "2", "0x2b", "mov rax, 1; ror rax, 2") "iretq; 9:", .show = "S");
  CHECK("IRETQ to RSP not canonical", "mov rcx, 1; ror rcx, 2;" FRAME("0x10", "rcx", "2", "8", HERE) "iretq; 9:",
        .show = "pS");
  CHECK("IRETQ with NT", FRAME("0x10", "rsp", "2", "8", HERE) "iretq; 9:", .flags = FL_NT, .show = "pSf");
  CHECK("IRETQ that sets NT", FRAME("0x10", "rsp", "0x4002", "8", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ that sets TF", FRAME("0x10", "rsp", "0x102", "8", HERE) "iretq; 9: nop; nop", .show = "pSf6");
  CHECK("IRETQ that sets RF", FRAME("0x10", "rsp", "0x10002", "8", HERE) "iretq; 9: pushfq; pop rax; and eax, 0x10000",
        .show = "pSfa");
  CHECK("IRETQ that sets VIF and VIP", FRAME("0x10", "rsp", "0x180002", "8", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ that sets flags that do not exist", FRAME("0x10", "rsp", "-0x3f7fd8", "8", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ from a stack that is not there", "mov esp, 0x30000000; iretq", .show = "S");
  CHECK("IRETQ from a stack that is not canonical", "mov esp, 1; ror rsp, 2; iretq", .show = "S");
  CHECK("IRETQ to 32-bit code, CPL 0", FRAME("0x10", "rsp", "2", "0x30", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to 32-bit code, CPL 3", FRAME("0x23", "rsp", "2", "0x1b", HERE "; add rax, 0x40000000") "iretq; 9:",
        .show = "pSf");
  CHECK("IRETQ to 32-bit code, SS null", FRAME("0", "rsp", "2", "0x30", HERE) "iretq; 9:", .show = "pSf");
  CHECK("IRETQ to 32-bit code, RIP beyond 4 GiB",
        FRAME("0x10", "rsp", "2", "0x30", HERE "; bts rax, 40") "iretq; 9:", .show = "pSf");
  CHECK("IRETD", HERE "; sub rsp, 20; mov [rsp], eax; mov dword ptr [rsp + 4], 8; mov dword ptr [rsp + 8], 2; lea eax, [rsp + 20];"
        "mov [rsp + 12], eax; mov dword ptr [rsp + 16], 0x10; iretd; 9:", .show = "pSf");
  CHECK("IRETW", "sub rsp, 10; mov word ptr [rsp], 0x100; mov word ptr [rsp + 2], 0x38; mov word ptr [rsp + 4], 2;"
        "mov word ptr [rsp + 6], 0x1234; mov word ptr [rsp + 8], 0x10; mov byte ptr [0x100], 0xcd;"
        "mov byte ptr [0x101], 0x81; iretw; 9:", .show = "pSf");

  say("-- IRET, CPL 3\n");
  CHECK("IRETQ to CPL 3", FRAME("0x23", "rsp", "2", "0x2b", HERE) "iretq; 9:", .cpl = 3, .show = "pSf");
  CHECK("IRETQ to CPL 0", FRAME("0x10", "rsp", "2", "8", HERE) "iretq; 9:", .cpl = 3, .show = "pSf");
  CHECK("IRETQ, SS null", FRAME("0", "rsp", "2", "0x2b", HERE) "iretq; 9:", .cpl = 3, .show = "pSf");
  CHECK("IRETQ, all flags", FRAME("0x23", "rsp", "0x3240ed7", "0x2b", HERE) "iretq; 9:", .cpl = 3, .show = "pSF");
  CHECK("IRETQ, IOPL 3 to start with", FRAME("0x23", "rsp", "0x202", "0x2b", HERE) "iretq; 9:", .cpl = 3, .flags = FL_IOPL,
        .show = "pSF");
  CHECK("IRETQ with NT", FRAME("0x23", "rsp", "2", "0x2b", HERE) "iretq; 9:", .cpl = 3, .flags = FL_NT, .show = "pSf");
  CHECK("IRETQ to an address that is not canonical", FRAME("0x23", "rsp", "2", "0x2b", "mov rax, 1; ror rax, 2") "iretq; 9:",
        .cpl = 3, .show = "S");
  CHECK("IRETQ to 32-bit code", FRAME("0x23", "rsp", "2", "0x1b", HERE) "iretq; 9:", .cpl = 3, .show = "pSf");

  say("-- IRET and data segments\n");
  asm volatile("mov ds, %0; mov es, %0; mov fs, %1; mov gs, %1" ::"r"(0x10), "r"(0x23));
  RUN("nop", .cpl = 3);
  say("DS and ES of DPL 0, FS and GS of DPL 3, to CPL 3: ds=%x es=%x fs=%x gs=%x\n", caught.handler_ds, caught.handler_es,
      caught.handler_fs, caught.handler_gs);
  set_descriptor(FREE_SELECTOR, 0x00af9f000000ffff);
  asm volatile("mov ds, %0; mov es, %1; mov fs, %2; mov gs, %2" ::"r"(FREE_SELECTOR), "r"(3), "r"(0));
  RUN("nop", .cpl = 3);
  say("DS conforming code, ES null with RPL 3, to CPL 3: ds=%x es=%x fs=%x gs=%x\n", caught.handler_ds, caught.handler_es,
      caught.handler_fs, caught.handler_gs);
  asm volatile("mov ds, %0; mov es, %0" ::"r"(0));
}

static void task_register(void) {
  say("-- what long mode has no more\n");
  CHECK("INT n through a task gate", "int 0x41");
  set_gate(0x41, 0, 0xe5, TSS_SELECTOR, 0);
  CHECK("task gate, INT n", "int 0x41");
  set_gate(0x41, STUB(0x41), 0xe6, KCODE, 1);
  CHECK("16-bit interrupt gate, INT n", "int 0x41");
  default_gates();
}

void guest_main(void) {
  default_gates();
  stacks();
  gates();
  second_exceptions();
  iret();
  task_register();
  finish();
}
