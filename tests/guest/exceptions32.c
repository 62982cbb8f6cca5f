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

void guest_main(void) {
  default_gates();
  instructions();
  finish();
}
