// String instructions outside 64-bit mode: segment limits half-way, 16-bit and 32-bit addresses that wrap, bases, overrides, 16-bit
// code. Pages that end half-way are strings64.c's. Where TCG, which checks no limits, cannot judge, lines end with "ok" when the
// elements before the limit, and no more, are done (SDM vol. 2, REP; vol. 3, 5.3).
#include "runtime/guest.h"

enum { SOURCE = FREE_SELECTOR, TARGET = FREE_SELECTOR + 8, CODE16_SELECTOR = FREE_SELECTOR + 16, BYTES = 0x10000 };
static unsigned cpl;

static uint8_t pattern[2 * BYTES];
static void fill(void) {
  memcpy((void*)DATA, pattern, sizeof pattern);  // DATA2 follows
}
static unsigned long sum(void) {
  unsigned long sum = 0;
  for (unsigned i = 0; i < 2 * BYTES / 4; ++i) sum = sum * 31 + ((uint32_t*)DATA)[i];
  return sum;
}

static void segment(unsigned selector, uint32_t base, uint32_t limit, unsigned access) {
  gdt[selector / 8] = limit > 0xfffff ? descriptor(base, limit >> 12, access | cpl << 5, GRANULAR | BIG)
                                      : descriptor(base, limit, access | cpl << 5, BIG);
}

static void run_string(const char* code, unsigned bits, struct setup setup) {
  fill();
  setup.cpl = cpl;
  setup.ds = SOURCE | cpl;
  setup.es = TARGET | cpl;
  setup.ax = 0x04030201;
  if (bits == 16) {
    gdt[CODE16_SELECTOR / 8] = descriptor((unsigned long)code - 0x100, 0xffff, 0x9b | cpl << 5, 0);
    setup.cs = CODE16_SELECTOR | cpl;
    setup.ip = 0x100;
  }
  run(code, setup);
}
static void put(const char* name) {
  say("%s: ", name);
  if (caught.vector == END) {
    say("done");
  } else {
    say("vector %d(%x)", caught.vector, caught.error);
  }
  say(" cx=%x si=%x di=%x ax=%x flags=%x sum=%x\n", caught.state.cx, caught.state.si, caught.state.di, caught.state.ax,
      caught.state.flags & ~(unsigned long)FL_RF, sum());
}
#define STRING(name, text, ...)                                        \
  run_string(CODE(text), 32, (struct setup){__VA_ARGS__});             \
  put(name)
#define STRING16(name, text, ...)                                      \
  run_string(CODE_BITS("16", text), 16, (struct setup){__VA_ARGS__});  \
  put(name)

