#include "guest.h"

static const char* const kNames[20] = {"DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", 0,
                                       "TS", "NP", "SS", "GP", "PF", 0,    "MF", "AC", "MC", "XM"};
static bool pushes_error_code(unsigned long vector) {
  return vector < 32 && (0x227d00u >> vector & 1);
}

#ifdef NATIVE
void set_gate(unsigned vector, unsigned long target, unsigned type_and_dpl, unsigned selector, unsigned ist) {
  (void)vector, (void)target, (void)type_and_dpl, (void)selector, (void)ist;
}
void default_gates(void) {}
#else
void* memset(void* to, int value, size_t size) {
  void* out = to;
  asm volatile("rep stosb" : "+D"(out), "+c"(size) : "a"(value) : "memory");
  return to;
}

void* memcpy(void* to, const void* from, size_t size) {
  void* out = to;
  asm volatile("rep movsb" : "+D"(out), "+S"(from), "+c"(size)::"memory");
  return to;
}

void put_text(const char* text, size_t size) {
  asm volatile("rep outsb" : "+S"(text), "+c"(size) : "d"((uint16_t)0xe9) : "memory");
}

void finish(void) {
  for (;;) out8(0xf4, 0x10);
}

void set_gate(unsigned vector, unsigned long target, unsigned type_and_dpl, unsigned selector, unsigned ist) {
#ifdef __x86_64__
  const uint64_t gate[2] = {
      (target & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 | (uint64_t)type_and_dpl << 40 |
          (target >> 16 & 0xffff) << 48,
      target >> 32};
#else
  const uint64_t gate[1] = {(target & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 |
                            (uint64_t)type_and_dpl << 40 | (uint64_t)(target >> 16) << 48};
#endif
  memcpy(idt + vector * sizeof gate, gate, sizeof gate);
}

void default_gates(void) {
  for (unsigned vector = 0; vector < 256; ++vector) {
#ifdef __x86_64__
    set_gate(vector, STUB(vector), vector == END ? GATE_INTERRUPT | 0x60 : GATE_INTERRUPT, KCODE, 1);
#else
    set_gate(vector, STUB(vector), vector == END ? GATE_INTERRUPT | 0x60 : GATE_INTERRUPT, KCODE, 0);
#endif
  }
#ifndef __x86_64__
  set_gate(DF, 0, 0x85, DF_TSS_SELECTOR, 0);
#endif
  struct {
    uint16_t limit;
    unsigned long base;
  } __attribute__((packed)) table = {256 * 2 * sizeof(unsigned long) - 1, (unsigned long)idt};
  asm volatile("lidt %0" ::"m"(table));
}
#endif

static char line[4096];
static size_t line_length;

static void put(char c) {
  line[line_length++] = c;
  if (c != '\n' && line_length < sizeof line) return;
  put_text(line, line_length);
  line_length = 0;
}

static void put_number(unsigned long value, unsigned base, unsigned digits) {
  char text[24];
  unsigned count = 0;
  do {
    text[count++] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value || count < digits);
  while (count) put(text[--count]);
}

void say(const char* format, ...) {
  va_list list;
  va_start(list, format);
  for (; *format; ++format) {
    if (*format != '%') {
      put(*format);
      continue;
    }
    switch (*++format) {
      case 's':
        for (const char* text = va_arg(list, const char*); *text; ++text) put(*text);
        break;
      case 'c':
        put((char)va_arg(list, int));
        break;
      case 'd':
        put_number(va_arg(list, unsigned long), 10, 1);
        break;
      case 'x':
        put_number(va_arg(list, unsigned long), 16, 1);
        break;
      case 'X':
        put_number(va_arg(list, unsigned long), 16, 8);
        break;
    }
  }
  va_end(list);
}

static const char* started;

void run(const char* code, struct setup setup) {
  const bool user = setup.cpl == 3;
  const unsigned long alias = user ? USER_ALIAS : 0;
#ifdef NATIVE
  const unsigned long code_alias = 0;
#else
  const unsigned long code_alias = alias;
#endif
  struct machine_state state = {
      .ax = setup.ax ? setup.ax : 0x1111,
      .cx = setup.cx ? setup.cx : 0x2222,
      .dx = setup.dx ? setup.dx : 0x3333,
      .bx = setup.bx ? setup.bx : 0x4444,
      .sp = setup.sp ? setup.sp : STACK_TOP + alias,
      .bp = setup.bp ? setup.bp : 0x5555,
      .si = setup.si ? setup.si : DATA + alias,
      .di = setup.di ? setup.di : DATA2 + alias,
      .ip = setup.ip ? setup.ip : (unsigned long)code + code_alias,
      .flags = setup.flags | FL_FIXED,
      .cs = setup.cs ? setup.cs : user ? UCODE : KCODE,
      .ss = setup.ss ? setup.ss : user ? UDATA : KDATA,
  };
#ifdef __x86_64__
  state.r8 = 0x8888;
  state.r9 = 0x9999;
  state.r10 = 0xaaaa;
  state.r11 = 0xbbbb;
  state.r12 = 0xcccc;
  state.r13 = 0xdddd;
  state.r14 = 0xeeee;
  state.r15 = 0xffff;
#else
  state.ds = setup.ds ? setup.ds : user ? UDATA : KDATA;
  state.es = setup.es ? setup.es : state.ds;
  state.fs = setup.fs;
  state.gs = setup.gs;
#endif
  started = (const char*)state.ip;
  write_dr6(0xffff0ff0);
  enter(&state);
#ifndef NATIVE
  caught.cr2 = read_cr2();
#endif
  caught.dr6 = read_dr6();
#ifdef __x86_64__
  const unsigned long* frame = (const unsigned long*)caught.frame;
  caught.error = 0;
  if (pushes_error_code(caught.vector)) caught.error = *frame++;
  caught.state.ip = frame[0];
  caught.state.cs = frame[1];
  caught.state.flags = frame[2];
  caught.state.sp = frame[3];
  caught.state.ss = frame[4];
#endif
}

static void report_member(char member) {
  const struct machine_state* state = &caught.state;
  switch (member) {
    case 'a': say(" ax=%x", state->ax); break;
    case 'c': say(" cx=%x", state->cx); break;
    case 'd': say(" dx=%x", state->dx); break;
    case 'b': say(" bx=%x", state->bx); break;
    case 'p': say(" sp=%x", state->sp); break;
    case 'B': say(" bp=%x", state->bp); break;
    case 's': say(" si=%x", state->si); break;
    case 'i': say(" di=%x", state->di); break;
    case 'f': say(" flags=%x", state->flags & ~(unsigned long)(FL_ARITHMETIC | FL_RF)); break;
    case 'F': say(" flags=%x", state->flags & ~(unsigned long)FL_RF); break;
    case 'R': say(" RF=%d", state->flags >> 16 & 1); break;
    case 'S': say(" cs=%x ss=%x", state->cs, state->ss); break;
    case 'h':
      say(" handler: flags=%x cs=%x", caught.handler_flags & ~(unsigned long)FL_ARITHMETIC, caught.handler_cs);
      break;
    case 'z': say(" ss=%x", caught.handler_ss); break;
    case '6': say(" dr6=%x", caught.dr6); break;
    case 'm':
      say(" memory=");
      for (unsigned i = 0; i < 4; ++i) say("%s%X", i ? "," : "", (unsigned long)((volatile uint32_t*)DATA)[i]);
      break;
    case 'k': say(" frame=%x", STACK_TOP - caught.frame); break;
  }
}

void put_outcome(const char* show) {
  const unsigned long vector = caught.vector;
  const unsigned long offset = caught.state.ip - (unsigned long)started;
  if (vector == END) {
    say("done");
  } else {
    if (vector < 20 && kNames[vector]) {
      say("#%s", kNames[vector]);
    } else {
      say("vector %x", vector);
    }
    if (pushes_error_code(vector)) say("(%x)", caught.error);
    if (offset < 0x1000) {
      say(" +%d", offset);
    } else {
      say(" ip=%x", caught.state.ip);
    }
    if (vector == PF) say(" cr2=%x", caught.cr2);
  }
  for (; show && *show; ++show) report_member(*show);
}

void report(const char* show) {
  put_outcome(show);
  say("\n");
}

void check(const char* name, const char* code, struct setup setup) {
  run(code, setup);
  say("%s: ", name);
  report(setup.show);
}
