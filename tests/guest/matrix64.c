// The access matrix of 4-level paging: rights at every level, page sizes, CR0.WP, CR4.SMEP, CR4.SMAP, EFER.NXE, AC, CPL and kind
// of access. Each line is one set of paging-structure entries; its answer holds two characters an access: the page-fault error
// code (0 to 9, a to v), or a dot; then which accessed and dirty bits were set: bit 0 the PML4E, 1 the PDPTE, 2 the PDE, 3 the
// PTE, 4 dirty (@, then A to Z and on). "!" after them: CR2 is not the address. The line ends with "ok" when `expected`, which
// follows the manual's text, says the same.
#include "runtime/guest.h"

#define VA (1ul << 39 | 3ul << 30 | 5ul << 21 | 7ul << 12)
enum { P = 1, W = 2, U = 4, A = 32, D = 64, LARGE = 128 };
#define NX (1ul << 63)
#define RESERVED (1ul << 51)  // beyond any MAXPHYADDR in use
#define ALL (P | W | U)
#define LDT_SELECTOR FREE_SELECTOR

extern uint64_t page_pml4[512];
static uint64_t* const kTables[4] = {page_pml4, (uint64_t*)FREE_PAGES, (uint64_t*)(FREE_PAGES + 0x1000),
                                     (uint64_t*)(FREE_PAGES + 0x2000)};
// Low enough to be reached through a large page that maps physical memory from 0.
#define PAGE 0x1c07000ul
static unsigned levels;  // 4, 3, 2: pages of 4 KiB, 2 MiB, 1 GiB
static unsigned long target;
static uint64_t entries[4];

static uint64_t* entry_at(unsigned level) {
  return &kTables[level][target >> (39 - 9 * level) & 511];
}

// The linear address leads to the same page with all page sizes.
static void choose_size(unsigned size_levels) {
  levels = size_levels;
  target = levels == 4 ? VA : levels == 3 ? (VA & ~0x1ffffful) | (PAGE & 0x1fffff) : (VA & ~0x3ffffffful) | PAGE;
  uint64_t* const page = (uint64_t*)PAGE;
  page[0] = 0x81cd;                    // INT 81h
  page[0x101] = 0x00cff3000000ffff;    // LDT from +800h: user data, accessed; the same, not accessed
  gdt[LDT_SELECTOR / 8] = 0x0000820000000017 | ((target + 0x800) & 0xffffff) << 16 | ((target + 0x800) >> 24 & 0xff) << 56;
  gdt[LDT_SELECTOR / 8 + 1] = (target + 0x800) >> 32;
  asm volatile("lldt %0" ::"r"((uint16_t)LDT_SELECTOR));
}

static void set_entries(void) {
  for (unsigned level = 0; level < levels; ++level) {
    const bool leaf = level + 1 == levels;
    const uint64_t address = !leaf         ? (uint64_t)kTables[level + 1]
                             : levels == 4 ? PAGE
                             : levels == 3 ? (PAGE & ~0x1ffffful) | LARGE
                                           : LARGE;
    *entry_at(level) = entries[level] | address;
  }
  write_cr3(read_cr3());
}

enum access { READ, WRITE, FETCH, IMPLICIT_READ, IMPLICIT_WRITE };

