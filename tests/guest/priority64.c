// Which exception comes first where an instruction deserves several (SDM vol. 3, table 6-2), and which operand's page fault. The
// bare processor is the judge at CPL 3. What breakpoints and the trap flag compete with is debug64.c's, alignment alignment64.c's.
#include "runtime/guest.h"

#define ABSENT "0x20000000"
#define ABSENT2 "0x20010000"
#define BEYOND "0x800000010000"  // not canonical
static unsigned cpl;

#define C(name, text) CHECK(name, text, .cpl = cpl, .show = "pc")

static void operands(void) {
  say("-- operands, CPL %d\n", (unsigned long)cpl);
  C("DIV by absent memory", "xor edx, edx; div dword ptr [" ABSENT "]");
  C("DIV by memory that is not canonical", "mov rbx, " BEYOND "; xor edx, edx; div qword ptr [rbx]");
  C("PUSH of absent memory, stack absent", "mov rsp, " ABSENT2 "; push qword ptr [" ABSENT "]; nop");
  C("PUSH of memory that is not canonical, stack absent", "mov rsp, " ABSENT "; mov rbx, " BEYOND "; push qword ptr [rbx]");
  C("PUSH of absent memory, stack not canonical", "mov rsp, " BEYOND "; push qword ptr [" ABSENT "]");
  C("POP to absent memory, stack absent", "mov rsp, " ABSENT2 "; pop qword ptr [" ABSENT "]");
  C("POP to absent memory", "pop qword ptr [" ABSENT "]");
  C("POP to absent memory by RSP", "mov rsp, rdi; pop qword ptr [rsp + " ABSENT "]");
  C("POP to memory that is not canonical, stack absent", "mov rsp, " ABSENT "; mov rbx, " BEYOND "; pop qword ptr [rbx]");
  C("CALL through absent memory, stack absent", "mov rsp, " ABSENT2 "; call qword ptr [" ABSENT "]");
  C("CALL, stack absent", "mov rsp, " ABSENT "; call 1f; nop; 1: nop");
  C("CALL, stack not canonical", "mov rsp, " BEYOND "; call 1f; nop; 1: nop");
  C("CALL to what is not canonical", "mov rbx, " BEYOND "; call rbx");
  C("CALL to what is not canonical, stack absent", "mov rsp, " ABSENT "; mov rbx, " BEYOND "; call rbx");
  C("JMP to what is not canonical", "mov rbx, " BEYOND "; jmp rbx");
  C("JMP through absent memory", "jmp qword ptr [" ABSENT "]");
  C("RET to what is not canonical", "mov rbx, " BEYOND "; push rbx; ret");
  C("RET n to what is not canonical", "mov rbx, " BEYOND "; push rbx; ret 16");
  C("RET, stack absent", "mov rsp, " ABSENT "; ret");
  C("far RET, stack absent", "mov rsp, " ABSENT "; retfq");
  C("far RET to a null selector", "push 0; push 0; retfq");
  C("IRETQ, stack absent", "mov rsp, " ABSENT "; iretq");
  C("LEAVE, RBP absent", "mov rbp, " ABSENT "; leave");
  C("LEAVE, RBP not canonical", "mov rbp, " BEYOND "; leave");
  C("ENTER, stack absent", "mov rsp, " ABSENT "; enter 16, 0");
  C("ENTER of level 2, RBP absent", "mov rbp, " ABSENT "; enter 16, 2");
  C("ENTER of level 2, both absent", "mov rsp, " ABSENT2 "; mov rbp, " ABSENT "; enter 16, 2");
  C("ENTER whose frame ends in absent memory", "mov rsp, rsi; enter 0, 0; mov rsp, " ABSENT " + 0x8000; nop");
  C("PUSHFQ, stack absent", "mov rsp, " ABSENT "; pushfq");
  C("POPFQ, stack absent", "mov rsp, " ABSENT "; popfq");
  C("MOVSB, both absent", "mov rsi, " ABSENT "; mov rdi, " ABSENT2 "; movsb");
  C("MOVSB, source not canonical, destination absent", "mov rsi, " BEYOND "; mov rdi, " ABSENT2 "; movsb");
  C("MOVSB, source absent, destination not canonical", "mov rdi, " BEYOND "; mov rsi, " ABSENT2 "; movsb");
  C("CMPSB, both absent", "mov rsi, " ABSENT "; mov rdi, " ABSENT2 "; cmpsb");
  C("CMPSB, source absent, destination not canonical", "mov rdi, " BEYOND "; mov rsi, " ABSENT2 "; cmpsb");
  C("REP MOVSB, RCX 0, neither canonical", "xor ecx, ecx; mov rsi, " BEYOND "; mov rdi, rsi; rep movsb");
  C("XCHG with absent memory", "xchg [" ABSENT "], rax");
  C("CMPXCHG16B, misaligned and absent", "mov rbx, " ABSENT " + 8; cmpxchg16b [rbx]");
  C("CMPXCHG16B, misaligned and not canonical", "mov rbx, " BEYOND "; lock cmpxchg16b [rbx + 8]");
  C("MOVAPS, misaligned and absent", "mov rbx, " ABSENT " + 8; movaps xmm0, [rbx]");
  C("MOVAPS store, misaligned and absent", "mov rbx, " ABSENT " + 8; movaps [rbx], xmm0");
  C("ADDPS, misaligned and absent", "mov rbx, " ABSENT " + 4; addps xmm0, [rbx]");
  C("MOVAPS of the stack, misaligned", "movaps xmm0, [rsp - 8]");
  C("MOVAPS of the stack, not canonical", "mov rbp, " BEYOND "; movaps xmm0, [rbp + 8]");
  C("FXSAVE, misaligned and absent", "mov rbx, " ABSENT " + 8; fxsave [rbx]");
  C("FXRSTOR, misaligned and absent", "mov rbx, " ABSENT " + 8; fxrstor [rbx]");
  C("LDMXCSR with reserved bits", "mov dword ptr [rsi], -1; ldmxcsr [rsi]");
  C("LDMXCSR of absent memory", "ldmxcsr [" ABSENT "]");
  C("MASKMOVDQU of nothing to absent memory", "pxor xmm1, xmm1; mov rdi, " ABSENT "; maskmovdqu xmm0, xmm1");
#define PENDING "fninit; mov word ptr [rsi], 0x37b; fldcw [rsi]; fldz; fld1; fdivrp; "
  C("FLD of absent memory, #MF pending", PENDING "fld dword ptr [" ABSENT "]");
  C("FSTP to what is not canonical, #MF pending", PENDING "mov rbx, " BEYOND "; fstp dword ptr [rbx]");
  C("FXSAVE misaligned, #MF pending", PENDING "fxsave [rsi + 8]");
  C("FWAIT with LOCK, #MF pending", PENDING ".byte 0xf0, 0x9b");
  C("FNSTSW to absent memory, #MF pending", PENDING "fnstsw [" ABSENT "]");
  C("FLDCW of absent memory, #MF pending", PENDING "fldcw [" ABSENT "]");
  C("cleared", "fnclex; fninit");
}

