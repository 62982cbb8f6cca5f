// String instructions that fault half-way, wrap, overlap and run backwards; locked and misaligned accesses across pages.
#include "runtime/guest.h"

extern uint64_t page_pml4[512];
enum { P = 1, W = 2, U = 4 };

// Four pages in a row at VA; the second and the fourth can be taken away. They are contiguous in the linear address space only.
#define VA (1ul << 39)
#define EDGE (VA + 0x1000)  // between the first and the second page
static uint64_t* const kPt = (uint64_t*)(FREE_PAGES + 0x2000);
#define FRAME(n) (FREE_PAGES + 0x10000ul + (3 - (n)) * 0x1000ul)

static void map(unsigned page, unsigned rights) {
  kPt[page] = FRAME(page) | rights;
  invlpg(VA + page * 0x1000ul);
}
static void map_all(void) {
  for (unsigned page = 0; page < 4; ++page) map(page, P | W | U);
}
static uint8_t filled[0x4000];
static void make_pattern(void) {
  for (unsigned i = 0; i < sizeof filled; ++i) filled[3 * 0x1000 - (i & 0x3000) + (i & 0xfff)] = (i >> 12) * 0x40 + (i & 0x3f);
}
static void fill(void) {
  memcpy((void*)FRAME(3), filled, sizeof filled);
}
static unsigned long sum(void) {
  unsigned long sum = 0;
  for (unsigned page = 0; page < 4; ++page) {
    for (unsigned i = 0; i < 0x200; ++i) sum = sum * 31 + ((uint64_t*)FRAME(page))[i];
  }
  return sum;
}

static void put(const char* name) {
  say("%s: ", name);
  if (caught.vector == END) {
    say("done");
  } else if (caught.vector == PF) {
    say("#PF(%x) cr2=%x", caught.error, caught.cr2);
  } else {
    say("vector %x(%x)", caught.vector, caught.error);
  }
  say(" rcx=%x rsi=%x rdi=%x rax=%x flags=%x sum=%x\n", caught.state.cx, caught.state.si, caught.state.di, caught.state.ax,
      caught.state.flags & ~(unsigned long)FL_RF, sum());
}

static unsigned cpl;
#define STRING(name, text, ...)                                                          \
  fill();                                                                                \
  run(CODE(text), (struct setup){.cpl = cpl, .ax = 0x0807060504030201, __VA_ARGS__});    \
  put(name)

