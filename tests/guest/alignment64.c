// Alignment checks: which accesses raise #AC, from which offsets, with CR0.AM and EFLAGS.AC, and what comes before it. TCG 7.2 has
// none, so the bare processor is the judge.
#include "runtime/guest.h"

static unsigned cpl;
static unsigned long alias(void) {
  return cpl == 3 ? USER_ALIAS : 0;
}

static void put_vector(void) {
  static const char kLetters[32] = {[DE] = 'D', [UD] = 'U', [NM] = 'N', [SS] = 'S', [GP] = 'G', [PF] = 'P', [AC] = 'A', [MF] = 'F', [XM] = 'X'};
  if (caught.vector == END) {
    say(".");
  } else if (caught.vector == AC && caught.error != 0) {
    say("?");
  } else {
    say("%c", caught.vector < 32 && kLetters[caught.vector] ? kLetters[caught.vector] : '!');
  }
}

#define EACH_OFFSET(name, text)                                                                                        \
  do {                                                                                                                 \
    const char* const code_each_ = CODE(text);                                                                         \
    say("%s: ", name);                                                                                                 \
    for (unsigned offset_ = 0; offset_ <= 16; ++offset_) {                                                             \
      memset((void*)DATA, 0, 0x400);                                                                                   \
      for (unsigned long* at_ = (unsigned long*)(DATA + 0x200); (unsigned long)at_ < DATA + 0x240; ++at_) *at_ = nop;   \
      asm volatile("fninit; ldmxcsr %0" ::"m"(kMxcsr));                                                                \
      run(code_each_, (struct setup){.cpl = cpl, .flags = flags, .di = DATA + 0x100 + alias() + offset_,                \
                                     .si = DATA + 0x200 + alias() + offset_});                                         \
      put_vector();                                                                                                    \
    }                                                                                                                  \
    say("\n");                                                                                                         \
  } while (0)

static const uint32_t kMxcsr = 0x1f80;