static void decoding(void) {
  say("-- what is invalid, CPL %d\n", (unsigned long)cpl);
  C("LOCK on a load of absent memory", ".byte 0xf0; mov eax, [" ABSENT "]");
  C("LOCK on ADD of memory that is not canonical", "mov rbx, " BEYOND "; lock add [rbx], eax");
  C("LOCK on a comparison with absent memory", ".byte 0xf0; cmp [" ABSENT "], eax");
  C("UD2 with LOCK", ".byte 0xf0, 0x0f, 0x0b");
  C("INT3 with LOCK", ".byte 0xf0, 0xcc");
  if (cpl == 3 || !is_tcg()) C("HLT with LOCK", ".byte 0xf0, 0xf4");
  C("MOV to CR8 with LOCK", ".byte 0xf0, 0x44, 0x0f, 0x22, 0xc8");
  C("INVLPG of a register", ".byte 0x0f, 0x01, 0x3d + 0xc0");
  C("LGDT of a register", ".byte 0x0f, 0x01, 0xd7");
  C("MOV to CS of absent memory", ".byte 0x8e, 0x0c, 0x25; .long " ABSENT);
  C("LEA of a register with LOCK", ".byte 0xf0, 0x8d, 0xc0");
  C("FF /7 of absent memory", ".byte 0xff, 0x3c, 0x25; .long " ABSENT);
  C("CMPXCHG8B's group, /0, of absent memory", ".byte 0x0f, 0xc7, 0x04, 0x25; .long " ABSENT);
  C("UD1 of absent memory", ".byte 0x0f, 0xb9, 0x04, 0x25; .long " ABSENT);
  C("15 bytes of a load of absent memory", ".fill 7, 1, 0x3e; .byte 0x8b, 0x04, 0x25; .long " ABSENT);
  C("16 bytes of a load of absent memory", ".fill 9, 1, 0x3e; .byte 0x8b, 0x04, 0x25; .long " ABSENT);
  C("16 bytes with LOCK", ".byte 0xf0; .fill 8, 1, 0x3e; .byte 0x8b, 0x04, 0x25; .long " ABSENT);
  C("16 bytes that are invalid", ".fill 15, 1, 0x3e; .byte 0x06");
}

