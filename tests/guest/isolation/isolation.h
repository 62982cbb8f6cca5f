// What isolation64.c and isolation32.c share. A guest maps pages here and there, then runs millions of loads and stores, each with
// an address chosen to lead out: every one must reach the byte that the page tables name, or raise the exception that they ask
// for. tests/boot/isolation_test.py says over COM1 where host memory is mapped.
//
// Each probe has a fresh copy of its instruction, with displacements of its own, and a copy serves few probes: the translator uses
// the software TLB for code that keeps faulting.
#pragma once

#include "../runtime/guest.h"

enum { P = 1, W = 2, U = 4, LARGE = 128, G = 256 };
enum { COPIES_OF_PAGE = 32, COPY_BYTES = 128, PROBES_OF_COPY = 60 };
#define ALIAS 0x40000000ul              // where users see all of memory
#define TABLES (FREE_PAGES + 0x100000)  // paging structures
#define TABLES_END 0x1000000ul
#define BIG_PAGE 0x1400000ul            // data in one large page, and in small ones
#define PAGES 0x2000000ul
#define DATA_END 0x2100000ul
#define CODE_PAGE 0x2100000ul           // data beside code that runs
#define SCRATCH 0x2180000ul
#define COPIES 0x2200000ul
#define NOTHING 0x8000000ul             // physical addresses where no memory is

static uint64_t random_state;
static uint64_t random64(void) {
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545f4914f6cdd1dull;
}
static uint32_t below(uint32_t count) {
  return (uint32_t)((random64() >> 32) * count >> 32);
}