// The error code of the fault, or -1 (SDM vol. 3, 4.6 and 4.7). `control` is WP, SMEP, SMAP.
static int expected(enum access access, unsigned cpl, bool ac, unsigned control, bool nxe) {
  if (access == IMPLICIT_WRITE) {  // the descriptor is read before its accessed bit is set
    const int read_fault = expected(IMPLICIT_READ, cpl, ac, control, nxe);
    if (read_fault >= 0) return read_fault;
  }
  const bool write = access == WRITE || access == IMPLICIT_WRITE;
  const bool fetch = access == FETCH;
  const bool explicit = access <= FETCH;
  const bool user = cpl == 3 && explicit;
  const bool wp = control & 1, smep = control & 2, smap = control & 4;
  const int code = (write ? 2 : 0) | (user ? 4 : 0) | (fetch && (nxe || smep) ? 16 : 0);
  bool all_writable = true, all_user = true, no_execute = false;
  for (unsigned level = 0; level < levels; ++level) {
    const uint64_t entry = entries[level];
    if (!(entry & P)) return code;
    if (entry & RESERVED || (!nxe && entry & NX)) return code | 9;
    all_writable = all_writable && entry & W;
    all_user = all_user && entry & U;
    no_execute = no_execute || entry & NX;
  }
  bool allowed;
  if (user) {
    allowed = all_user && !(write && !all_writable) && !(fetch && no_execute);
  } else if (fetch) {
    allowed = !no_execute && !(smep && all_user);
  } else {
    allowed = !(smap && all_user && !(explicit && ac)) && !(write && wp && !all_writable);
  }
  return allowed ? -1 : code | 1;
}

static const char *read_code, *write_code, *implicit_read_code, *implicit_write_code;

static bool right;  // so far in the line

static void put_access(enum access access, unsigned cpl, unsigned flags, unsigned control, bool nxe) {
  ((uint64_t*)PAGE)[0x102] = 0x00cff2000000ffff;
  set_entries();
  struct setup setup = {.cpl = cpl, .flags = flags, .di = target + 8};
  const char* code = 0;
  unsigned long cr2 = target + 8;
  switch (access) {
    case READ: code = read_code; break;
    case WRITE: code = write_code; break;
    case FETCH: setup.ip = cr2 = target; break;
    case IMPLICIT_READ: code = implicit_read_code; cr2 = target + 0x808; break;
    case IMPLICIT_WRITE: code = implicit_write_code; cr2 = target + 0x810; break;
  }
  run(code, setup);
  if (caught.vector == END) {
    say(".");
  } else if (caught.vector == PF) {
    say("%c", "0123456789abcdefghijklmnopqrstuv"[caught.error & 31]);
  } else {
    say("(%d)", caught.vector);
  }
  unsigned bits = 0;
  for (unsigned level = 0; level < levels; ++level) {
    const uint64_t entry = *entry_at(level);
    if (entry & A) bits |= 1 << level;
    if (level + 1 == levels && entry & D) bits |= 16;
  }
  say("%c", '@' + bits);
  if (caught.vector == PF && (access == IMPLICIT_WRITE ? (caught.cr2 ^ cr2) >> 3 : caught.cr2 ^ cr2)) {
    say("!");
    right = false;
  }
  const int fault = expected(access, cpl, flags & FL_AC, control, nxe);
  right = right && (fault < 0 ? caught.vector == END : caught.vector == PF && (int)caught.error == fault);
  const unsigned all_accessed = (1u << levels) - 1;
  if (fault < 0) right = right && bits == (access == WRITE || access == IMPLICIT_WRITE ? all_accessed | 16 : all_accessed);
}

static void put_controls(bool nxe) {
  static const char* const kNames[4] = {"PML4E", " PDPTE", " PDE", " PTE"};
  for (unsigned level = 0; level < levels; ++level) {
    const uint64_t entry = entries[level];
    say("%s %s%s%s%s%s", kNames[level], entry & P ? "P" : "-", entry & W ? "W" : "-", entry & U ? "U" : "-",
        entry & NX ? "X" : "-", entry & RESERVED ? "R" : "");
  }
  say(":");
  right = true;
  for (unsigned control = 0; control < 8; ++control) {
    say(" ");
    if (!nxe) write_msr(MSR_EFER, read_msr(MSR_EFER) & ~(uint64_t)EFER_NXE);
    write_cr0((read_cr0() & ~(unsigned long)CR0_WP) | (control & 1 ? CR0_WP : 0));
    const unsigned long cr4 = read_cr4() & ~(unsigned long)(CR4_SMEP | CR4_SMAP);
    write_cr4(cr4 | (control & 2 ? CR4_SMEP : 0) | (control & 4 ? CR4_SMAP : 0));
    for (enum access access = READ; access <= IMPLICIT_WRITE; ++access) {
      put_access(access, 0, 0, control, nxe);
      put_access(access, 0, FL_AC, control, nxe);
      put_access(access, 3, 0, control, nxe);
    }
    write_cr4(cr4);
  }
  write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
  say(right ? " ok\n" : " wrong\n");
}

