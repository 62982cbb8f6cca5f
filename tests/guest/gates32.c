// Call gates, interrupt gates of both widths, task gates and task switches in 32-bit protected mode.
#include "runtime/guest.h"

enum { TEST = FREE_SELECTOR, GATE = FREE_SELECTOR + 8, OTHER_TASK = FREE_SELECTOR + 16, FAULT_TASKS = FREE_SELECTOR + 24 };
#define ESP0 (STACK_TOP - 0x1000)
#define TASK_STACK (STACK_TOP - 0x2000)
#define FAULT_STACK (STACK_TOP - 0x3000)

static uint32_t* const kTss = (uint32_t*)tss;
static uint32_t other[64], fault_tss[4][26];
enum tss_member {
  T_LINK, T_ESP0, T_SS0, T_ESP1, T_SS1, T_ESP2, T_SS2, T_CR3, T_EIP, T_FLAGS, T_EAX, T_ECX, T_EDX, T_EBX, T_ESP, T_EBP, T_ESI,
  T_EDI, T_ES, T_CS, T_SS, T_DS, T_FS, T_GS, T_LDT, T_TRAP_AND_MAP,
};

static uint64_t gate(uint32_t offset, unsigned selector, unsigned access, unsigned parameters) {
  return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)parameters << 32 | (uint64_t)access << 40 |
         (uint64_t)(offset >> 16) << 48;
}

static void reset_tasks(void) {
  gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)tss, 0x67, 0x89, 0);
  gdt[DF_TSS_SELECTOR / 8] = descriptor((uint32_t)df_tss, 0x67, 0x89, 0);
  gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, 0x67, 0x89, 0);
  asm volatile("ltr %0; lldt %1; clts" ::"r"((uint16_t)TSS_SELECTOR), "r"((uint16_t)0));
  kTss[T_ESP0] = ESP0;
  kTss[T_SS0] = KDATA;
  kTss[T_LINK] = 0;
  kTss[T_LDT] = 0;
  kTss[T_CR3] = 0;
}

// #TS, #NP, #SS and #GP in tasks of their own, so that they are seen where the TSS' stack is wrong.
static void faults_by_task(bool on) {
  static const unsigned kVectors[4] = {TS, NP, SS, GP};
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned vector = kVectors[i], selector = FAULT_TASKS + i * 8;
    memset(fault_tss[i], 0, sizeof fault_tss[i]);
    fault_tss[i][T_EIP] = (uint32_t)task_stubs + vector * 16;
    fault_tss[i][T_FLAGS] = 2;
    fault_tss[i][T_ESP] = FAULT_STACK;
    fault_tss[i][T_SS] = fault_tss[i][T_DS] = fault_tss[i][T_ES] = KDATA;
    fault_tss[i][T_CS] = KCODE;
    gdt[selector / 8] = descriptor((uint32_t)fault_tss[i], 0x67, 0x89, 0);
    if (on) {
      set_gate(vector, 0, 0x85, selector, 0);
    } else {
      set_gate(vector, STUB(vector), GATE_INTERRUPT, KCODE, 0);
    }
  }
}

static void put_result(void) {
  static const char* const kNames[] = {[DF] = "#DF", [TS] = "#TS", [NP] = "#NP", [SS] = "#SS", [GP] = "#GP"};
  if (caught.vector == END) {
    say("cs=%x ss=%x sp=%x", caught.state.cs, caught.state.ss, caught.state.sp);
  } else if (caught.vector <= GP && kNames[caught.vector]) {
    say("%s(%x)", kNames[caught.vector], caught.error);
  } else {
    say("vector %x", caught.vector);
  }
}

static void put_stack(unsigned count) {
  const uint32_t* stack = (const uint32_t*)caught.state.sp;
  for (unsigned i = 0; i < count; ++i) say("%s%x", i ? "," : " stack=", (unsigned long)stack[i]);
  say("\n");
}

static const char *call_code, *jump_code, *target;