static void accesses(unsigned long flags) {
  const unsigned long nop = 0x9090909090909090;
  EACH_OFFSET("MOV load, 1", "mov al, [rdi]");
  EACH_OFFSET("MOV load, 2", "mov ax, [rdi]");
  EACH_OFFSET("MOV load, 4", "mov eax, [rdi]");
  EACH_OFFSET("MOV load, 8", "mov rax, [rdi]");
  EACH_OFFSET("MOV store, 2", "mov [rdi], ax");
  EACH_OFFSET("MOV store, 4", "mov [rdi], eax");
  EACH_OFFSET("MOV store, 8", "mov [rdi], rax");
  EACH_OFFSET("MOVZX of a word", "movzx eax, word ptr [rdi]");
  EACH_OFFSET("ADD to memory, 4", "add [rdi], eax");
  EACH_OFFSET("INC, 2", "inc word ptr [rdi]");
  EACH_OFFSET("LOCK ADD, 8", "lock add [rdi], rax");
  EACH_OFFSET("XCHG, 4", "xchg [rdi], eax");
  EACH_OFFSET("CMPXCHG, 8", "cmpxchg [rdi], rcx");
  EACH_OFFSET("CMPXCHG8B", "cmpxchg8b [rdi]");
  EACH_OFFSET("CMPXCHG16B", "cmpxchg16b [rdi]");
  EACH_OFFSET("BT, immediate, 4", "bt dword ptr [rdi], 3");
  EACH_OFFSET("BTS, immediate, 8", "bts qword ptr [rdi], 3");
  EACH_OFFSET("IMUL, 4", "imul eax, [rdi], 5");
  EACH_OFFSET("SHLD, 4", "shld [rdi], eax, 3");
  EACH_OFFSET("SETZ", "setz [rdi]");
  EACH_OFFSET("CMOVNZ that is not done, 4", "cmp eax, eax; cmovnz eax, [rdi]");
  EACH_OFFSET("LEA", "lea eax, [rdi]");
  EACH_OFFSET("NOP of memory", "nop dword ptr [rdi]");
  EACH_OFFSET("PREFETCHT0", "prefetcht0 [rdi]");
  EACH_OFFSET("MOVBE, 4", "movbe eax, [rdi]");
  EACH_OFFSET("MOVNTI, 8", "movnti [rdi], rax");
  EACH_OFFSET("CRC32, 8", "crc32 rax, qword ptr [rdi]");
  EACH_OFFSET("XLAT", "mov rbx, rdi; xlatb");
  EACH_OFFSET("PUSH of memory", "push qword ptr [rdi]");
  EACH_OFFSET("PUSH", "mov rcx, rsp; mov rsp, rdi; push rax; mov rsp, rcx");
  EACH_OFFSET("PUSH, 2", "mov rcx, rsp; mov rsp, rdi; push ax; mov rsp, rcx");
  EACH_OFFSET("POP", "mov rcx, rsp; mov rsp, rdi; pop rax; mov rsp, rcx");
  EACH_OFFSET("POP to memory", "push rax; pop qword ptr [rdi]");
  EACH_OFFSET("PUSHF", "mov rcx, rsp; mov rsp, rdi; pushfq; mov rsp, rcx");
  EACH_OFFSET("CALL", "mov rcx, rsp; mov rsp, rdi; call 1f; 1: mov rsp, rcx");
  EACH_OFFSET("RET", "lea rax, [rip + 1f]; pushfq; and dword ptr [rsp], ~0x40000; popfq; mov [rdi], rax; push 0x40002; popfq; mov rdx, rsp;"
              "mov rsp, rdi; ret; 1: mov rsp, rdx");
  EACH_OFFSET("ENTER", "mov rcx, rsp; mov rsp, rdi; enter 0, 0; mov rsp, rcx");
  EACH_OFFSET("LEAVE", "mov rcx, rsp; mov rbp, rdi; leave; mov rsp, rcx");
  EACH_OFFSET("JMP through memory", "lea rax, [rip + 1f]; pushfq; and dword ptr [rsp], ~0x40000; popfq; mov [rdi], rax; push 0x40002; popfq; jmp qword ptr [rdi]; 1:");
  EACH_OFFSET("MOVSB", "movsb");
  EACH_OFFSET("MOVSW", "movsw");
  EACH_OFFSET("MOVSD from it", "mov rdi, rsp; sub rdi, 64; movsd");
  EACH_OFFSET("MOVSQ to it", "mov rsi, rsp; sub rsi, 64; movsq");
  EACH_OFFSET("STOSD", "stosd");
  EACH_OFFSET("LODSQ", "lodsq");
  EACH_OFFSET("SCASW", "scasw");
  EACH_OFFSET("REP STOSQ", "mov ecx, 2; rep stosq");
  EACH_OFFSET("REP MOVSB", "mov ecx, 5; rep movsb");
  EACH_OFFSET("REP STOSQ, RCX 0", "xor ecx, ecx; rep stosq");
  EACH_OFFSET("LFS of null", "lfs eax, [rdi]");
  EACH_OFFSET("MOV from segment register", "mov [rdi], fs");
  EACH_OFFSET("FLD m32", "fld dword ptr [rdi]");
  EACH_OFFSET("FLD m64", "fld qword ptr [rdi]");
  EACH_OFFSET("FLD m80", "fld tbyte ptr [rdi]");
  EACH_OFFSET("FSTP m80", "fldz; fstp tbyte ptr [rdi]");
  EACH_OFFSET("FBLD", "fbld [rdi]");
  EACH_OFFSET("FILD m16", "fild word ptr [rdi]");
  EACH_OFFSET("FISTP m64", "fldz; fistp qword ptr [rdi]");
  EACH_OFFSET("FIADD m32", "fldz; fiadd dword ptr [rdi]");
  EACH_OFFSET("FNSTCW", "fnstcw [rdi]");
  EACH_OFFSET("FNSTSW", "fnstsw [rdi]");
  EACH_OFFSET("FNSTENV", "fnstenv [rdi]");
  EACH_OFFSET("FNSTENV, 16 bits", ".byte 0x66; fnstenv [rdi]");
  EACH_OFFSET("FNSAVE", "fnsave [rdi]");
  EACH_OFFSET("FXSAVE", "fxsave [rdi]");
  EACH_OFFSET("FXRSTOR", "fxrstor [rdi]");
  EACH_OFFSET("LDMXCSR", "ldmxcsr [rdi]");
  EACH_OFFSET("STMXCSR", "stmxcsr [rdi]");
  EACH_OFFSET("MOVQ mm", "movq mm0, [rdi]; emms");
  EACH_OFFSET("PADDB mm", "paddb mm0, [rdi]; emms");
  EACH_OFFSET("MOVSS", "movss xmm0, [rdi]");
  EACH_OFFSET("MOVSD xmm", "movsd xmm0, [rdi]");
  EACH_OFFSET("MOVHPS", "movhps xmm0, [rdi]");
  EACH_OFFSET("MOVUPS load", "movups xmm0, [rdi]");
  EACH_OFFSET("MOVUPS store", "movups [rdi], xmm0");
  EACH_OFFSET("MOVDQU load", "movdqu xmm0, [rdi]");
  EACH_OFFSET("LDDQU", "lddqu xmm0, [rdi]");
  EACH_OFFSET("MOVAPS", "movaps xmm0, [rdi]");
  EACH_OFFSET("ADDPS", "addps xmm0, [rdi]");
  EACH_OFFSET("ADDSS", "addss xmm0, [rdi]");
  EACH_OFFSET("PMOVZXBD", "pmovzxbd xmm0, dword ptr [rdi]");
  EACH_OFFSET("PINSRW", "pinsrw xmm0, word ptr [rdi], 3");
  EACH_OFFSET("MOVNTDQ", "movntdq [rdi], xmm0");
  EACH_OFFSET("MASKMOVDQU", "pcmpeqb xmm1, xmm1; maskmovdqu xmm0, xmm1");
  EACH_OFFSET("PCMPISTRI", "pcmpistri xmm0, [rdi], 0");
}