static void privileges(void) {
  say("-- privileges, CPL %d\n", (unsigned long)cpl);
  if (cpl == 3) {
    C("LGDT of absent memory", "lgdt [" ABSENT "]");
    C("LGDT of memory that is not canonical", "mov rbx, " BEYOND "; lgdt [rbx]");
    C("LIDT of absent memory", "lidt [" ABSENT "]");
    C("LLDT of absent memory", "lldt [" ABSENT "]");
    C("LTR of absent memory", "ltr [" ABSENT "]");
    C("LMSW of absent memory", "lmsw [" ABSENT "]");
    C("INVLPG of what is not canonical", "mov rbx, " BEYOND "; invlpg [rbx]");
    C("IN with LOCK", ".byte 0xf0; in al, 0x80");
    C("IN", "in al, 0x80");
    C("OUTSB of absent memory", "mov rsi, " ABSENT "; outsb");
    C("INSB to absent memory", "mov rdi, " ABSENT "; insb");
    C("REP INSB, RCX 0", "xor ecx, ecx; rep insb");
    C("REP OUTSB, RCX 0", "xor ecx, ecx; rep outsb");
    C("HLT", "hlt");
    C("RDMSR of one that does not exist", "mov ecx, 0x12345678; rdmsr");
    C("MOV from CR1", ".byte 0x0f, 0x20, 0xc8");
    C("MOV to DR7 of what is reserved", "mov rax, -1; mov dr7, rax");
    C("SWAPGS", "swapgs");
    C("SYSRET", "sysretq");
    C("WBINVD", "wbinvd");
  }
  C("MOV DS of absent memory", "mov ds, [" ABSENT "]");
  C("MOV DS of a selector beyond the GDT", "mov eax, 0xfff8; mov ds, eax");
  C("MOV SS of null with RPL 1", "mov eax, 1; mov ss, eax");
  C("LAR of absent memory", "lar eax, [" ABSENT "]");
  C("VERR of absent memory", "verr [" ABSENT "]");
  C("far JMP through absent memory", "jmp fword ptr [" ABSENT "]");
  C("far JMP through memory that is not canonical", "mov rbx, " BEYOND "; jmp fword ptr [rbx]");
  C("far JMP to null", "mov qword ptr [rsi], 0; jmp fword ptr [rsi]");
  C("far CALL to null, stack absent", "mov qword ptr [rsi], 0; mov rsp, " ABSENT "; call fword ptr [rsi]");
}

