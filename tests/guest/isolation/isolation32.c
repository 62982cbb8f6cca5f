// Isolation in 32-bit and 16-bit code (isolation.h): windows are not compared with anything, so addresses that should have wrapped
// lead out of them. The numbered steps are those of mmu/README.md's proof.
#include "isolation.h"

static uint32_t directories[2][1024] __attribute__((aligned(4096)));
enum { FS_SELECTOR = FREE_SELECTOR, CODE16_SELECTOR = FREE_SELECTOR + 8 };

static bool is_canonical(uint64_t linear) {
  (void)linear;
  return true;
}

static uint64_t lookup(uint64_t linear, bool write) {
  const uint32_t directory = directories[space][linear >> 22];
  if (!(directory & P)) return NOT_MAPPED;
  uint32_t entry = directory, mask = 0x3fffff;
  if (!(directory & LARGE)) {
    entry = ((uint32_t*)(directory & ~0xffful))[linear >> 12 & 1023];
    if (!(entry & P)) return NOT_MAPPED;
    entry &= directory | ~7u;
    mask = 0xfff;
  }
  if (view_cpl == 3 ? !(entry & U) : entry & U && !view_ac) return NOT_MAPPED;
  if (write && !(entry & W)) return NOT_MAPPED;
  return (entry & ~mask & ~0xfffu) | (linear & mask);
}

static void map(unsigned in_space, const struct page* page, bool present) {
  uint32_t* const directory = &directories[in_space][page->linear >> 22];
  const uint32_t entry = page->physical | page->rights | (present ? P : 0);
  if (page->bytes > 4096) {
    *directory = entry | LARGE;
    return;
  }
  if (!(*directory & P)) *directory = new_table() | P | W | U;
  ((uint32_t*)(*directory & ~0xffful))[page->linear >> 12 & 1023] = entry;
}

static void new_layout(void) {
  next_table = TABLES;
  for (unsigned i = 0; i < 2; ++i) {
    for (unsigned j = 0; j < 1024; ++j) {
      const unsigned low = j % (ALIAS >> 22);  // the guest itself, and its alias
      directories[i][j] = j >= 2 * (ALIAS >> 22) || low >= 16 ? 0 : low << 22 | LARGE | W | P | (j == low ? 0 : U);
    }
  }
  page_count = 24 + below(MAX_PAGES - 24);
  for (unsigned i = 0; i < page_count; ++i) {
    // The window's ends (step 5), and anywhere.
    static const uint32_t kEdges[] = {0xfffff000, 0xffffe000, 0x80000000, 0x7ffff000, 0xfff00000, 0x50000000};
    struct page page = {.linear = below(3) == 0 ? kEdges[below(6)] : below(1 << 20) << 12, .bytes = 4096, .rights = below(4) ? W : 0};
    page.physical = PAGES + (below((DATA_END - PAGES) >> 12) << 12);
    if (i % 16 == 0) page.physical = BIG_PAGE, page.bytes = 1 << 22, page.linear &= ~0x3fffffull;
    if (i % 16 == 1) page.physical = CODE_PAGE;
    if (i % 16 == 2) page.physical = NOTHING;
    if (below(2)) page.rights |= U;
    if (below(3) == 0) page.rights |= G;
    bool taken = page.linear < 0x4000000 || page.linear - ALIAS < 0x4000000;
    for (unsigned j = 0; j < i; ++j) {
      taken = taken || (page.linear >> 22 == pages[j].linear >> 22 && (page.bytes > 4096 || pages[j].bytes > 4096)) ||
              page.linear == pages[j].linear;
    }
    if (taken) {
      --page_count;
      --i;
      continue;
    }
    pages[i] = page;
    map(0, &page, true);
    if (!(page.rights & G) && page.bytes == 4096) page.physical = PAGES + (below((DATA_END - PAGES) >> 12) << 12);
    map(1, &page, page.rights & G || below(4));
  }
  const unsigned long cr4 = read_cr4();
  write_cr4(cr4 & ~(unsigned long)CR4_PGE);
  write_cr4(cr4);
}

static void switch_space(void) {
  space = below(2);
  write_cr3((unsigned long)directories[space]);
}