static void call_gates(void) {
  call_code = CODE(".byte 0x9a, 0, 0, 0, 0, 0x50, 0");  // the selector is patched
  jump_code = CODE(".byte 0xea, 0, 0, 0, 0, 0x50, 0");
  target = CODE("nop");
  static const struct {
    const char* name;
    unsigned access;
  } kTargets[] = {{"code of DPL 0", 0x9b}, {"code of DPL 3", 0xfb}, {"conforming code of DPL 0", 0x9f},
                  {"conforming code of DPL 3", 0xff}, {"data", 0x93}, {"code not present", 0x1b}, {"code of DPL 1", 0xbb}};
  say("-- call gates: CALL and JMP by target, DPL and RPL\n");
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    for (unsigned i = 0; i < sizeof kTargets / sizeof *kTargets; ++i) {
      for (unsigned dpl = 0; dpl < 4; ++dpl) {
        for (unsigned rpl = 0; rpl < 4; ++rpl) {
          if (i == 6 && cpl == 3) continue;  // would need a stack of DPL 1
          reset_tasks();
          gdt[TEST / 8] = descriptor(0, 0xfffff, kTargets[i].access, GRANULAR | BIG);
          gdt[GATE / 8] = gate((uint32_t)target, TEST | 2, 0x8c | dpl << 5, 0);
          ((char*)call_code)[5] = ((char*)jump_code)[5] = GATE | rpl;
          say("CPL %d, %s, gate of DPL %d, RPL %d: ", (unsigned long)cpl, kTargets[i].name, (unsigned long)dpl,
              (unsigned long)rpl);
          run(call_code, (struct setup){.cpl = cpl});
          put_result();
          say(", ");
          run(jump_code, (struct setup){.cpl = cpl});
          put_result();
          say("\n");
        }
      }
    }
  }
  ((char*)call_code)[5] = ((char*)jump_code)[5] = GATE | 3;
  gdt[TEST / 8] = descriptor(0, 0xfffff, 0x9b, GRANULAR | BIG);
  say("-- call gates that are wrong\n");
  static const struct {
    const char* name;
    uint64_t gate;
  } kGates[] = {
      {"not present", 0x00006c0000500000},
      {"not present, DPL 0", 0x00000c0000500000},
      {"null target", 0x0000ec0000000000},
      {"null target, RPL 3", 0x0000ec0000030000},
      {"target beyond the GDT", 0x0000ec00fff80000 & 0xffffffffffffull},
      {"target in the LDT", 0x0000ec00000c0000},
      {"target a gate", 0x0000ec0000500000 + 0x80000},
      {"target a TSS", 0x0000ec0000380000},
      {"interrupt gate", 0x0000ee0000500000},
      {"trap gate", 0x0000ef0000500000},
      {"reserved type 8", 0x0000e80000500000},
      {"reserved type d", 0x0000ed0000500000},
      {"LDT", 0x0000e20000500000},
  };
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    for (unsigned i = 0; i < sizeof kGates / sizeof *kGates; ++i) {
      reset_tasks();
      gdt[GATE / 8] = kGates[i].gate;
      say("CPL %d, %s: ", (unsigned long)cpl, kGates[i].name);
      run(call_code, (struct setup){.cpl = cpl});
      put_result();
      say(", ");
      run(jump_code, (struct setup){.cpl = cpl});
      put_result();
      say("\n");
    }
  }

  say("-- parameters\n");
  for (unsigned wide = 0; wide < 2; ++wide) {
    for (unsigned count = 0; count < 32; count += count < 4 ? 1 : 9) {
      reset_tasks();
      uint32_t* const stack = (uint32_t*)(STACK_TOP - 0x100);
      for (unsigned i = 0; i < 64; ++i) stack[i] = 0x10001 * (i + 1);
      // The target must lie below 64 KiB for a 16-bit gate.
      memcpy((void*)0x8000, target, 16);
      // TCG does not drop the upper half of the offset, and is lost.
      gdt[GATE / 8] = gate(wide || is_tcg() ? 0x8000 : 0xabcd8000, TEST, wide ? 0xec : 0xe4, count);
      run(call_code, (struct setup){.cpl = 3, .sp = STACK_TOP - 0x100});
      say("%s gate, %d parameters: ", wide ? "32-bit" : "16-bit", (unsigned long)count);
      put_result();
      ((uint32_t*)caught.state.sp)[0] -= wide ? (uint32_t)call_code : (uint32_t)call_code & 0xffff;
      put_stack(wide ? 4 + (count > 4 ? 4 : count) : 3 + (count > 4 ? 4 : count) / 2);
    }
  }
  gdt[GATE / 8] = gate((uint32_t)CODE("retf 8"), TEST, 0xec, 2);
  CHECK("RETF 8 from a gate with two parameters", "push 1; push 2; .byte 0x9a, 0, 0, 0, 0, 0x53, 0", .cpl = 3, .show = "pS");
  gdt[GATE / 8] = gate((uint32_t)CODE("mov eax, 0x10; mov ds, eax; mov es, eax; mov eax, 0x23; mov fs, eax; retf"), TEST, 0xec, 0);
  RUN(".byte 0x9a, 0, 0, 0, 0, 0x53, 0", .cpl = 3);
  say("RETF drops segments of DPL 0: ds=%x es=%x fs=%x\n", caught.handler_ds, caught.handler_es, caught.handler_fs);
}

