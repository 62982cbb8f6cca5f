// Every exception of 32-bit protected mode, raised in several ways: vector, error code, saved EIP.
#include "runtime/guest.h"

static void instructions(void) {
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    say("-- CPL %d\n", (unsigned long)cpl);
    CHECK("DIV by zero", "xor ecx, ecx; div ecx", .cpl = cpl, .show = "ad");
    CHECK("AAM 0", "aam 0", .cpl = cpl, .show = "a");
    CHECK("IDIV of the smallest number by -1", "mov eax, 0x80000000; cdq; mov ecx, -1; idiv ecx", .cpl = cpl, .show = "ad");
    CHECK("INT3", "nop; int3", .cpl = cpl);
    CHECK("INTO with OF clear", "xor eax, eax; into", .cpl = cpl);
    CHECK("INTO with OF set, gate of DPL 0", "mov al, 0x7f; inc al; into", .cpl = cpl);
    set_gate(OF, STUB(OF), 0xee, KCODE, 0);
    set_gate(BP, STUB(BP), 0xee, KCODE, 0);
    CHECK("INTO with OF set", "mov al, 0x7f; inc al; into", .cpl = cpl, .show = "Rk");
    CHECK("INT3, gate of DPL 3", "nop; int3", .cpl = cpl, .show = "Rk");
    CHECK("INT 3, two bytes", ".byte 0xcd, 3", .cpl = cpl, .show = "Rk");
    CHECK("ICEBP", ".byte 0xf1", .cpl = cpl, .show = "R6");
    default_gates();
    CHECK("BOUND inside", "mov dword ptr [esi], 1; mov dword ptr [esi + 4], 9; mov eax, 9; bound eax, [esi]", .cpl = cpl);
    CHECK("BOUND above", "mov dword ptr [esi], 1; mov dword ptr [esi + 4], 9; mov eax, 10; bound eax, [esi]", .cpl = cpl,
          .show = "R");
    CHECK("BOUND below", "mov dword ptr [esi], 1; mov dword ptr [esi + 4], 9; mov eax, 0; bound eax, [esi]", .cpl = cpl,
          .show = "R");
    CHECK("BOUND signed", "mov dword ptr [esi], -5; mov dword ptr [esi + 4], 9; mov eax, -5; bound eax, [esi]", .cpl = cpl);
    CHECK("BOUND of words", "mov dword ptr [esi], 0x00090001; mov eax, 10; bound ax, [esi]", .cpl = cpl);
    CHECK("BOUND of a register", ".byte 0x62, 0xc0", .cpl = cpl);
    CHECK("UD2", "nop; ud2", .cpl = cpl, .show = "R");
    CHECK("UD1", ".byte 0x0f, 0xb9, 0xc0", .cpl = cpl);
    CHECK("LES of a register", ".byte 0xc4, 0xc0", .cpl = cpl);
    CHECK("LDS of a register", ".byte 0xc5, 0xc0", .cpl = cpl);
    CHECK("SYSCALL", "syscall", .cpl = cpl);
    CHECK("SYSRET", "sysret", .cpl = cpl);
    CHECK("SWAPGS", ".byte 0x0f, 0x01, 0xf8", .cpl = cpl);
    CHECK("RDFSBASE", ".byte 0xf3, 0x0f, 0xae, 0xc0", .cpl = cpl);
    CHECK("CMPXCHG16B's prefix is DEC", ".byte 0x48, 0x40", .cpl = cpl, .show = "a");
    CHECK("MOVSXD's opcode is ARPL", ".byte 0x63, 0xc0", .cpl = cpl, .show = "a");
    CHECK("82h group", ".byte 0x82, 0xc0, 0x01", .cpl = cpl, .show = "a");
    CHECK("LOCK on a register", ".byte 0xf0, 0x01, 0xc0", .cpl = cpl);
    CHECK("MOV to CS", ".byte 0x8e, 0xc8", .cpl = cpl);
    CHECK("MOV from CR1", ".byte 0x0f, 0x20, 0xc8", .cpl = cpl);
    CHECK("MOV from CR8", ".byte 0xf0, 0x0f, 0x20, 0xc0", .cpl = cpl);
    CHECK("MOV from TR7", ".byte 0x0f, 0x24, 0xf8", .cpl = cpl);
    CHECK("SYSENTER without a selector", "sysenter", .cpl = cpl);
    CHECK("SYSEXIT without a selector", "sysexit", .cpl = cpl);
    CHECK("instruction of 15 bytes", ".fill 14, 1, 0x66; nop", .cpl = cpl);
    CHECK("instruction of 16 bytes", ".fill 15, 1, 0x66; nop", .cpl = cpl);
    CHECK("INT 13 through a gate of DPL 0", ".byte 0xcd, 13", .cpl = cpl);
    CHECK("INT 255 through a gate of DPL 0", ".byte 0xcd, 255", .cpl = cpl);
  }
}