static void make_forms(bool avx) {
#define FORM(text, ...) forms[form_count++] = (struct form){CODE(text), __VA_ARGS__}
#define FORM16(text, ...) forms[form_count++] = (struct form){CODE_BITS("16", text), __VA_ARGS__}
  FORM("mov eax, [ebx]", "b", 4);
  FORM("mov eax, [ebx + " DISP "]", "d", 4);
  FORM("mov [ebx + " DISP "], eax", "d", 4, 0, STORE);
  FORM("mov [ebx + ecx * 2 + " DISP "], al", "d", 1, 2, STORE);
  FORM("mov eax, [ebx + ecx * 8 + " DISP "]", "d", 4, 8);
  FORM("mov [ebx + ecx * 8 + " DISP "], eax", "d", 4, 8, STORE);
  FORM("mov eax, [ebx + ecx]", "d", 4, 1, NO_DISPLACEMENT);
  FORM("mov eax, [ebx + ecx * 8]", "d", 4, 8, NO_DISPLACEMENT);
  FORM("mov eax, [ecx * 8 + " DISP "]", "d", 4, 8, NO_BASE);
  FORM("mov eax, [ecx * 8]", "d", 4, 8, NO_BASE | NO_DISPLACEMENT);
  FORM("mov eax, ds:[" DISP "]", "d", 4, 0, NO_BASE);
  FORM("mov eax, [ebp + " DISP "]", "d", 4, 0, 0);
  FORM("mov eax, fs:[ebx + " DISP "]", "d", 4, 0, SEGMENT);
  FORM("mov fs:[ebx + ecx * 4 + " DISP "], eax", "d", 4, 4, SEGMENT | STORE);
  FORM("stc; mov eax, [ebx + ecx * 4 + " DISP "]; setc dl", "d", 4, 4);
  FORM("movups xmm0, [ebx + " DISP "]; movd eax, xmm0; psrldq xmm0, 12; movd edx, xmm0", "d", 16, 0, TAIL);
  FORM("movups xmm0, [ebx + ecx * 8 + " DISP "]; movd eax, xmm0; psrldq xmm0, 12; movd edx, xmm0", "d", 16, 8, TAIL);
  FORM("xchg [ebx + " DISP "], eax", "d", 4, 0, STORE);
  FORM("mov esp, ebx; push eax", "p", 4, 0, STORE | ONLY_USER);
  FORM("mov esp, ebx; pop eax", "b", 4, 0, ONLY_USER);
  FORM("mov esi, ebx; lodsd", "b", 4);
  FORM("mov edi, ebx; stosd", "b", 4, 0, STORE);
  FORM("mov edi, ebx; mov ecx, 8; rep stosd", "b", 32, 0, STORE | REPEATED);
  FORM("mov esi, ebx; mov edi, ebp; mov ecx, 8; rep movsd; mov eax, [edi - 32]; mov edx, [edi - 4]", "b", 32, 0, TAIL | TO_SCRATCH);
  FORM("mov eax, [ebx]; add ebx, " STEP "; mov eax, [ebx + " DISP "]", "bs", 4);
  FORM("mov eax, [ecx]; mov eax, [ebx]; add ebx, " STEP "; add ebx, " STEP "; add ebx, " STEP "; add ebx, " STEP "; add ebx, " STEP "; mov eax, [ebx + " DISP "]", "xb5", 4);
  FORM("mov edi, 3; 1: mov eax, [ebx]; add ebx, " STEP "; dec edi; jnz 1b", "b12", 4);
  FORM("mov eax, [ebx]; mov edx, cr3; mov cr3, edx; mov eax, [ebx + " DISP "]", "bd", 4, 0, ONLY_KERNEL);
  FORM(".byte 0x67, 0x8b, 0x87; .word 0x7654", "d", 4, 1, WORD_ADDRESS);  // mov eax, [bx + displacement]
  FORM16("mov eax, [ebx + ecx * 8 + " DISP "]", "d", 4, 8, CODE16);
  FORM16(".byte 0x66, 0x8b, 0x87; .word 0x7654", "d", 4, 1, WORD_ADDRESS | CODE16);
  if (avx) {
    FORM("vmovups ymm0, [ebx + ecx * 4 + " DISP "]; vmovd eax, xmm0; vextracti128 xmm0, ymm0, 1; psrldq xmm0, 12; movd edx, xmm0", "d",
         32, 4, TAIL);
  }
  loop = (struct form){CODE("1: mov eax, [ebx]; dec ecx; jnz 1b"), "b", 4};
}