static void half_way(void) {
  // Source and destination with 0x30 bytes before the edge; what lies beyond is absent, or read-only.
  static const struct {
    const char* name;
    unsigned second, fourth;
  } kMaps[] = {{"all present", P | W | U, P | W | U},
               {"source ends", 0, P | W | U},
               {"destination ends", P | W | U, 0},
               {"both end", 0, 0},
               {"destination read-only", P | W | U, P | U}};
  const unsigned long source = EDGE - 0x30, to = VA + 0x3000 - 0x30;
  for (unsigned i = 0; i < sizeof kMaps / sizeof *kMaps; ++i) {
    map_all();
    map(1, kMaps[i].second);
    map(3, kMaps[i].fourth);
    say("-- %s, CPL %d\n", kMaps[i].name, (unsigned long)cpl);
#define ALL(name, prefix, op, ...)                                             \
  STRING(name "B", prefix op "b", __VA_ARGS__, .cx = 0x50);                     \
  STRING(name "W", prefix op "w", __VA_ARGS__, .cx = 0x28);                     \
  STRING(name "D", prefix op "d", __VA_ARGS__, .cx = 0x14);                     \
  STRING(name "Q", prefix op "q", __VA_ARGS__, .cx = 0xa)
    ALL("REP MOVS", "rep ", "movs", .si = source, .di = to);
    ALL("REP STOS", "rep ", "stos", .di = to);
    ALL("REP LODS", "rep ", "lods", .si = source);
    ALL("REPE CMPS", "xor eax, eax; repe ", "cmps", .si = source, .di = source);
    ALL("REPNE SCAS", "mov al, 0x99; repne ", "scas", .di = source);
    ALL("misaligned REP MOVS", "rep ", "movs", .si = source + 1, .di = to + 3);
    ALL("misaligned REP STOS", "rep ", "stos", .di = to + 1);
    STRING("MOVSQ across the edge", "movsq", .si = EDGE - 3, .di = VA + 0x2800);
    STRING("MOVSQ to across the edge", "movsq", .si = VA + 0x100, .di = VA + 0x3000 - 5);
    STRING("backward REP MOVSB", "std; rep movsb; cld", .si = EDGE + 0x20, .di = VA + 0x3000 + 0x10, .cx = 0x40);
    STRING("backward REP STOSQ", "std; rep stosq; cld", .di = VA + 0x3000 + 0x10, .cx = 0x8);
    STRING("REP MOVSB, RCX 0", "xor ecx, ecx; rep movsb", .si = EDGE, .di = VA + 0x3000);
    STRING("REP MOVSD, RCX 1, all beyond", "rep movsd", .si = EDGE, .di = VA + 0x3000, .cx = 1);
    STRING("CMPSB without REP", "cmpsb", .si = EDGE, .di = VA + 0x3000);
    STRING("SCASB without REP", "scasb", .di = EDGE);
    STRING("REP MOVSB of two pages", "rep movsb", .si = VA, .di = VA + 0x2000, .cx = 0x2000);
    STRING("REP STOSQ of two pages", "rep stosq", .di = VA + 0x2000, .cx = 0x400);
    STRING("REPE CMPSB that finds a difference at the edge", "mov byte ptr [rsi + 0x2f], 7; lea rdi, [rsi + 0x40 - 0x40];"
           "xor eax, eax; repe cmpsb", .si = source, .cx = 0x30);
    STRING("REPNE SCASB that finds its byte before the edge", "mov al, 0x3f; repne scasb", .di = source, .cx = 0x100);
  }
  map_all();
}

static void overlaps(void) {
  say("-- overlap and direction, CPL %d\n", (unsigned long)cpl);
  for (unsigned distance = 1; distance <= 16; distance += distance < 4 ? 1 : 4) {
    say("distance %d\n", (unsigned long)distance);
    STRING("REP MOVSB upward over itself", "rep movsb", .si = EDGE - 0x20, .di = EDGE - 0x20 + distance, .cx = 0x60);
    STRING("REP MOVSB downward over itself", "rep movsb", .si = EDGE - 0x20 + distance, .di = EDGE - 0x20, .cx = 0x60);
    STRING("REP MOVSQ over itself", "rep movsq", .si = EDGE - 0x20, .di = EDGE - 0x20 + distance, .cx = 0x10);
    STRING("REP MOVSD over itself, backwards", "std; rep movsd; cld", .si = EDGE + 0x20, .di = EDGE + 0x20 - distance, .cx = 0x10);
    STRING("REP MOVSW over itself, backwards", "std; rep movsw; cld", .si = EDGE + 0x20 - distance, .di = EDGE + 0x20, .cx = 0x20);
  }
  STRING("REP STOSB", "rep stosb", .di = EDGE - 0x10, .cx = 0x1234);
  STRING("REP STOSW backwards", "std; rep stosw; cld", .di = EDGE + 0x800, .cx = 0x800);
  STRING("REPNE MOVSB", "repne movsb", .si = EDGE, .di = EDGE + 0x100, .cx = 5);
  STRING("REPNE STOSB", "repne stosb", .di = EDGE, .cx = 5);
  STRING("LODSB", "lodsb", .si = EDGE);
  STRING("LODSD clears the upper half", "lodsd", .si = EDGE);
  STRING("LODSW keeps the upper part", "lodsw", .si = EDGE);
  STRING("REPE SCASQ", "mov rax, [rdi]; repe scasq", .di = EDGE, .cx = 4);
  STRING("REPE CMPSW backwards", "std; repe cmpsw; cld", .si = EDGE + 0x40, .di = EDGE + 0x80, .cx = 0x10);
  STRING("32-bit addresses", ".byte 0x67; rep movsb", .si = 0x100000000 + DATA + (cpl ? USER_ALIAS : 0),
         .di = 0x200000000 + DATA2 + (cpl ? USER_ALIAS : 0), .cx = 0x300000005);
  STRING("32-bit addresses, ECX 0", ".byte 0x67; rep movsb", .si = 0x100000000 + DATA, .di = 0x200000000 + DATA2, .cx = 0x300000000);
  STRING("FS override for the source", "mov byte ptr fs:[rsi], 0x5a; fs movsb", .si = EDGE, .di = EDGE + 1);
  STRING("not canonical source", "rep movsb", .si = 0x800000000000, .di = EDGE, .cx = 4);
  STRING("source that becomes not canonical", "rep lodsb", .si = 0x7fffffffffff, .cx = 4);
  STRING("destination wraps at 0", "rep lodsb", .si = 0xfffffffffffffffe, .cx = 4);
}