static void outward_returns(void) {
  say("-- RETF and IRET outward\n");
  reset_tasks();
  gdt[TEST / 8] = descriptor(0, 0xfffff, 0xf3, GRANULAR | BIG);
#define OUT(name, ss, cs, ...) \
  CHECK("RETF, " name, "push " ss "; push 0x8ff000; push " cs "; lea eax, [1f]; push eax; retf; 1:", .show = "pS"); \
  CHECK("IRETD, " name, "push " ss "; push 0x8ff000; push 2; push " cs "; lea eax, [1f]; push eax; iretd; 1:", .show = "pS")
  OUT("all right", "0x23", "0x1b");
  OUT("SS null", "0", "0x1b");
  OUT("SS null with RPL 3", "3", "0x1b");
  OUT("SS of RPL 0", "0x20", "0x1b");
  OUT("SS of DPL 0", "0x13", "0x1b");
  OUT("SS code", "0x1b", "0x1b");
  OUT("SS beyond the GDT", "0xfffb", "0x1b");
  OUT("CS null", "0x23", "0");
  OUT("CS null with RPL 3", "0x23", "3");
  OUT("CS of DPL 0 with RPL 3", "0x23", "0x0b");
  OUT("CS data", "0x23", "0x23");
  OUT("CS beyond the GDT", "0x23", "0xfffb");
  OUT("CS a TSS", "0x23", "0x3b");
  OUT("CS of DPL 3 with RPL 0", "0x23", "0x18");
  gdt[TEST / 8] = descriptor(0, 0xfffff, 0x73, GRANULAR | BIG);
  OUT("SS not present", "0x4b", "0x1b");
  gdt[TEST / 8] = descriptor(0, 0xfffff, 0xf1, GRANULAR | BIG);
  OUT("SS read-only", "0x4b", "0x1b");
  gdt[TEST / 8] = descriptor(0, 0xfffff, 0x7b, GRANULAR | BIG);
  OUT("CS not present", "0x23", "0x4b");
  gdt[TEST / 8] = descriptor(0, 0xfffff, 0x9f, GRANULAR | BIG);
  OUT("CS conforming of DPL 0", "0x23", "0x4b");
  gdt[TEST / 8] = descriptor(0, 0xfffff, 0xff, GRANULAR | BIG);
  OUT("CS conforming of DPL 3 with RPL 0", "0x23", "0x48");
  gdt[TEST / 8] = descriptor(0, 0x10, 0xfb, BIG);
  OUT("EIP beyond the limit", "0x23", "0x4b");
  CHECK("RETF to the same ring", "push 8; lea eax, [1f]; push eax; retf; 1:", .show = "pS");
  CHECK("RETF 4", "push 1; push 8; lea eax, [1f]; push eax; retf 4; 1:", .show = "pS");
  CHECK("RETF to a lower CPL", "push 8; lea eax, [1f]; push eax; retf; 1:", .cpl = 3, .show = "pS");
  CHECK("IRETD to a lower CPL", "push 2; push 8; lea eax, [1f]; push eax; iretd; 1:", .cpl = 3, .show = "pS");
  CHECK("IRETD, all flags, CPL 0", "push 0x3f7fd7 & ~0x24100; push 8; lea eax, [1f]; push eax; iretd; 1:", .show = "F");
  CHECK("IRETD, all flags, CPL 3", "push 0x3f7fd7 & ~0x24100; push 0x1b; lea eax, [1f]; push eax; iretd; 1:", .cpl = 3, .show = "F");
  CHECK("IRETD, all flags, CPL 3, IOPL 3", "push 0x3f7fd7 & ~0x27100; push 0x1b; lea eax, [1f]; push eax; iretd; 1:", .cpl = 3,
        .flags = FL_IOPL, .show = "F");
  CHECK("IRET, 16 bits, keeps the upper flags", "pushw 0x0ed7; pushw 8; pushw 0x8000; mov word ptr [0x8000], 0x81cd; .byte 0x66;"
        "iretd", .flags = FL_AC | FL_ID, .show = "F");
  CHECK("IRETD that sets VM at CPL 3", "push 0x20002; push 0x1b; lea eax, [1f]; push eax; iretd; 1:", .cpl = 3, .show = "f");
  CHECK("IRETD to EIP beyond 64 KiB in 16-bit code", "push 2; push 0x28; push 0x12345678; iretd", .show = "S");
}