static uint64_t address_of(const struct copy* copy, char access, uint64_t base, uint64_t index) {
  const struct form* const form = copy->form;
  const uint32_t disp = form->flags & NO_DISPLACEMENT ? 0 : (uint32_t)copy->disp, step = (uint32_t)copy->step;
  uint32_t address = form->flags & NO_BASE ? 0 : (uint32_t)base;
  switch (access) {
    case 'd': address += (form->flags & WORD_ADDRESS ? 0 : (uint32_t)index * form->scale) + disp; break;
    case 's': address += step + disp; break;
    case '5': address += 5 * (uint32_t)copy->step + disp; break;
    case 'x': address = (uint32_t)index; break;
    case '1': address += step; break;
    case '2': address += 2 * step; break;
    case 'p': address -= form->size; break;
  }
  if (form->flags & WORD_ADDRESS) address = (uint16_t)address;
  return address + (uint32_t)copy->segment_base;
}

static bool fill_state(struct machine_state* state, const struct copy* copy, uint64_t base, uint64_t index) {
  const struct form* const form = copy->form;
  // What segments' limits say about the last bytes before 4 GiB, or 64 KiB, is not the subject.
  for (const char* access = form->accesses; *access; ++access) {
    const uint32_t offset = (uint32_t)(address_of(copy, *access, base, index) - copy->segment_base);
    if (offset > (form->flags & WORD_ADDRESS ? 0x10000 : 0) - form->size) return false;
  }
  const unsigned long alias = view_cpl ? ALIAS : 0;
  *state = (struct machine_state){.ax = 0x5a345678, .cx = (uint32_t)index, .bx = (uint32_t)base, .bp = (uint32_t)base};
  state->sp = STACK_TOP + alias;
  state->ip = copy->code + alias;
  if (form->flags & TO_SCRATCH) state->bp = SCRATCH + (view_cpl || view_ac ? ALIAS : 0);
  state->flags = FL_FIXED | (view_ac ? FL_AC : 0);
  state->cs = view_cpl ? UCODE : KCODE;
  state->ss = state->ds = state->es = view_cpl ? UDATA : KDATA;
  if (form->flags & CODE16) {
    gdt[CODE16_SELECTOR / 8] = descriptor(copy->code + alias, 0xffff, 0x9b | view_cpl << 5, 0);
    state->cs = CODE16_SELECTOR | view_cpl;
    state->ip = 0;
  }
  if (form->flags & SEGMENT) {
    gdt[FS_SELECTOR / 8] = descriptor((uint32_t)copy->segment_base, 0xfffff, 0xf3, GRANULAR | BIG);
    state->fs = FS_SELECTOR | 3;
  }
  return true;
}

static uint64_t some_index(void) {
  switch (below(4)) {
    case 0: return 0;
    case 1: return (uint32_t)random64();
    case 2: return (uint32_t)random64() >> below(32);
    default: return 0xffffffff - below(16);
  }
}

// The sum of base, index and displacement before it wraps may lead from the window to host memory (step 5).
static uint64_t some_target(void) {
  static const uint32_t kEdges[] = {0, 0x10000, 0x80000000, 0x7fff0000, 0xffff0000};
  switch (below(6)) {
    case 0: return (uint32_t)random64();
    case 1: return kEdges[below(sizeof kEdges / sizeof *kEdges)] + below(65) - 32;
    case 2: return (uint32_t)(some_window_address(some_host_address()));
    case 3: return (uint32_t)(some_page_address() + ((uint64_t)below(2) << 31));
    default: return (uint32_t)some_page_address();
  }
}

static uint64_t some_segment_base(void) {
  return below(2) ? (uint32_t)some_page_address() : (uint32_t)random64();
}

void guest_main(void) {
  default_gates();
  const bool avx = cpuid(7, 0).ebx & 1 << 5;
  write_cr4(read_cr4() | CR4_PSE | CR4_PGE | CR4_SMAP | (avx ? CR4_OSXSAVE : 0));
  if (avx) asm volatile("xsetbv" ::"c"(0), "a"(7), "d"(0));
  make_forms(avx);
  new_layout();
  write_cr3((unsigned long)directories[0]);
  write_cr0(read_cr0() | CR0_PG | CR0_WP);
  isolation_main();
}