static void single_steps(void) {
  say("-- TF in REP, CPL %d\n", (unsigned long)cpl);
  STRING("REP MOVSB", "rep movsb", .si = EDGE, .di = EDGE + 0x100, .cx = 3, .flags = FL_TF);
  STRING("REP MOVSB, RCX 1", "rep movsb", .si = EDGE, .di = EDGE + 0x100, .cx = 1, .flags = FL_TF);
  STRING("REP STOSB, RCX 0", "rep stosb; nop", .di = EDGE + 0x100, .cx = 0x100000000, .flags = FL_TF);
  STRING("REPE CMPSB that ends", "repe cmpsb; nop", .si = EDGE, .di = EDGE + 1, .cx = 3, .flags = FL_TF);
  STRING("REPNE SCASB that ends", "repne scasb; nop", .di = EDGE, .cx = 3, .ax = 0x40, .flags = FL_TF);
}

static void atomics(void) {
  static const struct {
    const char* name;
    unsigned second;
  } kMaps[] = {{"present", P | W | U}, {"absent", 0}, {"read-only", P | U}};
  for (unsigned i = 0; i < 3; ++i) {
    map_all();
    map(1, kMaps[i].second);
    say("-- misaligned across an edge, second page %s, CPL %d\n", kMaps[i].name, (unsigned long)cpl);
    STRING("MOV load", "mov rax, [rsi]", .si = EDGE - 3);
    STRING("MOV store", "mov [rdi], rax", .di = EDGE - 3);
    STRING("ADD to memory", "add [rdi], rax", .di = EDGE - 3);
    STRING("LOCK ADD", "lock add [rdi], rax", .di = EDGE - 3);
    STRING("LOCK INC word", "lock inc word ptr [rdi]", .di = EDGE - 1);
    STRING("XCHG", "xchg [rdi], rax", .di = EDGE - 5);
    STRING("LOCK XADD", "lock xadd [rdi], eax", .di = EDGE - 2);
    STRING("LOCK CMPXCHG that matches", "mov eax, [rsi]; lock cmpxchg [rdi], ecx", .si = VA + 0xf3e, .di = EDGE - 2 * 0 - 0xc2, .cx = 5);
    STRING("LOCK CMPXCHG that does not match", "lock cmpxchg [rdi], ecx", .di = EDGE - 2, .cx = 5);
    STRING("CMPXCHG8B", "cmpxchg8b [rdi]", .di = EDGE - 4);
    STRING("LOCK CMPXCHG8B", "lock cmpxchg8b [rdi]", .di = EDGE - 4);
    STRING("CMPXCHG16B, not aligned", "cmpxchg16b [rdi]", .di = EDGE - 8);
    STRING("LOCK BTS with a register offset", "mov eax, 13; lock bts dword ptr [rdi], eax", .di = EDGE - 2);
    STRING("BTS that reaches beyond", "mov eax, 0x40; bts dword ptr [rdi], eax", .di = EDGE - 8);
    STRING("BTR that reaches back", "mov rax, -9; btr qword ptr [rdi], rax", .di = EDGE + 4);
    STRING("LOCK NOT", "lock not dword ptr [rdi]", .di = EDGE - 1);
    STRING("PUSH of memory", "push qword ptr [rsi]; pop rax", .si = EDGE - 3);
    STRING("PUSH across", "mov rsp, rdi; push rax", .di = EDGE + 4);
    STRING("POP across", "mov rsp, rsi; pop rax", .si = EDGE - 4);
    STRING("POP to memory across", "push rax; pop qword ptr [rdi]", .di = EDGE - 3);
    STRING("CALL with the stack across", "mov rsp, rdi; call 1f; 1: xor esp, esp", .di = EDGE + 4);
    STRING("ENTER with the stack across", "mov rsp, rdi; enter 0, 0", .di = EDGE + 4);
    STRING("MOVUPS load", "movups xmm0, [rsi]; movq rax, xmm0", .si = EDGE - 7);
    STRING("MOVUPS store", "movq xmm0, rax; movups [rdi], xmm0", .di = EDGE - 7);
    STRING("MOVAPS, not aligned", "movaps xmm0, [rsi]", .si = EDGE - 7);
    STRING("FSTP m80", "fld1; fstp tbyte ptr [rdi]", .di = EDGE - 5);
    STRING("FLD m80", "fld tbyte ptr [rsi]; fstp st", .si = EDGE - 5);
    // What the images hold is the subject of fpu64.c: here they are read back and wiped.
    STRING("FNSAVE", "fninit; fldpi; fnsave [rdi]; frstor [rdi]; mov rdx, rdi; mov ecx, 108; xor eax, eax; rep stosb; fistp dword"
           " ptr [rdx]; mov eax, [rdx]; mov rdi, rdx", .di = EDGE - 60);
    STRING("FXSAVE", "fninit; fldpi; fxsave [rdi]; fninit; fxrstor [rdi]; mov rdx, rdi; mov ecx, 512; xor eax, eax; rep stosb;"
           "fistp dword ptr [rdx]; mov eax, [rdx]; mov rdi, rdx", .di = EDGE - 256);
    STRING("MASKMOVDQU", "pcmpeqb xmm1, xmm1; movq xmm0, rax; maskmovdqu xmm0, xmm1", .di = EDGE - 8);
    STRING("MASKMOVDQU of nothing", "pxor xmm1, xmm1; maskmovdqu xmm0, xmm1", .di = EDGE - 8);
    STRING("MOVNTI", "movnti [rdi], rax", .di = EDGE - 4);
    STRING("SGDT across", "sgdt [rdi]; mov qword ptr [rdi + 2], 0; mov word ptr [rdi], 0", .di = EDGE - 5);
    STRING("MOVBE", "movbe [rdi], rax", .di = EDGE - 4);
    STRING("SHLD", "shld [rdi], rax, 5", .di = EDGE - 4);
    STRING("IMUL of memory", "imul rax, [rsi], 3", .si = EDGE - 4);
    STRING("DIV by memory", "xor edx, edx; div qword ptr [rsi]; xor edx, edx", .si = EDGE - 4);
    STRING("far jump through memory", "jmp fword ptr [rsi]", .si = EDGE - 4);
    STRING("XLAT", "mov rbx, rsi; mov al, 0x10; xlatb", .si = EDGE - 8);
    STRING("LOCK on an instruction that faults in the middle of its operand", "lock sub dword ptr [rdi], eax", .di = EDGE - 1);
  }
  map_all();
}

void guest_main(void) {
  default_gates();
  memset((void*)FREE_PAGES, 0, 0x3000);
  page_pml4[1] = FREE_PAGES | P | W | U;
  *(uint64_t*)FREE_PAGES = (FREE_PAGES + 0x1000) | P | W | U;
  *(uint64_t*)(FREE_PAGES + 0x1000) = (unsigned long)kPt | P | W | U;
  map_all();
  make_pattern();
  for (cpl = 0; cpl <= 3; cpl += 3) {
    half_way();
    overlaps();
    single_steps();
    atomics();
  }
  finish();
}