static void wraps(void) {
  say("-- 16-bit addresses in 32-bit code, CPL %d\n", (unsigned long)cpl);
  segment(SOURCE, DATA, 0xffffffff, 0x93);
  segment(TARGET, DATA2, 0xffffffff, 0x93);
#define A16 ".byte 0x67; "
  STRING("REP MOVSB, SI wraps", A16 "rep movsb", .si = 0xabcdfff0, .di = 0x12340100, .cx = 0x99990020);
  STRING("REP MOVSB, DI wraps", A16 "rep movsb", .si = 0xabcd0100, .di = 0x1234fff0, .cx = 0x99990020);
  STRING("REP MOVSB, both wrap", A16 "rep movsb", .si = 0xabcdfff8, .di = 0x1234fff0, .cx = 0x99990020);
  STRING("REP MOVSD, both wrap", A16 "rep movsd", .si = 0xabcdfff8, .di = 0x1234fff0, .cx = 0x99990008);
  STRING("REP MOVSW backwards, both wrap", "std; " A16 "rep movsw; cld", .si = 6, .di = 0x70008, .cx = 0x10);
  STRING("REP STOSB wraps", A16 "rep stosb", .di = 0x5555ffff, .cx = 3);
  STRING("REP STOSD wraps", A16 "rep stosd", .di = 0x5555fff4, .cx = 0x77770006);
  STRING("REP STOSB of 64 KiB less one", A16 "rep stosb", .di = 0x8000, .cx = 0xffff);
  STRING("REP LODSW wraps", A16 "rep lodsw", .si = 0x3333fffc, .cx = 4);
  STRING("REPE CMPSB wraps", "xor eax, eax; " A16 "repe cmpsb", .si = 0xfff0, .di = 0xfff0, .cx = 0x40);
  STRING("REPNE SCASB wraps", "mov al, 7; " A16 "repne scasb", .di = 0xffe0, .cx = 0x100);
  STRING("MOVSB, SI wraps", A16 "movsb", .si = 0x1ffff, .di = 0x20010);
  STRING("STOSW, DI wraps", A16 "stosw", .di = 0x1fffe);
  STRING("LODSD backwards, SI wraps", "std; " A16 "lodsd; cld", .si = 0x70000);
  STRING("SCASB, DI wraps", A16 "scasb", .di = 0xffff);
  STRING("CMPSD, both wrap", A16 "cmpsd", .si = 0x1fffc, .di = 0x2fffc);
  STRING("CX 0, ECX not", A16 "rep movsb", .si = 1, .di = 2, .cx = 0x10000);
  STRING("ECX not 0, CX 0, without 67h", "rep stosb", .di = 0, .cx = 0x10000);

  say("-- 32-bit addresses that wrap, CPL %d\n", (unsigned long)cpl);
  segment(SOURCE, DATA + 0x100, 0xffffffff, 0x93);
  segment(TARGET, DATA2 + 0x100, 0xffffffff, 0x93);
  STRING("REP MOVSB, ESI wraps", "rep movsb", .si = 0xfffffff0, .di = 0x40, .cx = 0x20);
  STRING("REP MOVSB, EDI wraps", "rep movsb", .si = 0x40, .di = 0xfffffff0, .cx = 0x20);
  STRING("REP MOVSD, both wrap", "rep movsd", .si = 0xfffffff0, .di = 0xffffffe0, .cx = 0x20);
  STRING("REP MOVSB backwards, both wrap", "std; rep movsb; cld", .si = 8, .di = 4, .cx = 0x20);
  STRING("REP MOVSD backwards, ESI wraps", "std; rep movsd; cld", .si = 8, .di = 0x80, .cx = 0x10);
  STRING("REP STOSB wraps", "rep stosb", .di = 0xfffffffd, .cx = 9);
  STRING("REP STOSD wraps", "rep stosd", .di = 0xffffff80, .cx = 0x80);
  STRING("REP LODSB wraps", "rep lodsb", .si = 0xfffffffe, .cx = 4);
  STRING("REPE CMPSD wraps", "xor eax, eax; repe cmpsd", .si = 0xfffffff0, .di = 0xfffffff0, .cx = 0x10);
  STRING("REPNE SCASW wraps", "repne scasw", .di = 0xfffffff0, .cx = 0x10);
  STRING("STOSD wraps", "stosd", .di = 0xfffffffc);
  STRING("LODSB backwards wraps", "std; lodsb; cld", .si = 1, .cx = 2);
  segment(SOURCE, 0xfffff000, 0xffffffff, 0x93);
  STRING("base + offset wraps", "rep movsb", .si = DATA + 0x1010, .di = 0x40, .cx = 0x20);
  STRING("base + offset wraps, to itself", "push ds; pop es; rep movsd", .si = DATA + 0x1010, .di = DATA + 0x1080, .cx = 0x20);
  STRING("base + offset wraps, STOSD", "push ds; pop es; rep stosd", .di = DATA + 0x1080, .cx = 0x20);
}

static void forms(void) {
  segment(SOURCE, DATA, 0xffffffff, 0x93);
  segment(TARGET, DATA2, 0xffffffff, 0x93);
  say("-- overrides and directions, CPL %d\n", (unsigned long)cpl);
  STRING("FS for the source", "push es; pop fs; .byte 0x64; rep movsb", .si = 0x40, .di = 0x100, .cx = 8);
  STRING("ES for the source of LODSD", ".byte 0x26; lodsd", .si = 0x40);
  STRING("SS for the source of MOVSB", ".byte 0x36; rep movsb", .si = DATA + 0x123, .di = 0x100, .cx = 8);
  STRING("CS for the source of LODSB", "mov esi, offset 1f; 1: .byte 0x2e; lodsb", .cx = 8);
  STRING("overrides do not reach the destination", ".byte 0x3e; stosb", .di = 0x100);
  STRING("CMPSB with ES", ".byte 0x26; repe cmpsb", .si = 0x40, .di = 0x100, .cx = 8);
  STRING("REPNE MOVSB", "repne movsb", .si = 0x40, .di = 0x100, .cx = 8);
  STRING("REP SCASD backwards", "std; mov eax, [esi]; repe scasd; cld", .si = 0x40, .di = 0x140, .cx = 8);
  STRING("REP MOVSD over itself, 1 apart", "push ds; pop es; rep movsd", .si = 0x100, .di = 0x101, .cx = 0x40);
  STRING("REP MOVSB over itself, 1 apart", "push ds; pop es; rep movsb", .si = 0x100, .di = 0x101, .cx = 0x40);
  STRING("REP MOVSB over itself, backwards", "push ds; pop es; std; rep movsb; cld", .si = 0x141, .di = 0x140, .cx = 0x40);
  STRING("REP MOVSW of 64 KiB", "rep movsw", .si = 0, .di = 0, .cx = 0x8000);
  STRING("two REP prefixes", ".byte 0xf2; rep movsb", .si = 0x40, .di = 0x100, .cx = 8);
  STRING("TF in REP MOVSB", "rep movsb", .si = 0x40, .di = 0x100, .cx = 3, .flags = FL_TF);
  STRING("TF, CX 0", A16 "rep movsb; nop", .si = 0x40, .di = 0x100, .cx = 0x30000, .flags = FL_TF);

  say("-- 16-bit code, CPL %d\n", (unsigned long)cpl);
  STRING16("REP MOVSB, both wrap", "rep movsb", .si = 0xabcdfff8, .di = 0x1234fff0, .cx = 0x99990020);
  STRING16("REP MOVSW backwards", "std; rep movsw; cld", .si = 6, .di = 0x70008, .cx = 0x10);
  STRING16("REP STOSD with 66h", "rep stosd", .di = 0x55550010, .cx = 0x77770006);
  STRING16("REP MOVSB with 67h", ".byte 0x67; rep movsb", .si = 0x40, .di = 0xfff8, .cx = 0x10);
  STRING16("REP STOSW with 67h", ".byte 0x67; rep stosw", .di = 0x40, .cx = 0x1000);
  STRING16("REPNE SCASB", "mov al, 7; repne scasb", .di = 0xffe0, .cx = 0x100);
  STRING16("REPE CMPSW", "repe cmpsw", .si = 0xfff0, .di = 0xfff0, .cx = 0x40);
  STRING16("LODSB", "lodsb", .si = 0x7ffff);
  STRING16("CX 0, ECX not", "rep stosb", .di = 2, .cx = 0x10000);
}