static void inner_stacks(void) {
  static const struct {
    const char* name;
    unsigned ss;
    uint64_t descriptor;
  } kStacks[] = {
      {"null", 0, 0},
      {"null with RPL 3", 3, 0},
      {"beyond the GDT", 0xfff8, 0},
      {"of RPL 3", KDATA + 3, 0},
      {"of DPL 3", TEST, 0x00cff3000000ffff},
      {"of DPL 3 and RPL 3", TEST + 3, 0x00cff3000000ffff},
      {"code", KCODE, 0},
      {"read-only", TEST, 0x00cf91000000ffff},
      {"not present", TEST, 0x00cf13000000ffff},
      {"a TSS", TSS_SELECTOR, 0},
      {"in an LDT that is not there", 0xc, 0},
      {"too small", TEST, 0x004093000000000f},
      {"16-bit", TEST, 0x000f93000000ffff},
      {"expand-down", TEST, 0x00cf97000000000f},
  };
  say("-- stacks of the TSS: call gate, INT n, #UD\n");
  for (unsigned i = 0; i < sizeof kStacks / sizeof *kStacks; ++i) {
    say("SS 0 %s: ", kStacks[i].name);
    for (unsigned way = 0; way < 3; ++way) {
      reset_tasks();
      faults_by_task(true);
      gdt[TEST / 8] = kStacks[i].descriptor;
      kTss[T_SS0] = kStacks[i].ss;
      gdt[GATE / 8] = gate((uint32_t)target, KCODE, 0xec, 0);
      switch (way) {
        case 0: RUN(".byte 0x9a, 0, 0, 0, 0, 0x53, 0", .cpl = 3); break;
        case 1: RUN("int 0x81", .cpl = 3); break;
        case 2: RUN("ud2", .cpl = 3); break;
      }
      put_result();
      say(way < 2 ? ", " : "\n");
    }
  }
  say("-- limit of the TSS: call gate, INT n, #UD\n");
  static const unsigned kLimits[] = {0x3, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0x66};
  for (unsigned i = 0; i < sizeof kLimits / sizeof *kLimits; ++i) {
    say("limit %x: ", (unsigned long)kLimits[i]);
    for (unsigned way = 0; way < 3; ++way) {
      reset_tasks();
      faults_by_task(true);
      gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)tss, kLimits[i], 0x89, 0);
      asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
      // Faults cannot leave by a task: that would save state beyond the limit. Their stack is wrong as well, so a
      // machine that is right ends in #DF or beyond; only sizes that suffice are tried with INT n and #UD.
      if (kLimits[i] < 9) {
        say(way < 2 ? "-, " : "-\n");
        continue;
      }
      faults_by_task(false);
      switch (way) {
        case 0: RUN(".byte 0x9a, 0, 0, 0, 0, 0x53, 0", .cpl = 3); break;
        case 1: RUN("int 0x81", .cpl = 3); break;
        case 2: RUN("ud2", .cpl = 3); break;
      }
      put_result();
      say(way < 2 ? ", " : "\n");
    }
  }
  reset_tasks();
  faults_by_task(false);
}