enum { TEST = FREE_SELECTOR, FAULT_TASKS = FREE_SELECTOR + 8 };

// #TS, #NP, #SS and #GP in tasks of their own, so that they are seen where the stack of the TSS is wrong.
static void faults_by_task(unsigned except) {
  static uint32_t fault_tss[4][26];
  static const unsigned kVectors[4] = {TS, NP, SS, GP};
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned vector = kVectors[i], selector = FAULT_TASKS + i * 8;
    memset(fault_tss[i], 0, sizeof fault_tss[i]);
    fault_tss[i][8] = (uint32_t)task_stubs + vector * 16;
    fault_tss[i][9] = 2;
    fault_tss[i][14] = STACK_TOP - 0x3000;
    fault_tss[i][18] = fault_tss[i][20] = fault_tss[i][21] = KDATA;
    fault_tss[i][19] = KCODE;
    gdt[selector / 8] = descriptor((uint32_t)fault_tss[i], 0x67, 0x89, 0);
    if (vector != except) set_gate(vector, 0, 0x85, selector, 0);
  }
}

// Two exceptions at once: the second while the first is delivered.
static void second_exceptions(void) {
  say("-- a second exception, CPL 3\n");
  static const struct {
    const char* name;
    unsigned vector;
  } kFirst[] = {{"#DE", DE}, {"#DB", DB}, {"#BP", BP}, {"#OF", OF}, {"#BR", BR}, {"#UD", UD}, {"#NM", NM}, {"#NP", NP}, {"#GP", GP}, {"#MF", MF}};
  static const char* const kSecond[] = {"gate not present", "gate to data", "gate to nothing", "stack null", "stack not present", "code not present",
                                        "beyond the code's limit"};
  uint32_t* const esp0 = (uint32_t*)(tss + 4);
  for (unsigned first = 0; first < sizeof kFirst / sizeof *kFirst; ++first) {
    for (unsigned second = 0; second < sizeof kSecond / sizeof *kSecond; ++second) {
      const unsigned vector = kFirst[first].vector;
      gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)tss, 0x67, 0x89, 0);
      gdt[DF_TSS_SELECTOR / 8] = descriptor((uint32_t)df_tss, 0x67, 0x89, 0);
      asm volatile("ltr %0; clts; fninit" ::"r"((uint16_t)TSS_SELECTOR));
      default_gates();
      faults_by_task(vector);
      esp0[0] = STACK_TOP - 0x1000;
      esp0[1] = KDATA;
      gdt[TEST / 8] = 0;
      unsigned type = 0xee, selector = KCODE;
      unsigned long target = STUB(vector);
      switch (second) {
        case 0: type = 0x6e; break;
        case 1: selector = KDATA; break;
        case 2: selector = 0; break;
        case 3: esp0[1] = 0; break;
        case 4:
          esp0[1] = TEST;
          gdt[TEST / 8] = 0x00cf13000000ffff;
          break;
        case 5:
          selector = TEST;
          gdt[TEST / 8] = 0x00cf1b000000ffff;
          break;
        case 6:
          selector = TEST;
          gdt[TEST / 8] = 0x00409b000000ffff;
          break;
      }
      set_gate(vector, target, type, selector, 0);
      say("%s, %s: ", kFirst[first].name, kSecond[second]);
      switch (vector) {
        case DE: RUN("xor ecx, ecx; div ecx", .cpl = 3); break;
        case DB: RUN("nop; nop", .cpl = 3, .flags = FL_TF); break;
        case BP: RUN("nop; int3", .cpl = 3); break;
        case OF: RUN("mov al, 0x7f; inc al; into", .cpl = 3); break;
        case BR: RUN("mov dword ptr [esi], 5; mov dword ptr [esi + 4], 6; bound eax, [esi]", .cpl = 3); break;
        case UD: RUN("nop; ud2", .cpl = 3); break;
        case NM:
          write_cr0(read_cr0() | CR0_TS);
          RUN("nop; fnop", .cpl = 3);
          break;
        case NP:
          gdt[(TEST + 40) / 8] = 0x00cf73000000ffff;
          RUN("mov eax, 0x73; mov ds, eax", .cpl = 3);
          break;
        case GP: RUN("nop; hlt", .cpl = 3); break;
        case MF: RUN("mov word ptr [esi], 0x37b; fldcw [esi]; fld1; fldz; fdivp; fwait", .cpl = 3); break;
      }
      asm volatile("clts; fninit");
      report("");
    }
  }
  gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)tss, 0x67, 0x89, 0);
  asm volatile("ltr %0; clts" ::"r"((uint16_t)TSS_SELECTOR));
  default_gates();
}

void guest_main(void) {
  default_gates();
  instructions();
  second_exceptions();
  finish();
}
