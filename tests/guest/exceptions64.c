// Every exception of 64-bit mode, raised in several ways: vector, error code, saved RIP.
#include "runtime/guest.h"

static void divide_error(void) {
  for (unsigned cpl = FIRST_CPL; cpl <= 3; cpl += 3) {
    say("-- divide error, CPL %d\n", (unsigned long)cpl);
    CHECK("DIV r8 by zero", "xor ecx, ecx; div cl", .cpl = cpl, .show = "ac");
    CHECK("DIV r16 by zero", "xor ecx, ecx; div cx", .cpl = cpl, .show = "ad");
    CHECK("DIV r64 by zero", "xor ecx, ecx; div rcx", .cpl = cpl, .show = "ad");
    CHECK("DIV quotient too large", "mov edx, 5; mov ecx, 5; div ecx", .cpl = cpl, .show = "ad");
    CHECK("IDIV r32 by zero", "xor ecx, ecx; idiv ecx", .cpl = cpl, .show = "ad");
    CHECK("IDIV of the smallest number by -1, 32 bits", "mov eax, 0x80000000; cdq; mov ecx, -1; idiv ecx", .cpl = cpl,
          .show = "ad");
    CHECK("IDIV of the smallest number by -1, 64 bits", "mov eax, 1; ror rax; cqo; mov rcx, -1; idiv rcx", .cpl = cpl,
          .show = "ad");
    CHECK("DIV m32 by zero", "mov dword ptr [rsi], 0; div dword ptr [rsi]", .cpl = cpl, .show = "ad");
    CHECK("IDIV m8, quotient 128", "mov byte ptr [rsi], 1; mov ax, 128; idiv byte ptr [rsi]", .cpl = cpl, .show = "a");
    CHECK("IDIV m8, quotient -128", "mov byte ptr [rsi], 1; mov ax, -128; idiv byte ptr [rsi]", .cpl = cpl, .show = "a");
  }
}