static void interrupt_gates(void) {
  say("-- interrupt and trap gates of both widths\n");
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    for (unsigned type = 0; type < 32; ++type) {
      reset_tasks();
      const bool narrow = (type & ~1u) == 6;
      if (type == 5) continue;
      set_gate(0x42, narrow ? (unsigned long)0x8000 | 0xabcd0000 : STUB(0x42), 0xe0 | type, KCODE, 0);
      // The stub of the 16-bit gates begins below 64 KiB: a gate's upper half is ignored.
      uint8_t* const low = (uint8_t*)0x8000;
      low[0] = 0xe9;
      const uint32_t distance = (uint32_t)narrow_stub - 0x8005;
      memcpy(low + 1, &distance, 4);
      say("CPL %d, gate of type %x: ", (unsigned long)cpl, (unsigned long)type);
      if (narrow && is_tcg()) {
        say("not tried\n");
        continue;
      }
      RUN("nop; int 0x42", .cpl = cpl, .flags = FL_IF * 0 | FL_IOPL);
      if (caught.vector == 0x42) {
        say("flags=%x cs=%x sp=%x handler flags=%x cs=%x ss=%x\n", caught.state.flags & ~(unsigned long)FL_ARITHMETIC,
            caught.state.cs, caught.state.sp & (narrow ? 0xffff : ~0ul), caught.handler_flags & ~(unsigned long)FL_ARITHMETIC,
            caught.handler_cs, caught.handler_ss);
      } else {
        put_result();
        say("\n");
      }
    }
    for (unsigned dpl = 0; dpl < 4; ++dpl) {
      set_gate(0x42, STUB(0x42), GATE_INTERRUPT | dpl << 5, KCODE, 0);
      say("CPL %d, gate of DPL %d: ", (unsigned long)cpl, (unsigned long)dpl);
      RUN("int 0x42", .cpl = cpl);
      put_result();
      say("\n");
    }
    static const struct {
      const char* name;
      unsigned selector;
      uint64_t descriptor;
    } kTargets[] = {
        {"null", 0, 0},
        {"null with RPL 3", 3, 0},
        {"beyond the GDT", 0xfff8, 0},
        {"data", KDATA, 0},
        {"not present", TEST, 0x00cf1b000000ffff},
        {"not present data", TEST, 0x00cf13000000ffff},
        {"of DPL 3", UCODE & ~3, 0},
        {"conforming of DPL 0", TEST, 0x00cf9f000000ffff},
        {"conforming of DPL 3", TEST, 0x00cfff000000ffff},
        {"with RPL 3", KCODE + 3, 0},
        {"a TSS", TSS_SELECTOR, 0},
        {"too small", TEST, 0x00409b000000ffff},
    };
    for (unsigned i = 0; i < sizeof kTargets / sizeof *kTargets; ++i) {
      gdt[TEST / 8] = kTargets[i].descriptor;
      say("CPL %d, gate to code %s, INT n: ", (unsigned long)cpl, kTargets[i].name);
      // A handler that keeps CPL 3 could not get back: the harness is at CPL 0.
      if (cpl == 3 && (i == 6 || i == 7 || i == 8)) {
        say("-\n");
        continue;
      }
      set_gate(0x42, STUB(0x42), 0xee, kTargets[i].selector, 0);
      RUN("int 0x42", .cpl = cpl);
      put_result();
      say(" cs=%x, #UD: ", caught.vector == 0x42 ? caught.handler_cs : 0);
      set_gate(UD, STUB(UD), 0x8e, kTargets[i].selector, 0);
      RUN("ud2", .cpl = cpl);
      put_result();
      say("\n");
    }
    default_gates();
    set_gate(0x42, STUB(0x42), 0x6e, KCODE, 0);
    CHECK("gate not present, INT n", "int 0x42", .cpl = cpl);
    set_gate(UD, STUB(UD), 0x0e, KCODE, 0);
    CHECK("gate not present, #UD", "ud2", .cpl = cpl);
    default_gates();
  }
}

static void put_task_state(void) {
  say(" tr=%x busy=%x,%x link=%x NT=%x,%x TS=%x\n", caught.state.bp, (unsigned long)(gdt[TSS_SELECTOR / 8] >> 41 & 1),
      (unsigned long)(gdt[OTHER_TASK / 8] >> 41 & 1), (unsigned long)(other[T_LINK] & 0xffff), caught.state.flags >> 14 & 1,
      (unsigned long)(kTss[T_FLAGS] >> 14 & 1), read_cr0() >> 3 & 1);
}

static void new_task(const char* code) {
  reset_tasks();
  memset(other, 0, sizeof other);
  other[T_EIP] = (uint32_t)code;
  other[T_FLAGS] = 2;
  other[T_EAX] = 0xa1;
  other[T_ECX] = 0xc1;
  other[T_ESP] = TASK_STACK;
  other[T_CS] = KCODE;
  other[T_SS] = other[T_DS] = other[T_ES] = KDATA;
  other[T_ESP0] = TASK_STACK - 0x100;
  other[T_SS0] = KDATA;
  other[T_TRAP_AND_MAP] = 0x68 << 16;
  kTss[T_TRAP_AND_MAP] = 0x68 << 16;
  memset(kTss + T_EIP, 0, 4 * (T_GS - T_EIP + 1));
}