// Code that ends with the memory: what comes before the fault of the next page.
static void fetches(void) {
  static const struct {
    const char* name;
    uint8_t bytes[16];
    unsigned count;
  } kCodes[] = {{"NOP", {0x90}, 1},
                {"first byte of UD2", {0x0f}, 1},
                {"UD2", {0x0f, 0x0b}, 2},
                {"opcode that 64-bit mode does not have", {0x06}, 1},
                {"LOCK NOP", {0xf0, 0x90}, 2},
                {"LOCK alone", {0xf0}, 1},
                {"LOCK MOV without its ModRM", {0xf0, 0x89}, 2},
                {"REX alone", {0x48}, 1},
                {"MOV without its immediate", {0xb8, 1, 0}, 3},
                {"load of absent memory without its last byte", {0x8b, 0x04, 0x25, 0, 0, 0}, 6},
                {"UD0 without its ModRM", {0x0f, 0xff}, 2},
                {"UD1 without its ModRM", {0x0f, 0xb9}, 2},
                {"undefined two-byte opcode", {0x0f, 0x04}, 2},
                {"undefined group without its ModRM", {0xfe}, 1},
                {"undefined group", {0xfe, 0xd0}, 2},
                {"undefined group with a displacement to come", {0xff, 0xbb, 0, 0}, 4},
                {"undefined group with its displacement", {0xff, 0xbb, 0, 0, 0, 0}, 6},
                {"undefined group with an immediate to come", {0xc7, 0x48, 0, 0, 0, 0}, 6},
                {"undefined group with its immediate", {0xc7, 0x48, 0, 0, 0, 0, 0}, 7},
                {"undefined group with a base to come", {0xfe, 0x94}, 2},
                {"undefined x87 opcode with a displacement to come", {0xd9, 0x88, 0, 0, 0}, 5},
                {"undefined opcode of 0F 38 with a displacement to come", {0x0f, 0x38, 0x7f, 0x80, 0, 0, 0}, 7},
                {"undefined opcode of 0F 3A with an immediate to come", {0x0f, 0x3a, 0x7f, 0xc0}, 4},
                {"far CALL, which 64-bit mode does not have, with a selector to come", {0x9a, 0, 0, 0, 0, 0}, 6},
                {"VEX without its payload", {0xc5}, 1},
                {"VEX without its opcode", {0xc5, 0xf8}, 2},
                {"REX VEX without its payload", {0x40, 0xc5}, 2},
                {"LDS with REX and a register", {0x40, 0xc5, 0xf8}, 3},
                {"LES with REX and a displacement to come", {0x48, 0xc4, 0x84, 0x24, 0, 0, 0}, 7},
                {"undefined VEX opcode of 0F without a ModRM", {0xc5, 0xf8, 0x04}, 3},
                {"undefined VEX opcode of 0F without its ModRM", {0xc5, 0xf8, 0x20}, 3},
                {"undefined VEX opcode of 0F with its ModRM alone", {0xc5, 0xf8, 0x20, 0x84}, 4},
                {"undefined VEX opcode of 0F with a displacement to come", {0xc5, 0xf8, 0xd0, 0x84, 0x24, 0, 0, 0}, 8},
                {"undefined VEX opcode of 0F with its displacement", {0xc5, 0xf8, 0xd0, 0x84, 0x24, 0, 0, 0, 0}, 9},
                {"undefined VEX opcode of 0F with an immediate to come", {0xc5, 0xf8, 0x70, 0xc0}, 4},
                {"undefined VEX opcode of 0F with a jump's distance to come", {0xc5, 0xf8, 0x80, 0, 0, 0}, 6},
                {"VEX.vvvv that must not be, with a displacement to come", {0xc5, 0xb8, 0x10, 0x80, 0, 0, 0}, 7},
                {"VEX map 0 without a ModRM", {0xc4, 0xe0, 0x78, 0x58}, 4},
                {"VEX map 0 with its ModRM", {0xc4, 0xe0, 0x78, 0x58, 0xc0}, 5},
                {"undefined VEX opcode of 0F 38 with a displacement to come", {0xc4, 0xe2, 0x78, 0x04, 0x40}, 5},
                {"undefined VEX opcode of 0F 3A with an immediate to come", {0xc4, 0xe3, 0x78, 0x0f, 0xc0}, 5},
                {"LOCK VEX with a ModRM to come", {0xf0, 0xc5, 0xf8, 0x58}, 4},
                {"LOCK VEX", {0xf0, 0xc5, 0xf8, 0x58, 0xc0}, 5},
                {"14 prefixes", {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66}, 14},
                {"15 prefixes", {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66}, 15},
                {"INT without its vector", {0xcd}, 1},
                {"JMP rel32 without its last byte", {0xe9, 0, 0, 0}, 4},
                {"jump not taken", {0x75, 0x00}, 2},
                {"CALL of what is absent", {0xe8, 0, 0, 0, 0x10}, 5}};
  say("-- code before an absent page, CPL %d\n", (unsigned long)cpl);
  for (unsigned i = 0; i < sizeof kCodes / sizeof *kCodes; ++i) {
    const unsigned long at = 0x4000000 - kCodes[i].count + (cpl == 3 ? USER_ALIAS : 0);
    memcpy((void*)(at - (cpl == 3 ? USER_ALIAS : 0)), kCodes[i].bytes, kCodes[i].count);
    check(kCodes[i].name, (const char*)at, (struct setup){.cpl = cpl, .ip = at, .flags = 0x40, .show = "p"});
  }
}

void guest_main(void) {
  default_gates();
  for (cpl = FIRST_CPL; cpl <= 3; cpl += 3) {
    operands();
    decoding();
    privileges();
    fetches();
  }
  finish();
}