static void all_open(void) {
  for (unsigned level = 0; level < 4; ++level) entries[level] = ALL;
}

static void rows_of_size(void) {
  static const char* const kSizes[5] = {0, 0, "1 GiB", "2 MiB", "4 KiB"};
  say("-- %s pages, one level\n", kSizes[levels]);
  for (unsigned level = 0; level < levels; ++level) {
    for (unsigned bits = 0; bits < 32; ++bits) {
      all_open();
      entries[level] = (bits & 7) | (bits & 8 ? NX : 0) | (bits & 16 ? RESERVED : 0);
      put_controls(true);
    }
  }
  say("-- %s pages, one level, without EFER.NXE\n", kSizes[levels]);
  for (unsigned level = 0; level < levels; ++level) {
    for (unsigned bits = 0; bits < 16; ++bits) {
      all_open();
      entries[level] = (bits & 7) | (bits & 8 ? NX : 0);
      put_controls(false);
    }
  }
  say("-- %s pages, rights at all levels\n", kSizes[levels]);
  for (unsigned bits = 0; bits < 1u << 3 * levels; ++bits) {
    // Three levels with XD somewhere say no more than two.
    unsigned no_execute = 0;
    for (unsigned level = 0; level < levels; ++level) {
      const unsigned rights = bits >> 3 * level;
      entries[level] = P | (rights & 1 ? 0 : W) | (rights & 2 ? 0 : U) | (rights & 4 ? NX : 0);
      no_execute += rights >> 2 & 1;
    }
    if (no_execute <= 1) put_controls(true);
  }
  say("-- %s pages, absent or reserved under what forbids\n", kSizes[levels]);
  for (unsigned level = 1; level < levels; ++level) {
    for (unsigned bits = 0; bits < 16; ++bits) {
      all_open();
      entries[level - 1] = P | (bits & 1 ? W : 0) | (bits & 2 ? U : 0) | (bits & 4 ? NX : 0);
      entries[level] = bits & 8 ? ALL | RESERVED : 0;
      put_controls(true);
    }
  }
}

// Each bit of each entry alone: ignored, an address, or reserved.
static void single_bits(void) {
  static const char* const kSizes[5] = {0, 0, "1 GiB", "2 MiB", "4 KiB"};
  say("-- %s pages, single bits\n", kSizes[levels]);
  for (unsigned level = 0; level < levels; ++level) {
    const bool leaf = level + 1 == levels;
    for (unsigned bit = 3; bit < 64; ++bit) {
      const unsigned address_from = leaf ? 39 - 9 * level : 12;
      // Between the two VMMs' MAXPHYADDR a bit is reserved or not; address bits below lead elsewhere.
      if (bit >= address_from && bit < 48) continue;
      if (bit == 7 && !leaf && level > 0) continue;
      if (bit == 7 && leaf && levels < 4) continue;
      all_open();
      entries[level] |= 1ul << bit;
      say("level %d bit %d:", (unsigned long)level, (unsigned long)bit);
      for (enum access access = READ; access <= FETCH; ++access) {
        say(" ");
        put_access(access, 0, 0, 1, true);
        put_access(access, 3, 0, 1, true);
      }
      say("\n");
    }
  }
}

void guest_main(void) {
  default_gates();
  read_code = CODE("mov al, [rdi]");
  write_code = CODE("mov [rdi], al");
  implicit_read_code = CODE("mov eax, 0x0f; mov fs, eax");
  implicit_write_code = CODE("mov eax, 0x17; mov fs, eax");
  memset((void*)FREE_PAGES, 0, 0x3000);
  for (unsigned size = 4; size >= 2; --size) {
    choose_size(size);
    rows_of_size();
    single_bits();
  }
  finish();
}