// One side has `room` bytes before its limit (or, downwards in expand-down segments and with DF, behind it).
static void limits(void) {
  static const struct {
    const char* name;
    bool from, to;
    unsigned size;
  } kForms[] = {{"MOVSB", 1, 1, 1}, {"MOVSW", 1, 1, 2}, {"MOVSD", 1, 1, 4}, {"STOSB", 0, 1, 1}, {"STOSW", 0, 1, 2},
                {"STOSD", 0, 1, 4}, {"LODSB", 1, 0, 1}, {"LODSW", 1, 0, 2}, {"LODSD", 1, 0, 4}, {"CMPSB", 1, 1, 1},
                {"CMPSD", 1, 1, 4}, {"SCASW", 0, 1, 2}};
  const char* const codes[] = {CODE("rep movsb"), CODE("rep movsw"), CODE("rep movsd"), CODE("rep stosb"),
                               CODE("rep stosw"), CODE("rep stosd"), CODE("rep lodsb"), CODE("rep lodsw"),
                               CODE("rep lodsd"), CODE("repe cmpsb"), CODE("repe cmpsd"), CODE("repne scasw")};
  say("-- limits, CPL %d\n", (unsigned long)cpl);
  for (unsigned i = 0; i < sizeof kForms / sizeof *kForms; ++i) {
    for (unsigned side = 0; side < 2; ++side) {
      if (!(side ? kForms[i].to : kForms[i].from)) continue;
      for (unsigned down = 0; down < 2; ++down) {
        for (unsigned room = 0; room <= 9; ++room) {
          const unsigned size = kForms[i].size, count = 12 / size, start = 0x1000;
          // Elements at start, start + size...; or, with an expand-down segment and DF, at start - size...
          const unsigned done = room / size < count ? room / size : count;
          const uint32_t narrow = down ? start + size - room - 1 : start + room - 1;
          segment(SOURCE, DATA, !side ? narrow : 0xffffffff, !side && down ? 0x97 : 0x93);
          segment(TARGET, DATA2, side ? narrow : 0xffffffff, side && down ? 0x97 : 0x93);
          // So that comparisons go on.
          for (unsigned j = 0; j < 0x40; ++j) pattern[start - 0x20 + j] = pattern[BYTES + start - 0x20 + j] = (uint8_t)j;
          const bool compares = kForms[i].name[0] == 'C';
          run_string(codes[i], 32,
                     (struct setup){.cx = count, .si = start, .di = start, .flags = down ? FL_DF : 0});
          (void)compares;
          const int step = down ? -(int)size : (int)size;
          const unsigned long moved = (unsigned long)(step * (int)done);
          bool right = caught.state.cx == count - done && caught.state.si == (kForms[i].from ? start + moved : start) &&
                       caught.state.di == (kForms[i].to ? start + moved : start);
          right = right && (done == count ? caught.vector == END : caught.vector == GP && caught.error == 0);
          say("%s, %s limit, %s, %d bytes: cx=%d vector=%d %s\n", kForms[i].name, side ? "ES" : "DS", down ? "down" : "up",
              (unsigned long)room, caught.state.cx, caught.vector, right ? "ok" : "wrong");
        }
      }
    }
  }
}

void guest_main(void) {
  default_gates();
  for (cpl = 0; cpl <= 3; cpl += 3) {
    for (unsigned i = 0; i < sizeof pattern; ++i) pattern[i] = (uint8_t)((i >> 8) * 5 + (i & 0x3f));
    wraps();
    forms();
    limits();
  }
  finish();
}
