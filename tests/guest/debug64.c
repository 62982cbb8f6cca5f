// DR0 to DR3 for execution, data and ports, the trap flag, ICEBP: what they meet, when they trap, what DR6 and RF say, and which
// event comes first (SDM vol. 3, 17.2 and 17.3; table 6-2).
#include "runtime/guest.h"

enum { EXECUTION, WRITES, PORTS, ACCESSES };
#define DR7_FIXED 0x400ul
#define LINE_LEN(n) ((n) == 8 ? 2ul : (n)-1ul)
// DR7 with breakpoint `number` of that kind and length in bytes, enabled by its L bit.
#define BREAK(number, kind, length) \
  (1ul << 2 * (number) | (unsigned long)(kind) << (16 + 4 * (number)) | LINE_LEN(length) << (18 + 4 * (number)))
#define LOCAL0 BREAK(0, EXECUTION, 1)

extern uint64_t page_pml4[512];
static unsigned cpl;

static unsigned long alias(void) {
  return cpl == 3 ? USER_ALIAS : 0;
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

// A breakpoint `offset` bytes into the code.
#define AT(name, offset, text, ...)                                                       \
  do {                                                                                    \
    const char* const code_at_ = CODE(text);                                              \
    write_dr0((unsigned long)code_at_ + alias() + (offset));                              \
    check_with(name, code_at_, LOCAL0, (struct setup){__VA_ARGS__});                      \
  } while (0)

static void execution(void) {
  say("-- execution breakpoints, CPL %d\n", (unsigned long)cpl);
  AT("first instruction", 0, "nop; nop");
  AT("second instruction", 1, "nop; nop");
  AT("first instruction, RF set", 0, "nop; nop", .flags = FL_RF);
  AT("second instruction, RF set", 1, "nop; nop", .flags = FL_RF);
  AT("loop, RF set", 0, "dec ecx; jnz .-2", .flags = FL_RF, .cx = 3, .show = "Rc6");
  AT("within an instruction", 2, "mov eax, 0x12345678");
  AT("on a prefix", 1, "nop; .byte 0x66; nop");
  AT("behind a prefix", 2, "nop; .byte 0x66; nop");
  AT("target of a jump", 3, "jmp 1f; nop; 1: nop");
  AT("jumped over", 2, "jmp 1f; nop; 1: nop");
  AT("branch not taken", 4, "xor eax, eax; jnz 1f; nop; 1: nop");
  AT("target of a CALL", 7, "call 1f; nop; nop; 1: nop", .show = "Rp6");
  AT("after RET", 5, "call 1f; nop; jmp 2f; 1: ret; 2:", .show = "Rp6");
  AT("target of an indirect jump", 11, "lea rax, [rip + 1f]; jmp rax; nop; nop; 1: nop");
  AT("after STI", 1, "sti; nop; nop", .flags = FL_IOPL);
  AT("after POPF", 3, "push 2; popfq; nop; nop");
  AT("POPF that sets RF", 8, "push 0x10002; popfq; nop; nop", .show = "R6");
  AT("after MOV SS", 2, "mov ss, eax; nop; nop", .ax = cpl ? UDATA : KDATA);
  AT("one after MOV SS", 3, "mov ss, eax; nop; nop", .ax = cpl ? UDATA : KDATA);
  AT("after MOV SS, MOV SS", 4, "mov ss, eax; mov ss, eax; nop; nop", .ax = cpl ? UDATA : KDATA);
  AT("after MOV DS", 2, "mov ds, eax; nop; nop", .ax = UDATA);
  AT("after LSS", 3, "lss esp, [rsi]; nop; nop");
  AT("after CPUID", 2, "cpuid; nop; nop");
  AT("UD2", 0, "ud2");
  AT("UD2, RF set", 0, "ud2", .flags = FL_RF);
  AT("INT3", 0, "int3");
  AT("INT n", 1, "nop; int 0x81");
  AT("ICEBP", 0, ".byte 0xf1");
  AT("ICEBP, RF set", 0, ".byte 0xf1", .flags = FL_RF);
  AT("division by zero", 2, "xor ecx, ecx; div ecx", .show = "R6");
  AT("a page fault, RF set", 0, "mov eax, [rdi]", .di = 0x20000000, .flags = FL_RF, .show = "R6");
  AT("a page fault", 1, "nop; mov eax, [rdi]", .di = 0x20000000);
  AT("HLT", 0, "hlt");
  AT("REP MOVSB", 0, "rep movsb", .cx = 4, .show = "Rc6");
  AT("REP MOVSB, RF set", 0, "rep movsb", .cx = 4, .flags = FL_RF, .show = "Rc6");
  AT("REP STOSB, RCX 0", 2, "xor ecx, ecx; rep stosb", .show = "Rc6");
  AT("TF before it", 1, "nop; nop", .flags = FL_TF);
  AT("TF at it", 0, "nop; nop", .flags = FL_TF);
  AT("TF and RF at it", 0, "nop; nop", .flags = FL_TF | FL_RF);
  AT("LOCK prefix that is wrong", 0, ".byte 0xf0; nop");
  AT("16 bytes", 0, ".fill 15, 1, 0x66; nop");

  const char* const code = CODE("nop; nop; nop");
  const unsigned long at = (unsigned long)code + alias();
  write_dr0(at + 1);
  write_dr1(at + 1);
  write_dr2(at + 2);
  write_dr3(at);
  check_with("not enabled", code, 0, (struct setup){});
  check_with("enabled by G", code, LOCAL0 << 1, (struct setup){});
  check_with("enabled by L and G", code, LOCAL0 * 3, (struct setup){});
  check_with("DR1", code, BREAK(1, EXECUTION, 1), (struct setup){});
  check_with("DR2", code, BREAK(2, EXECUTION, 1), (struct setup){});
  check_with("DR3", code, BREAK(3, EXECUTION, 1), (struct setup){});
  check_with("two at one address", code, LOCAL0 | BREAK(1, EXECUTION, 1), (struct setup){});
  check_with("all four", code, LOCAL0 | BREAK(1, EXECUTION, 1) | BREAK(2, EXECUTION, 1) | BREAK(3, EXECUTION, 1), (struct setup){});
  check_with("LE and GE", code, LOCAL0 | 0x300, (struct setup){});
  write_dr6(0xffff0fff);
  check_with("DR6 is not cleared", code, LOCAL0, (struct setup){.show = "6"});
  write_dr0(at - alias() + (USER_ALIAS - alias()) + 1);
  check_with("the other mapping of the page", code, LOCAL0, (struct setup){});
  write_dr0(0x20000000);
  check_with("at an address that is not present", code, LOCAL0, (struct setup){.ip = 0x20000000});
  write_dr0(0x7ffffffffffful);
  check_with("before the hole", code, LOCAL0, (struct setup){.show = "R6"});
  // The first instruction of a handler.
  write_dr0(STUB(UD));
  run_with(CODE("nop; ud2"), LOCAL0, (struct setup){});
  say("in a handler: vector %d error %d dr6 %x at the stub %d flags %x\n", caught.vector, caught.error, caught.dr6,
      (unsigned long)(caught.state.ip == STUB(UD)), caught.state.flags & ~(unsigned long)FL_ARITHMETIC);
  write_dr0(STUB(END));
  run_with(CODE("nop"), LOCAL0, (struct setup){});
  say("in the handler of INT n: vector %d dr6 %x at the stub %d flags %x\n", caught.vector, caught.dr6,
      (unsigned long)(caught.state.ip == STUB(END)), caught.state.flags & ~(unsigned long)FL_ARITHMETIC);
}

// RF in the frame of what is taken: set for faults, clear for traps and what ended before (SDM vol. 3, 17.3.1.1).
static void resume_flag(void) {
  say("-- RF, CPL %d\n", (unsigned long)cpl);
#define RF(name, text, ...)                                  \
  CHECK(name, text, .cpl = cpl, .show = "R", __VA_ARGS__);   \
  CHECK(name ", RF set", text, .cpl = cpl, .flags = FL_RF, .show = "R", __VA_ARGS__)
  RF("#DE", "xor ecx, ecx; div ecx");
  RF("#DE at once", "div rbx", .bx = 0x10, .dx = 0x10);
  RF("#UD", "ud2");
  RF("#GP", "mov ds, ebx", .bx = 0xfff8);
  RF("#PF on a read", "mov eax, [rdi]", .di = 0x20000000);
  RF("#PF on a fetch", "jmp rdi", .di = 0x20000000);
  RF("#PF of a string", "rep movsb", .si = 0x3fffffe + alias(), .cx = 8);
  RF("INT3", "int3");
  RF("INT n", "int 0x81");
  RF("ICEBP", ".byte 0xf1");
#undef RF
  CHECK("single step", "nop", .cpl = cpl, .flags = FL_TF, .show = "R");
  CHECK("single step, RF set", "nop", .cpl = cpl, .flags = FL_TF | FL_RF, .show = "R");
  CHECK("single step in REP MOVSB", "rep movsb", .cpl = cpl, .cx = 4, .flags = FL_TF, .show = "Rc");
  CHECK("PUSHF pushes no RF", "pushfq; pop rax; and eax, ~0x8d5", .cpl = cpl, .flags = FL_RF, .show = "a");
}

// One line for each kind, length and access: from which distances to the breakpoint it is met. TCG meets some that are not
// touched, so the line ends with "ok" when it agrees with SDM vol. 3, 17.2.5.
static void data_distances(void) {
  const char* codes[12];
  static const char* const kNames[12] = {"read 1", "read 2", "read 4", "read 8", "read 16", "write 1",
                                         "write 2", "write 4", "write 8", "write 16", "INC 4", "FLD 10"};
  codes[0] = CODE("mov al, [rdi]");
  codes[1] = CODE("mov ax, [rdi]");
  codes[2] = CODE("mov eax, [rdi]");
  codes[3] = CODE("mov rax, [rdi]");
  codes[4] = CODE("movups xmm0, [rdi]");
  codes[5] = CODE("mov [rdi], al");
  codes[6] = CODE("mov [rdi], ax");
  codes[7] = CODE("mov [rdi], eax");
  codes[8] = CODE("mov [rdi], rax");
  codes[9] = CODE("movups [rdi], xmm0");
  codes[10] = CODE("inc dword ptr [rdi]");
  codes[11] = CODE("fld tbyte ptr [rdi]; fstp st");
  static const unsigned kLengths[4] = {1, 2, 4, 8};
  for (unsigned kind = WRITES; kind <= ACCESSES; kind += 2) {
    for (unsigned i = 0; i < 4; ++i) {
      say("-- %s of %d bytes, CPL %d, distances -17 to 9\n", kind == WRITES ? "writes" : "accesses", (unsigned long)kLengths[i],
          (unsigned long)cpl);
      for (unsigned kind_of_access = 0; kind_of_access < 12; ++kind_of_access) {
        say("%s: ", kNames[kind_of_access]);
        const char* const code = codes[kind_of_access];
        unsigned long where = 0;
        static const unsigned kSizes[12] = {1, 2, 4, 8, 16, 1, 2, 4, 8, 16, 4, 10};
        const long size = kSizes[kind_of_access], length = kLengths[i];
        const bool writes = kind_of_access >= 5 && kind_of_access <= 10;
        bool right = true;
        for (long distance = -17; distance <= 9; ++distance) {
          write_dr1(DATA + alias() + 0x40);
          run_with(code, BREAK(1, kind, kLengths[i]), (struct setup){.di = DATA + alias() + 0x40 + (unsigned long)distance});
          say("%c", caught.vector == END ? '.' : caught.vector == DB && (caught.dr6 & 0xf) == 2 ? 'x' : '!');
          if (caught.vector == DB) where = caught.state.ip - alias() - (unsigned long)code;
          const bool met = (writes || kind == ACCESSES) && distance < length && distance + size > 0;
          right = right && caught.vector == (met ? DB : END);
        }
        say(" +%d %s\n", where, right ? "ok" : "wrong");
      }
    }
  }
}

#define ON_DATA(name, kind, text, ...)                                                     \
  write_dr2(DATA + alias() + 0x40);                                                        \
  check_with(name, CODE(text), BREAK(2, kind, 8), (struct setup){.di = DATA + alias() + 0x40, .si = DATA + alias() + 0x100, __VA_ARGS__})

static void data(void) {
  say("-- who meets a data breakpoint, CPL %d\n", (unsigned long)cpl);
  memset((void*)DATA, 0, 0x1000);
  for (unsigned kind = WRITES; kind <= ACCESSES; kind += 2) {
    say(kind == WRITES ? "-- on writes\n" : "-- on accesses\n");
    ON_DATA("LEA", kind, "lea rax, [rdi]; nop");
    ON_DATA("PREFETCHT0", kind, "prefetcht0 [rdi]; nop");
    ON_DATA("NOP of memory", kind, "nop dword ptr [rdi]; nop");
    ON_DATA("MOV load", kind, "mov eax, [rdi]; nop");
    ON_DATA("MOV store", kind, "mov [rdi], eax; nop");
    ON_DATA("CMP", kind, "cmp [rdi], eax; nop");
    ON_DATA("ADD to memory", kind, "add [rdi], eax; nop");
    ON_DATA("ADD from memory", kind, "add eax, [rdi]; nop");
    ON_DATA("LOCK ADD", kind, "lock add [rdi], eax; nop");
    ON_DATA("XCHG", kind, "xchg [rdi], eax; nop");
    ON_DATA("LOCK CMPXCHG that fails", kind, "mov dword ptr [rdi + 0x100], 0; mov eax, 99; lock cmpxchg [rdi + 4], ecx; nop");
    ON_DATA("CMPXCHG8B", kind, "lock cmpxchg8b [rdi]; nop");
    ON_DATA("XADD", kind, "xadd [rdi], ecx; nop");
    ON_DATA("BT", kind, "bt dword ptr [rdi - 4], 7; nop");
    ON_DATA("BT with a register offset", kind, "mov eax, 64; bt dword ptr [rdi - 8], eax; nop");
    ON_DATA("BTS with a register offset", kind, "mov eax, -60; bts dword ptr [rdi + 8], eax; nop");
    ON_DATA("PUSH", kind, "lea rsp, [rdi + 8]; push rax; nop");
    ON_DATA("POP", kind, "mov rsp, rdi; pop rax; nop");
    ON_DATA("PUSH of memory", kind, "push qword ptr [rdi]; nop");
    ON_DATA("POP to memory", kind, "push rax; pop qword ptr [rdi]; nop");
    ON_DATA("CALL", kind, "lea rsp, [rdi + 8]; call 1f; nop; 1: nop");
    *(unsigned long*)(DATA + 0x40) = (unsigned long)CODE("nop") + alias();
    ON_DATA("CALL through memory", kind, "call qword ptr [rdi]", .show = "R6");
    ON_DATA("JMP through memory", kind, "jmp qword ptr [rdi]", .show = "R6");
    ON_DATA("RET", kind, "mov rsp, rdi; ret", .show = "R6");
    ON_DATA("PUSHF", kind, "lea rsp, [rdi + 8]; pushfq; nop");
    ON_DATA("ENTER", kind, "lea rsp, [rdi + 8]; enter 0, 0; nop");
    ON_DATA("LEAVE", kind, "mov rbp, rdi; leave; nop");
    ON_DATA("MOVSB from it", kind, "xchg rsi, rdi; movsb; nop");
    ON_DATA("MOVSB to it", kind, "movsb; nop");
    ON_DATA("STOSQ", kind, "stosq; nop");
    ON_DATA("LODSB", kind, "mov rsi, rdi; lodsb; nop");
    ON_DATA("SCASB", kind, "scasb; nop");
    ON_DATA("CMPSB", kind, "cmpsb; nop");
    ON_DATA("REP STOSB over it", kind, "sub rdi, 4; rep stosb; nop", .cx = 16, .show = "Rci6");
    ON_DATA("REP STOSQ over it", kind, "sub rdi, 16; rep stosq; nop", .cx = 16, .show = "Rci6");
    ON_DATA("REP MOVSB over it", kind, "sub rdi, 4; rep movsb; nop", .cx = 16, .show = "Rci6");
    ON_DATA("REP MOVSB that ends before it", kind, "sub rdi, 4; rep movsb; nop", .cx = 4, .show = "Rci6");
    ON_DATA("REP MOVSB that ends on it", kind, "sub rdi, 4; rep movsb; nop", .cx = 5, .show = "Rci6");
    ON_DATA("REPE CMPSB", kind, "sub rdi, 4; repe cmpsb; nop", .cx = 8, .show = "Rci6");
    ON_DATA("REPNE SCASB", kind, "sub rdi, 4; mov al, 0x77; repne scasb; nop", .cx = 8, .show = "Rci6");
    ON_DATA("XLAT", kind, "mov rbx, rdi; mov al, 3; xlatb; nop");
    ON_DATA("FLD", kind, "fld qword ptr [rdi]; fstp st");
    ON_DATA("FSTP", kind, "fldz; fstp qword ptr [rdi]; nop");
    ON_DATA("FNSTCW", kind, "fnstcw [rdi]; nop");
    ON_DATA("FXSAVE around it", kind, "fxsave [rdi - 0x40]; nop");
    ON_DATA("FXRSTOR around it", kind, "fxrstor [rdi - 0x40]; nop");
    ON_DATA("MOVAPS load", kind, "movaps xmm0, [rdi]; nop");
    ON_DATA("MOVAPS store", kind, "movaps [rdi], xmm0; nop");
    ON_DATA("MOVNTI", kind, "movnti [rdi], rax; nop");
    ON_DATA("STMXCSR", kind, "stmxcsr [rdi]; nop");
    ON_DATA("SGDT", kind, "sgdt [rdi]; nop");
    ON_DATA("MOV from SS to memory", kind, "mov [rdi], ss; nop");
    ON_DATA("MOV to DS from memory", kind, "mov ds, [rdi]; nop");
    ON_DATA("SETZ", kind, "setz [rdi]; nop");
    ON_DATA("CMOV that is not done", kind, "test edi, edi; cmovz eax, [rdi]; nop");
    ON_DATA("a fault afterwards", kind, "mov rsp, 0x20000000; push qword ptr [rdi]");
    ON_DATA("a fault before", kind, "mov rsi, 0x20000000; movsb");
    ON_DATA("TF", kind, "mov [rdi], eax; nop", .flags = FL_TF);
    ON_DATA("INC with TF", kind, "inc dword ptr [rdi]; nop", .flags = FL_TF);
    ON_DATA("RF", kind, "mov [rdi], eax; nop", .flags = FL_RF);
    ON_DATA("then UD2", kind, "mov [rdi], eax; ud2");
    ON_DATA("then INT n", kind, "mov [rdi], eax; int 0x81");
    ON_DATA("DIV by memory that is zero", kind, "mov qword ptr [rsi], 0; div qword ptr [rdi]");
    if (!cpl) {
      ON_DATA("IRETQ from it", kind, "mov rax, rsp; push 0x10; push rax; push 2; push 8; lea rax, [rip + 1f]; push rax; iretq; 1: nop");
      *(unsigned long*)(DATA + 0x40) = KDATA;
      ON_DATA("MOV SS from it", kind, "mov ss, [rdi]; nop; nop; nop");
      ON_DATA("a store after MOV SS", kind, "mov eax, ss; mov ss, eax; mov [rdi], ecx; nop; nop");
      ON_DATA("INVLPG", kind, "invlpg [rdi]; nop");
      ON_DATA("CLFLUSH", kind, "clflush [rdi]; nop");
    }
    write_dr0(DATA + alias() + 0x40);
    write_dr3(DATA + alias() + 0x47);
    check_with("two breakpoints, one write", CODE("mov [rdi], rax; nop"), BREAK(0, kind, 1) | BREAK(3, kind, 1),
               (struct setup){.di = DATA + alias() + 0x40});
    check_with("two breakpoints, one is met", CODE("mov [rdi], eax; nop"), BREAK(0, kind, 1) | BREAK(3, kind, 1),
               (struct setup){.di = DATA + alias() + 0x40});
    write_dr0(DATA + alias() + 0x43);
    check_with("the low bits of the address do not count", CODE("mov [rdi], al; nop"), BREAK(0, kind, 4),
               (struct setup){.di = DATA + alias() + 0x40});
    write_dr0(DATA + (USER_ALIAS - alias()) + 0x40);
    check_with("the other mapping", CODE("mov [rdi], al; nop"), BREAK(0, kind, 4), (struct setup){.di = DATA + alias() + 0x40});
    // Across pages.
    write_dr0(DATA + alias() + 0x1000);
    check_with("second page of an access", CODE("mov [rdi], rax; nop"), BREAK(0, kind, 1),
               (struct setup){.di = DATA + alias() + 0xffc});
    check_with("first page of an access", CODE("mov [rdi], rax; nop"), BREAK(0, kind, 1),
               (struct setup){.di = DATA + alias() + 0xff8});
  }
  const char* const both = CODE("nop; mov [rdi], eax; nop; nop");
  write_dr0(DATA + alias() + 0x40);
  write_dr1((unsigned long)both + alias() + 3);
  check_with("data, then execution at the next instruction", both, BREAK(0, WRITES, 4) | BREAK(1, EXECUTION, 1),
             (struct setup){.di = DATA + alias() + 0x40});
  check_with("the same with TF", both, BREAK(0, WRITES, 4) | BREAK(1, EXECUTION, 1),
             (struct setup){.di = DATA + alias() + 0x40, .flags = FL_TF, .ip = (unsigned long)both + alias() + 1});
}

static void ports(void) {
  say("-- ports, CPL %d\n", (unsigned long)cpl);
  const char* codes[6];
  static const char* const kNames[6] = {"IN al", "IN ax", "IN eax", "OUT al", "OUT ax", "OUT eax"};
  codes[0] = CODE("in al, dx");
  codes[1] = CODE("in ax, dx");
  codes[2] = CODE("in eax, dx");
  codes[3] = CODE("out dx, al");
  codes[4] = CODE("out dx, ax");
  codes[5] = CODE("out dx, eax");
  static const unsigned kLengths[3] = {1, 2, 4};
  write_cr4(read_cr4() | CR4_DE);
  for (unsigned i = 0; i < 3; ++i) {
    for (unsigned way = 0; way < 6; ++way) {
      say("%s, %d ports at 84, from 7e to 8a: ", kNames[way], (unsigned long)kLengths[i]);
      for (unsigned port = 0x7e; port <= 0x8a; ++port) {
        write_dr3(0x84);
        run_with(codes[way], BREAK(3, PORTS, kLengths[i]), (struct setup){.dx = port, .flags = FL_IOPL});
        say("%c", caught.vector == END ? '.' : caught.vector == DB && (caught.dr6 & 0xf) == 8 ? 'x' : '!');
      }
      say("\n");
    }
  }
  write_dr3(0x84);
  const unsigned long dr7 = BREAK(3, PORTS, 1);
#define PORT(name, text, ...) check_with(name, CODE(text), dr7, (struct setup){.dx = 0x84, .flags = FL_IOPL, __VA_ARGS__})
  PORT("IN imm8", "in al, 0x84; nop");
  PORT("OUT imm8", "out 0x84, al; nop");
  PORT("INSB", "insb; nop", .show = "Ri6");
  PORT("OUTSB", "outsb; nop", .show = "Rs6");
  PORT("REP OUTSB", "rep outsb; nop", .cx = 3, .show = "Rcs6");
  PORT("REP INSB, RCX 1", "rep insb; nop", .cx = 1, .show = "Rci6");
  PORT("memory at that address", "mov edi, 0x84; mov eax, [rdi + 0x800000 - 0x84]; nop");
  check_with("IN with TF", CODE("in al, dx; nop"), dr7, (struct setup){.dx = 0x84, .flags = FL_IOPL | FL_TF});
  check_with("INSB to nowhere", CODE("insb; nop"), dr7, (struct setup){.dx = 0x84, .flags = FL_IOPL, .di = 0x20000000});
  check_with("IN at IOPL 0", CODE("in al, dx; nop"), dr7, (struct setup){.dx = 0x84});
  write_cr4(read_cr4() & ~(unsigned long)CR4_DE);
}

static void trap_flag(void) {
  say("-- the trap flag, CPL %d\n", (unsigned long)cpl);
#define TF(name, text, ...) CHECK(name, text, .cpl = cpl, .flags = FL_TF, .show = "fR6", __VA_ARGS__)
  TF("NOP", "nop; nop");
  TF("jump", "jmp 1f; nop; 1: nop");
  TF("conditional jump, taken", "jnz 1f; nop; 1: nop");
  TF("conditional jump, not taken", "jz 1f; nop; 1: nop");
  TF("JRCXZ", "jrcxz 1f; nop; 1: nop");
  TF("LOOP to itself", "loop .; nop", .cx = 2, .show = "fc6");
  TF("CALL", "call 1f; nop; 1: nop", .show = "fp6");
  TF("RET", "push rax; ret", .show = "6");
  TF("load", "mov eax, [rsi]; nop");
  TF("store", "mov [rsi], eax; nop");
  TF("SSE", "movaps xmm0, [rsi]; nop");
  TF("x87", "fld1; nop");
  TF("CPUID", "cpuid; nop", .show = "6");
  TF("RDTSC", "rdtsc; nop", .show = "6");
  TF("PUSHF", "pushfq; nop", .show = "fp6");
  TF("POPF that keeps TF", "popfq; nop; nop", .sp = STACK_TOP + alias() - 0x108);
  TF("POPF that clears TF", "popfq; nop; nop", .sp = STACK_TOP + alias() - 0x110);
  TF("INT n", "int 0x81", .show = "fh6");
  TF("INT3", "int3", .show = "fh6");
  TF("ICEBP", ".byte 0xf1; nop");
  TF("#UD", "ud2");
  TF("#DE", "div rbx", .bx = 1, .dx = 5);
  TF("#PF", "mov eax, [rdi]", .di = 0x20000000);
  TF("#PF on the fetch of the next instruction", "jmp rdi", .di = 0x20000000);
  TF("MOV SS", "mov ss, eax; nop; nop", .ax = cpl ? UDATA : KDATA);
  TF("MOV SS, UD2", "mov ss, eax; ud2", .ax = cpl ? UDATA : KDATA);
  TF("MOV SS, MOV SS", "mov ss, eax; mov ss, eax; nop; nop", .ax = cpl ? UDATA : KDATA);
  TF("MOV DS", "mov ds, eax; nop; nop", .ax = UDATA);
  TF("REP MOVSB, RCX 0", "rep movsb; nop", .cx = 0x100000000);
  TF("STD", "std; nop", .show = "f6");
  TF("XCHG", "xchg eax, [rsi]; nop");
  TF("BT with a register offset", "bt [rsi], eax; nop", .ax = 8);
  TF("ENTER", "enter 16, 2; nop", .bp = STACK_TOP + alias() - 0x200);
  TF("FXSAVE", "fxsave [rsi]; nop");
  TF("SYSCALL", "syscall; nop", .show = "Sf6");
  CHECK("POPF that sets TF", "popfq; nop; nop", .cpl = cpl, .sp = STACK_TOP + alias() - 0x108, .show = "f6");
  CHECK("POPF that sets TF, UD2", "popfq; ud2", .cpl = cpl, .sp = STACK_TOP + alias() - 0x108, .show = "f6");
  CHECK("POPF that sets TF, POPF that clears it", "popfq; popfq; nop; nop", .cpl = cpl, .sp = STACK_TOP + alias() - 0x118,
        .show = "f6");
  CHECK("POPF that sets TF, PUSHF", "popfq; pushfq; nop", .cpl = cpl, .sp = STACK_TOP + alias() - 0x108, .show = "fp6");
  if (cpl == 0) {
    TF("HLT with an exception pending", "nop; hlt");
    TF("MOV to CR3", "mov rax, cr3; mov cr3, rax; nop", .ip = 0);
    TF("MOV from DR7", "mov rax, dr7; nop");
    TF("MOV to DR6", "mov dr6, rax; nop", .ax = 0xffff0ff0);
    TF("WRMSR", "wrmsr; nop", .cx = 0xc0000102, .ax = 0x100, .dx = 0x100000000);
    TF("INVLPG", "invlpg [rsi]; nop");
    TF("LGDT", "sgdt [rsi]; lgdt [rsi]; nop");
    TF("IN", "in al, dx; nop", .dx = 0x80);
    TF("STI", "sti; nop; nop");
    TF("CLI", "cli; nop");
    CHECK("IRETQ that sets TF", "mov rbx, rsp; push 0x10; push rbx; push 0x102; push 8; lea rax, [rip + 1f]; push rax; iretq; 1: nop;"
          "nop", .show = "f6");
    CHECK("IRETQ that sets TF and RF", "mov rbx, rsp; push 0x10; push rbx; push 0x10102; push 8; lea rax, [rip + 1f]; push rax;"
          "iretq; 1: nop; nop", .show = "fR6");
    CHECK("SYSRET that sets TF", "lea rcx, [rip + 1f]; bts rcx, 30; mov r11d, 0x102; sysretq; 1: nop; nop", .show = "Sf6");
    CHECK("SYSRET, TF before", "lea rcx, [rip + 1f]; bts rcx, 30; mov r11d, 2; push 0x102; popfq; sysretq; 1: nop; nop",
          .show = "Sf6");
    CHECK("SYSRET", "lea rcx, [rip + 1f]; bts rcx, 30; mov r11d, 2; sysretq; 1: nop; nop", .show = "S");
  }
}

void guest_main(void) {
  default_gates();
  set_gate(BP, STUB(BP), 0xee, KCODE, 1);
  write_msr(0xc0000081, 0x0018000800000000);               // STAR: SYSCALL to 08, SYSRET to 18 + 16
  write_msr(0xc0000082, (unsigned long)CODE("nop; nop"));  // LSTAR
  write_msr(0xc0000084, FL_IF | FL_TF);                    // SFMASK
  unsigned long* const flags = (unsigned long*)(STACK_TOP - 0x118);
  flags[0] = 0x102;  // for POPF
  flags[1] = 0x2;
  flags[2] = 0x102;
  for (cpl = 0; cpl <= 3; cpl += 3) {
    // LSS' operand.
    *(uint32_t*)DATA = (uint32_t)(STACK_TOP + alias());
    *(uint32_t*)(DATA + 4) = cpl ? UDATA : KDATA;
    execution();
    resume_flag();
    data_distances();
    data();
    ports();
    trap_flag();
  }
  finish();
}
