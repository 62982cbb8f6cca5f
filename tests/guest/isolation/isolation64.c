// Isolation in 64-bit mode (isolation.h), with two address spaces that keep their TLB entries by PCID. The numbered steps are those
// of mmu/README.md's proof.
#include "isolation.h"

extern uint64_t page_pml4[512], page_pdpt[512];
static uint64_t other_pml4[512] __attribute__((aligned(4096))), other_pdpt[512] __attribute__((aligned(4096)));
static uint64_t* const kRoots[2] = {page_pml4, other_pml4};

static bool is_canonical(uint64_t linear) {
  return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

static uint64_t* entry_at(uint64_t* table, uint64_t linear, unsigned level, bool make) {
  for (unsigned i = 0;; ++i) {
    uint64_t* const entry = &table[linear >> (39 - 9 * i) & 511];
    if (i == level || (*entry & LARGE && i > 0)) return entry;
    if (!(*entry & P)) {
      if (!make) return entry;
      *entry = new_table() | P | W | U;
    }
    table = (uint64_t*)(*entry & 0xffffffffff000);
  }
}

static uint64_t lookup(uint64_t linear, bool write) {
  uint64_t* table = kRoots[space];
  uint64_t rights = W | U;
  for (unsigned level = 0;; ++level) {
    const unsigned shift = 39 - 9 * level;
    const uint64_t entry = table[linear >> shift & 511];
    if (!(entry & P)) return NOT_MAPPED;
    rights &= entry;
    if (level < 3 && !(entry & LARGE && level > 0)) {
      table = (uint64_t*)(entry & 0xffffffffff000);
      continue;
    }
    if (view_cpl == 3 ? !(rights & U) : rights & U && !view_ac) return NOT_MAPPED;
    if (write && !(rights & W)) return NOT_MAPPED;
    const uint64_t mask = (1ull << shift) - 1;
    return (entry & 0xffffffffff000 & ~mask) | (linear & mask);
  }
}

static void map(unsigned in_space, const struct page* page, bool present) {
  uint64_t* const entry = entry_at(kRoots[in_space], page->linear, page->bytes == 4096 ? 3 : 2, true);
  *entry = page->physical | page->rights | (page->bytes == 4096 ? 0 : LARGE) | (present ? P : 0);
}

// Regions of 4 GiB that code has a right to, at the ends of both halves and in the middle (step 3).
static uint64_t some_region(void) {
  static const uint32_t kRegions[] = {1, 2, 9, 0x10, 0x11, 0x7f05, 0x7ffe, 0x7fff, 0xffff8000, 0xffff8001, 0xffff8880, 0xfffffffe,
                                      0xffffffff};
  const uint32_t region = below(3) ? kRegions[below(sizeof kRegions / sizeof *kRegions)]
                                   : 1 + below(0x7ffe) + (below(2) ? 0xffff8000 : 0);
  return (uint64_t)region << 32;
}

static void new_layout(void) {
  next_table = TABLES;
  for (unsigned i = 0; i < 2; ++i) {
    memset(kRoots[i] + 1, 0, 511 * 8);
    memset((i ? other_pdpt : page_pdpt) + 2, 0, 510 * 8);
  }
  memcpy(other_pdpt, page_pdpt, 16);
  other_pml4[0] = (unsigned long)other_pdpt | P | W | U;
  page_count = 24 + below(MAX_PAGES - 24);
  for (unsigned i = 0; i < page_count; ++i) {
    struct page page = {.linear = some_region(), .bytes = 4096, .rights = below(4) ? W : 0};
    const bool upper = page.linear >> 63;
    // The first and the last pages of regions (step 2), and others.
    static const uint32_t kOffsets[] = {0, 0xfffff000, 0x1000, 0xffffe000, 0x80000000, 0x7ffff000};
    page.linear += below(3) ? kOffsets[below(6)] : below(1 << 20) << 12;
    page.physical = PAGES + (below((DATA_END - PAGES) >> 12) << 12);
    if (i % 16 == 0) page.physical = BIG_PAGE + (below(2) << 21), page.bytes = 1 << 21, page.linear &= ~0x1fffffull;
    if (i % 16 == 1) page.physical = CODE_PAGE;
    if (i % 16 == 2) page.physical = NOTHING;
    if (below(8)) page.rights |= upper ? G : U;
    if (below(8) == 0) page.rights |= U;
    bool taken = false;
    for (unsigned j = 0; j < i; ++j) taken = taken || page.linear >> 21 == pages[j].linear >> 21;
    if (taken) page = pages[0];
    pages[i] = page;
    map(0, &page, true);
    // The other space has another page there, or none.
    if (!(page.rights & G) && !taken && page.bytes == 4096) page.physical = PAGES + (below((DATA_END - PAGES) >> 12) << 12);
    if (!taken) map(1, &page, page.rights & G || below(4));
  }
  map(1, &pages[0], true);
  const unsigned long cr4 = read_cr4();
  write_cr4(cr4 & ~(unsigned long)CR4_PGE);
  write_cr4(cr4);
}

static void switch_space(void) {
  space = below(2);
  write_cr3((unsigned long)kRoots[space] | (space + 1) | (below(4) ? 1ul << 63 : 0));
}

static void make_forms(bool avx) {
// With the flags in use afterwards, and free: the window comes from the table, or from a comparison.
#define FORM(text, ...)                                                      \
  forms[form_count++] = (struct form){CODE(text), __VA_ARGS__};              \
  forms[form_count++] = (struct form){CODE(text "; add ecx, 0"), __VA_ARGS__}
  FORM("mov rax, [rbx]", "b", 8);
  FORM("mov rax, [rbx + " DISP "]", "d", 8);
  FORM("mov [rbx + " DISP "], rax", "d", 8, 0, STORE);
  FORM("mov [rbx + rcx * 2 + " DISP "], al", "d", 1, 2, STORE);
  FORM("mov rax, [rbx + rcx * 8 + " DISP "]", "d", 8, 8);
  FORM("mov rax, [rcx * 4 + " DISP "]", "d", 8, 4, NO_BASE);
  FORM("mov rax, [rbp + " DISP "]", "d", 8, 0, STACK);
  FORM("mov rax, [ebx + ecx * 8 + " DISP "]", "d", 8, 8, NARROW);
  FORM("movabs rax, [0x1122334455667788]", "d", 8, 0, ABSOLUTE);
  FORM("mov rax, fs:[rbx + " DISP "]", "d", 8, 0, SEGMENT);
  FORM("stc; mov rax, [rbx + " DISP "]; setc dl", "d", 8);
  FORM("movups xmm0, [rbx + " DISP "]; movq rax, xmm0; psrldq xmm0, 8; movq rdx, xmm0", "d", 16, 0, TAIL);
  FORM("movups xmm0, [rbx + " DISP "]; movq rax, xmm0; psrldq xmm0, 8; movq rdx, xmm0; mov rdx, [rbx + " DISP "]", "d", 16);
  FORM("xchg [rbx + " DISP "], rax", "d", 8, 0, STORE);
  FORM("mov rsp, rbx; push rax", "p", 8, 0, STORE | STACK);
  FORM("mov rsp, rbx; pop rax", "b", 8, 0, STACK);
  FORM("mov rsi, rbx; lodsq", "b", 8);
  FORM("mov rdi, rbx; stosq", "b", 8, 0, STORE);
  FORM("mov rdi, rbx; mov ecx, 8; rep stosq", "b", 64, 0, STORE | REPEATED);
  FORM("mov rsi, rbx; mov rdi, r8; mov ecx, 8; rep movsq; mov rax, [rdi - 64]; mov rdx, [rdi - 8]", "b", 64, 0, TAIL);
  // A delta that is kept: the distance from the checked base grows by constants (step 2).
  FORM("mov rax, [rbx]; mov rax, [rbx + " DISP "]", "bd", 8);
  FORM("mov rax, [rbx]; add rbx, " STEP "; mov rax, [rbx + " DISP "]", "bs", 8);
  FORM("mov rax, [rbx]; mov rdi, rbx; add rdi, " STEP "; mov rax, [rdi + " DISP "]", "bs", 8);
  FORM("mov rax, [rcx]; mov rax, [rbx]; add rbx, " STEP "; add rbx, " STEP "; add rbx, " STEP "; add rbx, " STEP "; add rbx, " STEP "; mov rax, [rbx + " DISP "]", "xbf", 8);
  FORM("mov edi, 3; 1: mov rax, [rbx]; add rbx, " STEP "; dec edi; jnz 1b", "b12", 8);
  // From block to block.
  FORM("jmp 2f; 1: mov rax, [rbx + " DISP "]; jmp 3f; 2: mov rax, [rbx]; add rbx, " STEP "; jmp 1b; 3:", "bs", 8);
  FORM("mov edi, 8; jmp 2f; 1: add rbx, " STEP "; dec edi; jz 3f; 2: mov rax, [rbx]; jmp 1b; 3:", "b1234567", 8);
  // As far as three blocks could get if none checked: into the next chunk.
  FORM("jmp 3f; 1: add rbx, 16; mov rax, [rbx + 0x7ffffff0]; jmp 4f;"
       "2: mov rax, [rbx - 0x80000000]; add rbx, 0x7ffffff8; add rbx, 8; jmp 1b;"
       "3: mov rax, [rbx]; add rbx, 0x7ffffff8; add rbx, 8; jmp 2b; 4:", "bbt", 8);
  FORM("mov rsp, rbx; mov rax, [rsp]; add rsp, " STEP "; lea rdi, [rip + 1f]; jmp rdi; 1: mov rax, [rsp + " DISP "]", "bs", 8, 0, STACK);
  // Deltas do not outlive a flush (step 4).
  FORM("mov rax, [rbx]; mov rdx, cr3; mov cr3, rdx; mov rax, [rbx + " DISP "]", "bd", 8, 0, ONLY_KERNEL);
  FORM("mov rax, [rbx]; mov rdx, cr3; mov cr3, rdx; mov rdx, [rcx]; mov rax, [rbx]", "bxb", 8, 0, ONLY_KERNEL);
  if (avx) {
    FORM("vmovups ymm0, [rbx + " DISP "]; movq rax, xmm0; vextracti128 xmm0, ymm0, 1; psrldq xmm0, 8; movq rdx, xmm0", "d", 32, 0,
         TAIL);
  }
  loop = (struct form){CODE("1: mov rax, [rbx]; dec ecx; jnz 1b"), "b", 8};
}

static uint64_t address_of(const struct copy* copy, char access, uint64_t base, uint64_t index) {
  const unsigned flags = copy->form->flags;
  uint64_t address = flags & NO_BASE ? 0 : base;
  switch (access) {
    case 'd': address += index * copy->form->scale + (uint64_t)copy->disp; break;
    case 's': address += (uint64_t)copy->step + (uint64_t)copy->disp; break;
    case 'f': address += 5 * (uint64_t)copy->step + (uint64_t)copy->disp; break;
    case 'x': address = index; break;
    case 't': address += 3ull << 31; break;
    case '1' ... '9': address += (uint64_t)(access - '0') * (uint64_t)copy->step; break;
    case 'p': address -= copy->form->size; break;
  }
  if (flags & NARROW) address = (uint32_t)address;
  if (flags & ABSOLUTE) address = base;
  return address + copy->segment_base;
}

static bool fill_state(struct machine_state* state, const struct copy* copy, uint64_t base, uint64_t index) {
  *state = (struct machine_state){.ax = 0x5a5a5a5a12345678, .cx = index, .bx = base, .bp = base, .r8 = SCRATCH};
  state->sp = STACK_TOP + (view_cpl ? ALIAS : 0);
  if (view_cpl || view_ac) state->r8 += ALIAS;
  state->ip = copy->code + (view_cpl ? ALIAS : 0);
  state->flags = FL_FIXED | (view_ac ? FL_AC : 0);
  state->cs = view_cpl ? UCODE : KCODE;
  state->ss = view_cpl ? UDATA : KDATA;
  if (copy->form->flags & ABSOLUTE) memcpy((void*)(copy->code + 2), &base, 8);
  // AMD's processors want the offset to be canonical, too, in user code; Intel's do not.
  if (copy->form->flags & SEGMENT && !is_canonical(address_of(copy, 'd', base, index) - copy->segment_base)) return false;
  if (copy->form->flags & SEGMENT) write_msr(0xc0000100, copy->segment_base);
  return true;
}

static uint64_t some_index(void) {
  switch (below(5)) {
    case 0: return 0;
    case 1: return (uint64_t)(int64_t)(int32_t)random64();
    case 2: return random64() >> below(64);
    case 3: return some_page_address();
    default: return below(16);
  }
}

static uint64_t some_target(void) {
  static const uint64_t kEdges[] = {0, 1ull << 31, 1ull << 32, 1ull << 47, 0xffff800000000000, 0x800000000000, 1ull << 49,
                                    1ull << 61, 1ull << 62, 1ull << 63, 0xc000000000000000, 0x7fff00000000, 0x80000000ull << 32};
  switch (below(10)) {
    case 0: return random64();
    case 1: return (uint64_t)((int64_t)random64() >> 16);
    case 2: return kEdges[below(sizeof kEdges / sizeof *kEdges)] + (uint64_t)((int64_t)below(65) - 32);
    // The tag that nobody has, and tags that differ in a bit (step 1).
    case 3: return 0x80000000ull << 32 | (uint32_t)random64();
    case 4: return some_page_address() ^ 1ull << (32 + below(32));
    // Distances of guards and of cells (steps 2 and 5).
    case 5: return some_page_address() + ((uint64_t)((int64_t)below(9) - 4) << 32);
    case 6: return some_page_address() + ((uint64_t)((int64_t)below(9) - 4) << 31) + (uint64_t)((int64_t)below(65) - 32);
    // Host memory, and what a window's delta makes into it.
    case 7: return some_host_address();
    case 8: return some_window_address(some_host_address());
    default: return some_page_address();
  }
}

static uint64_t some_segment_base(void) {
  return (uint64_t)((int64_t)(some_page_address() << 16) >> 16);
}

void guest_main(void) {
  default_gates();
  const bool avx = cpuid(7, 0).ebx & 1 << 5;
  write_cr4(read_cr4() | CR4_PGE | CR4_PCIDE | CR4_SMAP | (avx ? CR4_OSXSAVE : 0));
  if (avx) asm volatile("xsetbv" ::"c"(0), "a"(7), "d"(0));
  make_forms(avx);
  isolation_main();
}