#define TASK(name, body, ...)                                  \
  RUN(body, __VA_ARGS__);                                      \
  say("%s: ", name);                                           \
  put_result();                                                \
  say(" ax=%x cx=%x", caught.state.ax, caught.state.cx);       \
  put_task_state()

#define TO_TASK(op) ".byte " op ", 0, 0, 0, 0, 0x58, 0;"
static void tasks(void) {
  say("-- task switches\n");
  const char* const in_task = CODE("str ebp");
  const char* const and_back = CODE("mov eax, 0x777; mov [0x800000], eax; iretd; str ebp");
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    const unsigned access = cpl ? 0xe9 : 0x89;
    say("-- task switches, CPL %d\n", (unsigned long)cpl);
#define FRESH(code) new_task(code), gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, 0x67, access, 0)
    FRESH(in_task);
    TASK("JMP", TO_TASK("0xea"), .cpl = cpl, .flags = FL_IOPL);
    say("saved: eip=%x flags=%x eax=%x esp=%x cs=%x ss=%x ds=%x es=%x\n", (unsigned long)(kTss[T_EIP] - caught.state.ip < 0x1000),
        (unsigned long)kTss[T_FLAGS], (unsigned long)kTss[T_EAX], (unsigned long)kTss[T_ESP], (unsigned long)kTss[T_CS],
        (unsigned long)kTss[T_SS], (unsigned long)kTss[T_DS], (unsigned long)kTss[T_ES]);
    FRESH(in_task);
    TASK("CALL", TO_TASK("0x9a"), .cpl = cpl);
    FRESH(in_task);
    TASK("JMP with NT set", TO_TASK("0xea"), .cpl = cpl, .flags = FL_NT);
    FRESH(in_task);
    TASK("CALL with NT set", TO_TASK("0x9a"), .cpl = cpl, .flags = FL_NT);
    FRESH(in_task);
    other[T_FLAGS] |= FL_NT;
    TASK("JMP to a task with NT set", TO_TASK("0xea"), .cpl = cpl);
    FRESH(and_back);
    TASK("CALL and IRET", TO_TASK("0x9a") "str ebp", .cpl = 0);
    say("saved eip after IRET: +%x\n", (unsigned long)(other[T_EIP] - (uint32_t)and_back));
    FRESH(in_task);
    set_gate(0x43, 0, 0xe5, OTHER_TASK, 0);
    TASK("INT n through a task gate", "int 0x43; str ebp", .cpl = cpl);
    FRESH(and_back);
    set_gate(0x43, 0, 0xe5, OTHER_TASK, 0);
    TASK("INT n and IRET", "int 0x43; mov eax, 0x888", .cpl = cpl);
    FRESH(in_task);
    set_gate(UD, 0, 0x85, OTHER_TASK, 0);
    TASK("#UD through a task gate", "nop; ud2", .cpl = cpl);
    FRESH(CODE("pop eax; mov ecx, esp; str ebp"));
    set_gate(GP, 0, 0x85, OTHER_TASK, 0);
    TASK("#GP through a task gate", "mov eax, 0xfff8; mov ds, eax", .cpl = cpl);
    FRESH(CODE("popw ax; mov ecx, esp; str ebp"));
    default_gates();
    FRESH(in_task);
    gdt[GATE / 8] = gate(0, OTHER_TASK, 0xe5, 0);
    TASK("JMP to a task gate", ".byte 0xea, 0, 0, 0, 0, 0x53, 0", .cpl = cpl);
    FRESH(in_task);
    TASK("CALL to a task gate", ".byte 0x9a, 0, 0, 0, 0, 0x53, 0", .cpl = cpl);
    FRESH(in_task);
    other[T_CS] = UCODE;
    other[T_SS] = other[T_DS] = UDATA;
    other[T_ESP] = TASK_STACK;
    TASK("JMP to a task of CPL 3", TO_TASK("0xea"), .cpl = cpl);
    FRESH(in_task);
    other[T_FLAGS] |= FL_TF;
    TASK("JMP to a task with TF", TO_TASK("0xea"), .cpl = cpl);
    FRESH(in_task);
    other[T_TRAP_AND_MAP] |= 1;
    TASK("JMP to a task with the trap bit", TO_TASK("0xea"), .cpl = cpl);
    say("DR6: %x\n", caught.dr6);
  }

  say("-- NMI through a task gate\n");
  volatile uint32_t* const command = (volatile uint32_t*)0xfee00300;  // the local APIC's: an NMI to itself
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    const unsigned access = cpl ? 0xe9 : 0x89;
    default_gates();
    FRESH(in_task);
    RUN("mov dword ptr [ebx], 0x4400; 1: jmp 1b", .bx = (unsigned long)command);
    *command = 0x4400;  // blocked until the IRETD with which the check begins
    set_gate(NMI, 0, 0x85, OTHER_TASK, 0);
    TASK("taken", "nop; str ebp", .cpl = cpl);
    default_gates();
    RUN("nop");
  }

  say("-- task switches that fail\n");
  struct {
    const char* name;
    unsigned member, value;
    uint64_t descriptor;
  } const kWrong[] = {
      {"CS null", T_CS, 0, 0},
      {"CS data", T_CS, KDATA, 0},
      {"CS of DPL 3 with RPL 0", T_CS, UCODE & ~3u, 0},
      {"CS of DPL 0 with RPL 3", T_CS, KCODE | 3, 0},
      {"CS beyond the GDT", T_CS, 0xfff8, 0},
      {"CS not present", T_CS, TEST, 0x00cf1b000000ffff},
      {"SS null", T_SS, 0, 0},
      {"SS of DPL 3", T_SS, UDATA & ~3u, 0},
      {"SS of RPL 3", T_SS, KDATA | 3, 0},
      {"SS code", T_SS, KCODE, 0},
      {"SS not present", T_SS, TEST, 0x00cf13000000ffff},
      {"SS beyond the GDT", T_SS, 0xfff8, 0},
      {"DS null", T_DS, 0, 0},
      {"DS execute-only code", T_DS, TEST, 0x00cf99000000ffff},
      {"DS not present", T_DS, TEST, 0x00cf13000000ffff},
      {"DS beyond the GDT", T_DS, 0xfff8, 0},
      {"ES a TSS", T_ES, TSS_SELECTOR, 0},
      {"FS beyond the GDT", T_FS, 0xfff8, 0},
      {"GS of RPL 3 and DPL 0", T_GS, KDATA | 3, 0},
      {"LDT a data segment", T_LDT, KDATA, 0},
      {"LDT beyond the GDT", T_LDT, 0xfff8, 0},
      {"LDT in the LDT", T_LDT, 0xc, 0},
      {"LDT not present", T_LDT, TEST, 0x0000020000000017},
      {"LDT all right", T_LDT, TEST, 0x0000820000000017},
      {"EIP beyond the limit", T_EIP, 0xffffff, 0},
  };
  for (unsigned i = 0; i < sizeof kWrong / sizeof *kWrong; ++i) {
    new_task(in_task);
    faults_by_task(true);
    gdt[TEST / 8] = kWrong[i].descriptor;
    other[kWrong[i].member] = kWrong[i].value;
    if (i + 1 == sizeof kWrong / sizeof *kWrong) {
      gdt[TEST / 8] = descriptor(0, 0xffff, 0x9b, BIG);
      other[T_CS] = TEST;
    }
    RUN(TO_TASK("0xea"));
    say("%s: ", kWrong[i].name);
    put_result();
    say(" busy=%x,%x\n", (unsigned long)(gdt[TSS_SELECTOR / 8] >> 41 & 1), (unsigned long)(gdt[OTHER_TASK / 8] >> 41 & 1));
  }
  faults_by_task(false);
  static const struct {
    const char* name;
    uint64_t set;
  } kDescriptors[] = {{"busy", 2ull << 40}, {"not present", 0x80ull << 40}, {"LDT", 0xbull << 40}};
  for (unsigned i = 0; i < 3; ++i) {
    for (unsigned op = 0; op < 2; ++op) {
      new_task(in_task);
      gdt[OTHER_TASK / 8] ^= kDescriptors[i].set;
      if (op == 0) RUN(TO_TASK("0xea")); else RUN(TO_TASK("0x9a"));
      say("%s to a TSS that is %s: ", op ? "CALL" : "JMP", kDescriptors[i].name);
      put_result();
      say("\n");
    }
  }
  static const unsigned kLimits[] = {0x67, 0x66, 0x65, 0x64, 0x63, 0x2b, 0};
  for (unsigned i = 0; i < sizeof kLimits / sizeof *kLimits; ++i) {
    new_task(in_task);
    gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, kLimits[i], 0x89, 0);
    RUN(TO_TASK("0xea"));
    say("JMP to a TSS of limit %x: ", (unsigned long)kLimits[i]);
    put_result();
    say("\n");
  }
  for (unsigned dpl = 0; dpl < 4; ++dpl) {
    for (unsigned rpl = 0; rpl < 4; ++rpl) {
      new_task(in_task);
      gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, 0x67, 0x89 | dpl << 5, 0);
      char* const code = CODE(".byte 0xea, 0, 0, 0, 0, 0x58, 0");
      code[5] = OTHER_TASK | rpl;
      run(code, (struct setup){.cpl = 0});
      say("TSS of DPL %d, RPL %d, CPL 0: ", (unsigned long)dpl, (unsigned long)rpl);
      put_result();
      new_task(in_task);
      gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, 0x67, 0x89 | dpl << 5, 0);
      run(code, (struct setup){.cpl = 3});
      say(", CPL 3: ");
      put_result();
      say("\n");
    }
  }

  say("-- IRET with NT\n");
  static const struct {
    const char* name;
    unsigned link;
    unsigned access;
  } kLinks[] = {{"busy TSS", OTHER_TASK, 0x8b}, {"TSS that is not busy", OTHER_TASK, 0x89}, {"null", 0, 0x8b},
                {"data segment", KDATA, 0x8b}, {"beyond the GDT", 0xfff8, 0x8b}, {"in the LDT", 0xc, 0x8b},
                {"busy TSS that is not present", OTHER_TASK, 0x0b}, {"RPL 3", OTHER_TASK | 3, 0x8b}};
  for (unsigned i = 0; i < sizeof kLinks / sizeof *kLinks; ++i) {
    new_task(in_task);
    gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, 0x67, kLinks[i].access, 0);
    kTss[T_LINK] = kLinks[i].link;
    RUN("iretd", .flags = FL_NT);
    say("back link %s: ", kLinks[i].name);
    put_result();
    put_task_state();
  }
  new_task(in_task);
  CHECK("IRET with NT, CPL 3, null link", "iretd", .cpl = 3, .flags = FL_NT);

  say("-- 16-bit TSS\n");
  uint16_t* const narrow = (uint16_t*)other;
  for (unsigned op = 0; op < 2; ++op) {
    reset_tasks();
    memset(other, 0, sizeof other);
    memcpy((void*)0x8000, in_task, 16);
    narrow[7] = 0x8000;  // IP
    narrow[8] = 2 | FL_IOPL;
    narrow[9] = 0xa1;
    narrow[10] = 0xc1;
    narrow[13] = 0x7000;  // SP
    narrow[17] = KDATA;   // ES
    narrow[18] = KCODE;
    narrow[19] = KDATA16;
    narrow[20] = KDATA;
    gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, 0x2b, 0x81, 0);
    if (op == 0) RUN(TO_TASK("0xea"), .ax = 0x12345678); else RUN(TO_TASK("0x9a"), .ax = 0x12345678);
    say("%s: ", op ? "CALL" : "JMP");
    say("cs=%x ss=%x sp=%x", caught.state.cs, caught.state.ss, caught.state.sp & 0xffff);
    say(" ax=%x cx=%x dx=%x flags=%x", caught.state.ax & 0xffff, caught.state.cx & 0xffff, caught.state.dx & 0xffff,
        caught.state.flags);
    put_task_state();
  }
  for (unsigned limit = 0x29; limit <= 0x2b; ++limit) {
    reset_tasks();
    gdt[OTHER_TASK / 8] = descriptor((uint32_t)other, limit, 0x81, 0);
    RUN(TO_TASK("0xea"));
    say("JMP to a 16-bit TSS of limit %x: vector %x(%x)\n", (unsigned long)limit, caught.vector, caught.error);
  }
  reset_tasks();
}

void guest_main(void) {
  default_gates();
  reset_tasks();
  call_gates();
  outward_returns();
  inner_stacks();
  interrupt_gates();
  tasks();
  finish();
}