static void invalid_opcode(void) {
  for (unsigned cpl = FIRST_CPL; cpl <= 3; cpl += 3) {
    say("-- invalid opcode, CPL %d\n", (unsigned long)cpl);
    CHECK("UD2", "ud2", .cpl = cpl);
    CHECK("UD1", "nop; .byte 0x0f, 0xb9, 0xc0", .cpl = cpl);
    CHECK("UD1 with a memory operand that is not there", "mov rsi, 0x80000000; .byte 0x0f, 0xb9, 0x06", .cpl = cpl);
    CHECK("UD0", ".byte 0x0f, 0xff, 0xc0", .cpl = cpl);
    CHECK("LOCK on a register destination", ".byte 0xf0, 0x01, 0xc0", .cpl = cpl);
    CHECK("LOCK on MOV", ".byte 0xf0, 0x89, 0x06", .cpl = cpl);
    CHECK("LOCK on CMP", ".byte 0xf0, 0x39, 0x06", .cpl = cpl);
    CHECK("LOCK on BT", ".byte 0xf0, 0x0f, 0xa3, 0x06", .cpl = cpl);
    CHECK("LOCK NOP", ".byte 0xf0, 0x90", .cpl = cpl);
    CHECK("MOV to CS", ".byte 0x8e, 0xc8", .cpl = cpl);
    CHECK("MOV to segment register 6", ".byte 0x8e, 0xf0", .cpl = cpl);
    CHECK("MOV to segment register 7", ".byte 0x8e, 0xf8", .cpl = cpl);
    CHECK("MOV from segment register 6", ".byte 0x8c, 0xf0", .cpl = cpl);
    CHECK("LEA of a register", ".byte 0x8d, 0xc0", .cpl = cpl);
    CHECK("BOUND's opcode without EVEX", ".byte 0x62, 0x06", .cpl = cpl);
    CHECK("PUSH ES", ".byte 0x06", .cpl = cpl);
    CHECK("PUSHA", ".byte 0x60", .cpl = cpl);
    CHECK("DAA", ".byte 0x27", .cpl = cpl);
    CHECK("AAM", ".byte 0xd4, 0x0a", .cpl = cpl);
    CHECK("SALC", ".byte 0xd6", .cpl = cpl);
    CHECK("INTO", ".byte 0xce", .cpl = cpl);
    CHECK("82h group", ".byte 0x82, 0xc0, 0x00", .cpl = cpl);
    CHECK("far CALL ptr16:32", ".byte 0x9a, 0, 0, 0, 0, 8, 0", .cpl = cpl);
    CHECK("far JMP ptr16:32", ".byte 0xea, 0, 0, 0, 0, 8, 0", .cpl = cpl);
    CHECK("FF /7", ".byte 0xff, 0xff", .cpl = cpl);
    CHECK("FE /2", ".byte 0xfe, 0xd0", .cpl = cpl);
    CHECK("8F /1", ".byte 0x8f, 0xc8", .cpl = cpl);
    CHECK("C6 /1", ".byte 0xc6, 0xc8, 0x00", .cpl = cpl);
    CHECK("0F 0B after a REX prefix", ".byte 0x48, 0x0f, 0x0b", .cpl = cpl);
    CHECK("CMPXCHG8B of a register", ".byte 0x0f, 0xc7, 0xc8", .cpl = cpl);
    CHECK("0F BA /0", ".byte 0x0f, 0xba, 0xc0, 0x01", .cpl = cpl);
    CHECK("MOV from CR1", ".byte 0x0f, 0x20, 0xc8", .cpl = cpl);
    CHECK("MOV from CR5", ".byte 0x0f, 0x20, 0xe8", .cpl = cpl);
    CHECK("MOV from CR15", ".byte 0x44, 0x0f, 0x20, 0xf8", .cpl = cpl);
    CHECK("MOV to CR7", ".byte 0x0f, 0x22, 0xf8", .cpl = cpl);
    CHECK("MOV from DR8", ".byte 0x44, 0x0f, 0x21, 0xc0", .cpl = cpl);
    CHECK("MOV from TR6", ".byte 0x0f, 0x24, 0xf0", .cpl = cpl);
    CHECK("RSM outside SMM", "rsm", .cpl = cpl);
    CHECK("MOVBE between registers", ".byte 0x0f, 0x38, 0xf0, 0xc1", .cpl = cpl);
    CHECK("VEX with a LOCK prefix", ".byte 0xf0, 0xc5, 0xf8, 0x77", .cpl = cpl);
    CHECK("VEX with a REX prefix", ".byte 0x40, 0xc5, 0xf8, 0x77", .cpl = cpl);
    CHECK("VEX with a 66 prefix", ".byte 0x66, 0xc5, 0xf8, 0x77", .cpl = cpl);
    CHECK("instruction of 15 bytes", ".fill 14, 1, 0x66; nop", .cpl = cpl);
    CHECK("instruction of 16 bytes", ".fill 15, 1, 0x66; nop", .cpl = cpl);
    CHECK("unknown instruction of 16 bytes", ".fill 15, 1, 0x66; .byte 0x0f, 0x0b", .cpl = cpl);
    if (FIRST_CPL) continue;  // Linux has CR4.OSXSAVE and SYSENTER_CS set
    CHECK("VZEROUPPER without OSXSAVE", "vzeroupper", .cpl = cpl);
    CHECK("XGETBV without OSXSAVE", "xor ecx, ecx; xgetbv", .cpl = cpl);
    CHECK("XSAVE without OSXSAVE", "xsave [rsi]", .cpl = cpl);
    CHECK("SYSENTER CS zero", "sysenter", .cpl = cpl);
  }
}

static void traps_of_instructions(void) {
  for (unsigned cpl = FIRST_CPL; cpl <= 3; cpl += 3) {
    say("-- INT n, CPL %d\n", (unsigned long)cpl);
    set_gate(BP, STUB(BP), 0xee, KCODE, 1);
    set_gate(OF, STUB(OF), 0xee, KCODE, 1);
    CHECK("INT3", "nop; int3", .cpl = cpl, .show = "fR");
    CHECK("INT 3, two bytes", ".byte 0xcd, 3", .cpl = cpl, .show = "fR");
    CHECK("INT 4", ".byte 0xcd, 4", .cpl = cpl, .show = "fR");
    CHECK("ICEBP", ".byte 0xf1", .cpl = cpl, .show = "fR6");
    default_gates();
    if (FIRST_CPL) continue;  // Linux has its own gates
    CHECK("INT3 through a gate of DPL 0", "nop; int3", .cpl = cpl, .show = "fR");
    CHECK("ICEBP through a gate of DPL 0", "nop; .byte 0xf1", .cpl = cpl, .show = "fR6");
    CHECK("INT 13 through a gate of DPL 0", ".byte 0xcd, 13", .cpl = cpl);
    CHECK("INT 255 through a gate of DPL 0", ".byte 0xcd, 255", .cpl = cpl);
  }
}

void guest_main(void) {
  default_gates();
  divide_error();
  invalid_opcode();
  traps_of_instructions();
  finish();
}