static void controls(void) {
  say("-- CR0.AM, AC and CPL\n");
  for (unsigned bits = 0; bits < 8; ++bits) {
    cpl = bits & 1 ? 3 : 0;
    write_cr0((read_cr0() & ~(unsigned long)CR0_AM) | (bits & 2 ? CR0_AM : 0));
    say("CPL %d, AM %d, AC %d: ", (unsigned long)cpl, (unsigned long)(bits >> 1 & 1), (unsigned long)(bits >> 2));
    RUN("mov eax, [rdi]", .cpl = cpl, .flags = bits & 4 ? FL_AC : 0, .di = DATA + 1 + alias());
    report("f");
  }
}

static void priorities(void) {
  say("-- what comes first, CPL 3\n");
  cpl = 3;
#define FIRST(name, text, ...) CHECK(name, text, .cpl = 3, .flags = FL_AC, .di = DATA + USER_ALIAS + 1, __VA_ARGS__)
  FIRST("not canonical", "mov eax, [rdi]", .di = 0x800000000001);
  FIRST("not canonical, stack", "mov eax, [rbp]", .bp = 0x800000000001);
  FIRST("not present", "mov eax, [rdi]", .di = 0x20000001);
  FIRST("not present, store", "mov [rdi], eax", .di = 0x20000001);
  FIRST("across pages, the second not present", "mov eax, [rdi]", .di = USER_ALIAS + 0x4000000 - 2);
  FIRST("across pages, the first not present", "mov eax, [rdi]", .di = USER_ALIAS - 2);
  FIRST("LOCK on what cannot have it", ".byte 0xf0; add eax, [rdi]");
  FIRST("division by zero in memory", "div dword ptr [rdi]");
  FIRST("MOVAPS", "movaps xmm0, [rdi]");
  FIRST("AC is set by POPF, next instruction", "push 0x40002; popfq; mov eax, [rdi]", .flags = 0);
  FIRST("AC is cleared by POPF, next instruction", "push 2; popfq; mov eax, [rdi]");
  FIRST("flags", "mov eax, [rdi]", .show = "fR");
  FIRST("the second of two accesses", "push qword ptr [rdi - 1]", .sp = STACK_TOP + USER_ALIAS - 3, .show = "p");
  FIRST("the first of two accesses", "push qword ptr [rdi]", .show = "p");
  FIRST("REP MOVSQ, source", "rep movsq", .si = DATA + USER_ALIAS + 0x101, .di = DATA + USER_ALIAS + 0x200, .cx = 4, .show = "csi");
  FIRST("REP MOVSQ, destination", "rep movsq", .si = DATA + USER_ALIAS + 0x100, .di = DATA + USER_ALIAS + 0x201, .cx = 4, .show = "csi");
  FIRST("CMPXCHG16B that is not aligned", "cmpxchg16b [rdi]");
  FIRST("x87 with an exception pending", "pushfq; and dword ptr [rsp], ~0x40000; popfq; mov dword ptr [rdi + 15], 0x37b; fldcw [rdi + 15]; fld1; fldz; fdivp; push 0x40002; popfq; fld qword ptr [rdi]");
}

void guest_main(void) {
  default_gates();
  if (FIRST_CPL == 0) controls();
  write_cr0(read_cr0() | CR0_AM);
  cpl = 3;
  say("-- offsets 0 to 16, CPL 3\n");
  accesses(FL_AC);
  asm volatile("fninit");
  priorities();
  asm volatile("fninit");
  if (FIRST_CPL == 0) {
    cpl = 0;
    say("-- offsets 0 to 16 in the kernel, which has no alignment checks\n");
    accesses(FL_AC);
  }
  finish();
}