// COM1: lines of hexadecimal numbers.
static uint8_t read_byte(void) {
  while (!(in8(0x3fd) & 1)) {
  }
  return in8(0x3f8);
}
static uint64_t read_number(void) {
  uint64_t value = 0;
  for (;;) {
    const uint8_t c = read_byte();
    if (c == ' ' || c == '\n') return value;
    value = value << 4 | (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
  }
}
static void ask_host(void) {
  while (!(in8(0x3fd) & 0x20)) {
  }
  out8(0x3f8, '?');
}

// What memory holds that probes may read and write.
static uint64_t word_at(unsigned long physical) {
  return (physical + 8) * 0x9e3779b97f4a7c15ull;
}
static void fill_words(unsigned long from, unsigned long to) {
  for (unsigned long at = from & ~7ul; at < to; at += 8) *(uint64_t*)at = word_at(at);
}
static bool is_data(unsigned long physical) {
  return physical >= BIG_PAGE && physical < CODE_PAGE + 0x1000 &&
         (physical < BIG_PAGE + 0x400000 || (physical >= PAGES && physical < DATA_END) || physical >= CODE_PAGE + 8);
}
static bool is_memory(uint64_t physical) {
  return physical < 0x4000000;
}

// An instruction or two. DISP and STEP stand for constants that each copy has of its own. `accesses`: a letter each, b [base],
// d [base + index + disp], s and 5 [base + one or five steps + disp], 1 and 2 [base + as many steps], p [base - size], x [index].
#define DISP "0x12345678"
#define STEP "0x1abcdef0"
struct form {
  const char* code;
  const char* accesses;
  unsigned size, scale, flags;
};
enum {
  STORE = 1, STACK = 2, NO_BASE = 4, NARROW = 8, TAIL = 16, ABSOLUTE = 32, SEGMENT = 64, ONLY_USER = 128, ONLY_KERNEL = 256,
  WORD_ADDRESS = 512, CODE16 = 1024, NO_DISPLACEMENT = 2048, REPEATED = 4096, TO_SCRATCH = 8192,
};

struct copy {
  const struct form* form;
  unsigned long code;
  int64_t disp, step;
  uint64_t segment_base;
  uint64_t tempting_base;  // from where the constants lead to another mapping, or 0
  uint64_t tempting_index;
};

// What the host told.
enum { MAX_HOSTS = 2048, MAX_WINDOWS = 2048 };
static uint64_t hosts[MAX_HOSTS];
static struct {
  uint64_t host, linear;  // of a page
} windows[MAX_WINDOWS];
static unsigned host_count, window_count;

// The pages of a layout.
struct page {
  uint64_t linear;
  unsigned long physical;
  unsigned bytes, rights;
};
enum { MAX_PAGES = 128 };
static struct page pages[MAX_PAGES];
static unsigned page_count;

static unsigned long next_table;
static unsigned long new_table(void) {
  if (next_table == TABLES_END) next_table = TABLES;  // unreachable with MAX_PAGES
  memset((void*)next_table, 0, 4096);
  next_table += 4096;
  return next_table - 4096;
}

// Of the two address spaces; the view of a probe.
static unsigned space;
static unsigned view_cpl;
static bool view_ac;

#define NOT_MAPPED ~0ull
// Where `linear` leads in the current space; NOT_MAPPED when the view may not.
static uint64_t lookup(uint64_t linear, bool write);
static bool is_canonical(uint64_t linear);
static void new_layout(void);
static void switch_space(void);
static bool fill_state(struct machine_state* state, const struct copy* copy, uint64_t base, uint64_t index);
static uint64_t address_of(const struct copy* copy, char access, uint64_t base, uint64_t index);

static struct form forms[64], loop;
static unsigned form_count;

static uint64_t probes, faults, reads, stores;
static unsigned errors;

static void complain(const struct copy* copy, const char* what, uint64_t base, uint64_t index, uint64_t address) {
  if (++errors > 20) return;
  unsigned form_bytes = 0;
  say("wrong: %s: CPL %d AC %d base=%X%X index=%X%X disp=%X%X step=%X address=%X%X vector=%x error=%x cr2=%x code", what,
      (unsigned long)view_cpl, (unsigned long)view_ac, (unsigned long)(base >> 32), (unsigned long)(uint32_t)base,
      (unsigned long)(index >> 32), (unsigned long)(uint32_t)index, (unsigned long)((uint64_t)copy->disp >> 32),
      (unsigned long)(uint32_t)copy->disp, (unsigned long)(uint32_t)copy->step, (unsigned long)(address >> 32),
      (unsigned long)(uint32_t)address, caught.vector, caught.error, caught.cr2);
  for (const uint8_t* at = (const uint8_t*)copy->code; form_bytes < 24 && !(at[0] == 0xcd && at[1] == 0x81); ++at, ++form_bytes) {
    say(" %x", (unsigned long)*at);
  }
  say("\n");
}

static uint8_t byte_of(uint64_t physical) {
  return is_memory(physical) ? *(const uint8_t*)(unsigned long)physical : 0xff;
}

static void probe(const struct copy* copy, uint64_t base, uint64_t index) {
  const struct form* const form = copy->form;
  const bool store = form->flags & STORE;
  // The first access that may not be, or the last one.
  uint64_t address = 0, wrong_page = 0;
  bool fault = false, not_canonical = false, either = false, offset_too = false;
  for (const char* access = form->accesses; *access && !fault; ++access) {
    address = address_of(copy, *access, base, index);
    for (unsigned i = 0; i < form->size; ++i) {
      const uint64_t at = sizeof(long) == 4 ? (uint32_t)(address + i) : address + i;
      // AMD's processors look at the offset, too.
      offset_too |= form->flags & SEGMENT && !is_canonical(at - copy->segment_base);
      if (!is_canonical(at)) {
        either = fault;
        fault = not_canonical = true;
        break;
      }
      if (fault) continue;
      const uint64_t physical = lookup(at, store);
      if (physical == NOT_MAPPED) {
        fault = true;
        wrong_page = at & ~0xfffull;
      } else if (store && !is_data((unsigned long)physical) && is_memory(physical)) {
        return;  // the guest itself
      }
    }
  }
  struct machine_state state = {};
  if (!fill_state(&state, copy, base, index)) return;
  // What lies at the address: its first and its last eight bytes.
  uint8_t before[64];
  bool all_data = true;
  if (!fault) {
    for (unsigned i = 0; i < form->size; ++i) {
      const uint64_t physical = lookup(sizeof(long) == 4 ? (uint32_t)(address + i) : address + i, store);
      before[i] = byte_of(physical);
      all_data = all_data && (!is_memory(physical) || is_data((unsigned long)physical));
    }
  }
  caught.vector = 0;
  enter(&state);
  ++probes;
#ifdef __x86_64__
  caught.error = caught.vector == END ? 0 : *(const unsigned long*)caught.frame;
#endif
  caught.cr2 = read_cr2();
  if (offset_too && caught.vector == GP && caught.error == 0) {
    ++faults;
  } else if (fault) {
    ++faults;
    const bool right_page = caught.vector == PF && (caught.cr2 & ~0xffful) == (unsigned long)wrong_page;
    const bool right_general = caught.vector == (form->flags & STACK ? SS : GP) && caught.error == 0;
    if (not_canonical ? !right_general && !(either && right_page) : !right_page) {
      complain(copy, "no fault, or another", base, index, address);
    }
    // What a repeated store has done stays.
    for (unsigned i = 0; form->flags & REPEATED && i < form->size; ++i) {
      const uint64_t physical = lookup(sizeof(long) == 4 ? (uint32_t)(address + i) : address + i, true);
      if (physical < CODE_PAGE + 0x1000 && is_data((unsigned long)physical)) fill_words((unsigned long)physical, (unsigned long)physical + 1);
    }
  } else if (caught.vector != END) {
    complain(copy, "a fault", base, index, address);
  } else if (!store) {
    ++reads;
    const unsigned count = form->size < sizeof(long) ? form->size : sizeof(long);
    bool right = true;
    for (unsigned i = 0; i < count; ++i) {
      right = right && (uint8_t)(caught.state.ax >> 8 * i) == before[i];
      if (form->flags & TAIL) right = right && (uint8_t)(caught.state.dx >> 8 * i) == before[form->size - count + i];
    }
    if (all_data && !right) complain(copy, "another value", base, index, address);
  } else {
    ++stores;
    bool right = true;
    for (unsigned i = 0; i < form->size; ++i) {
      const uint64_t physical = lookup(sizeof(long) == 4 ? (uint32_t)(address + i) : address + i, true);
      if (!is_memory(physical)) continue;
      right = right && byte_of(physical) == (uint8_t)(state.ax >> 8 * (i % sizeof(long)));
    }
    if (!right) complain(copy, "not stored", base, index, address);
    for (unsigned i = 0; i < form->size; ++i) {
      const uint64_t physical = lookup(sizeof(long) == 4 ? (uint32_t)(address + i) : address + i, true);
      if (is_memory(physical)) fill_words((unsigned long)physical, (unsigned long)physical + 1);
    }
  }
}

// Nothing was stored where nobody wanted to.
static void check_data(void) {
  for (unsigned long at = BIG_PAGE; at < CODE_PAGE + 0x1000; at += 8) {
    if (!is_data(at) || *(const uint64_t*)at == word_at(at)) continue;
    if (++errors < 20) say("wrong: memory at %x is not as it was\n", at);
  }
}

static const struct form* choose_form(void) {
  for (;;) {
    const struct form* const form = &forms[below(form_count)];
    if (!(form->flags & (view_cpl == 0 ? ONLY_USER : ONLY_KERNEL))) return form;
  }
}

static void patch(uint8_t* code, uint32_t placeholder, int64_t value) {
  for (unsigned i = 0; i < COPY_BYTES - 4; ++i) {
    if (*(uint32_t*)(code + i) == placeholder) *(uint32_t*)(code + i) = (uint32_t)value;
  }
}

// Constants of 32 bits that reach far, or stay near the limits of guards and steps.
static int64_t some_constant(void) {
  static const int64_t kEdges[] = {0, 1, -1, 8, 0x1000, -0x1000, 0xffff, -0x10000, 0x10000, -0x10001, 0x40000000, -0x40000000,
                                   0x3fffffff, 0x40000001, 0x7fffffff, -0x80000000ll, 0x7ffff000, -0x7ffff000};
  switch (below(4)) {
    case 0: return kEdges[below(sizeof kEdges / sizeof *kEdges)] + (below(3) == 0 ? (int64_t)below(33) - 16 : 0);
    case 1: return (int64_t)below(0x2000) - 0x1000;
    default: return (int32_t)random64();
  }
}

static uint64_t some_segment_base(void);

// Constants that lead from one window to another one, or to other memory of the host's, if they are large enough.
static void tempt(struct copy* copy) {
  char last = 0;
  for (const char* access = copy->form->accesses; *access; ++access) last = *access;
  const int64_t steps = last == '5' ? 5 : last == '2' ? 2 : last == '1' || last == 's' ? 1 : 0;
  const bool has_disp = last == '5' || last == 's' || last == 'd';
  if (!window_count || last == 'b' || last == 'p') return;
  for (unsigned tries = 0; tries < 400; ++tries) {
    const unsigned from = below(window_count), to = below(window_count);
    const uint64_t target = below(4) ? windows[to].host : hosts[below(host_count)];
    const int64_t distance = (int64_t)(target - windows[from].host);
    if (distance > (6ll << 31) || distance < -(6ll << 31)) continue;
    if (steps == 5 && tries < 300 && distance < 1ll << 32 && distance > -(1ll << 32)) continue;
    int64_t left = distance;
    int64_t step = copy->step;
    if (steps) {
      step = steps == 5 ? (left >> 16) * 13107 : left >> (steps - 1);
      left -= steps * step;
    }
    if (step != (int32_t)step || (has_disp ? left != (int32_t)left : left < -8 || left > 8)) continue;
    copy->step = step;
    if (has_disp) copy->disp = left;
    copy->tempting_base = windows[from].linear + below(32);
    copy->tempting_index = last == 'd' ? 0 : windows[to].linear;
    return;
  }
}

static struct copy make_copy(unsigned long at) {
  struct copy copy = {.form = choose_form(), .code = at, .disp = (int32_t)some_constant(), .step = (int32_t)some_constant()};
  if (below(4)) tempt(&copy);
  uint8_t* const code = (uint8_t*)at;
  memcpy(code, copy.form->code, 96);
  if (copy.form->flags & WORD_ADDRESS) copy.disp = (int16_t)copy.disp;
  patch(code, 0x12345678, copy.disp);
  patch(code, 0x1abcdef0, copy.step);
  if (copy.form->flags & WORD_ADDRESS) *(uint16_t*)(code + 3) = (uint16_t)copy.disp;
  if (copy.form->flags & SEGMENT) copy.segment_base = some_segment_base();
  return copy;
}

// A linear address to aim at, or one from which to start.
static uint64_t some_page_address(void) {
  const struct page* const page = &pages[below(page_count)];
  static const int kOffsets[] = {0, -1, -4, -7, -8, -16, -31, -32, -64, 1, 4, 8};
  const int offset = kOffsets[below(sizeof kOffsets / sizeof *kOffsets)];
  if (below(3) == 0) return page->linear + (page->bytes == 4096 ? below(4096) : below(page->bytes));
  return page->linear + (below(2) ? page->bytes : 0) + (uint64_t)(int64_t)offset;
}

static uint64_t some_host_address(void) {
  return hosts[below(host_count)] + (below(2) ? 0 : (uint64_t)((int64_t)below(8192) - 4096));
}

static uint64_t some_target(void);  // of the guest's width

// The base for which the last access of the copy reaches `target`.
static uint64_t base_for(const struct copy* copy, uint64_t target, uint64_t index) {
  const char* last = copy->form->accesses;
  while (last[1]) ++last;
  return target - (address_of(copy, *last, 0, index));
}

static uint64_t some_index(void);

static void probe_copy(const struct copy* copy) {
  for (unsigned i = 0; i < PROBES_OF_COPY; ++i) {
    const uint64_t index = some_index();
    if (copy->tempting_base && i % 4 == 0) {
      probe(copy, copy->tempting_base, copy->tempting_index);
      continue;
    }
    // From where the guest may be, to wherever that leads; or to the target.
    probe(copy, below(3) == 0 ? some_page_address() : base_for(copy, some_target(), index), index);
  }
}

static void read_hosts(void) {
  ask_host();
  host_count = (unsigned)read_number();
  for (unsigned i = 0; i < host_count; ++i) hosts[i] = read_number();
  // Where pages of guest RAM are mapped: a window leads there from one of the linear addresses of that page.
  window_count = 0;
  for (unsigned count = (unsigned)read_number(); count; --count) {
    const uint64_t host = read_number(), physical = read_number();
    for (unsigned i = 0; i < page_count; ++i) {
      const uint64_t offset = physical - pages[i].physical;
      if (offset >= pages[i].bytes || window_count == MAX_WINDOWS) continue;
      windows[window_count].host = host;
      windows[window_count++].linear = pages[i].linear + offset;
    }
  }
}

// Linear addresses that a window's delta makes into a host's.
static uint64_t some_window_address(uint64_t host) {
  if (!window_count) return host;
  const unsigned i = below(window_count);
  return host - windows[i].host + windows[i].linear;
}

// Runs a loop in the copies' page until it is worth a translation through the windows.
static void heat(unsigned long at, unsigned long iterations) {
  if (!iterations) return;
  struct copy copy = {.form = &loop, .code = at};
  memcpy((void*)at, loop.code, 96);
  struct machine_state state = {};
  if (!fill_state(&state, &copy, ALIAS + PAGES, 0)) return;
  state.cx = iterations;
  if (view_cpl == 0) state.bx = PAGES;
  enter(&state);
}

static void choose_view(void) {
  static const struct {
    uint8_t cpl, ac;
  } kViews[] = {{3, 0}, {0, 0}, {0, 1}};
  const unsigned view = below(3);
  view_cpl = kViews[view].cpl;
  view_ac = kViews[view].ac;
}

static void isolation_main(void) {
  fill_words(BIG_PAGE, BIG_PAGE + 0x400000);
  fill_words(PAGES, DATA_END);
  fill_words(CODE_PAGE, CODE_PAGE + 0x1000);
  ask_host();
  random_state = read_number() * 2 + 1;
  const unsigned layouts = (unsigned)read_number(), pages_of_copies = (unsigned)read_number();
  const unsigned long iterations = (unsigned long)read_number();
  for (unsigned i = 0; i < layouts; ++i) {
    new_layout();
    // Code in a page that is mapped elsewhere as data.
    *(uint16_t*)CODE_PAGE = 0x81cd;
    for (unsigned j = 0; j < pages_of_copies; ++j) {
      const unsigned long start = COPIES + (i * pages_of_copies + j) % 2048 * 4096;
      choose_view();
      switch_space();
      struct copy copy = {.form = &loop, .code = CODE_PAGE};
      struct machine_state state = {};
      fill_state(&state, &copy, 0, 0);
      enter(&state);
      heat(start, iterations);
      if (j == 1 || j == 3) {
        for (unsigned round = 0; round < 4; ++round) {
          const struct copy opener = make_copy(start);
          for (unsigned k = 0; k < page_count; ++k) probe(&opener, base_for(&opener, pages[k].linear + 64, 0), 0);
        }
      }
      if (j == 0 || j == 4) read_hosts();
      for (unsigned k = 0; k < COPIES_OF_PAGE; ++k) {
        const struct copy next = make_copy(start + k * COPY_BYTES);
        probe_copy(&next);
      }
    }
    check_data();
  }
  say("%d probes: %d faults, %d loads, %d stores, %d wrong\n", (unsigned long)probes, (unsigned long)faults, (unsigned long)reads,
      (unsigned long)stores, (unsigned long)errors);
  finish();
}
