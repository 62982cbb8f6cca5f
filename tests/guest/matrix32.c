// The access matrix of 32-bit paging (4 KiB and 4 MiB pages) and PAE paging (4 KiB and 2 MiB): as matrix64.c, whose first lines
// explain the answers.
#include "runtime/guest.h"

enum { P = 1, W = 2, U = 4, A = 32, D = 64, LARGE = 128 };
#define VA 0xc1c07000ul  // PDPTE 3
#define PAGE 0x1c07000ul
#define LDT_SELECTOR FREE_SELECTOR
#define USER_AREA 0x2c00000ul

static uint32_t* const kDirectory = (uint32_t*)FREE_PAGES;  // of 32-bit paging
static uint64_t* const kPdpt = (uint64_t*)(FREE_PAGES + 0x1000);
static uint64_t* const kPae = (uint64_t*)(FREE_PAGES + 0x2000);  // four page directories
#define TABLE (FREE_PAGES + 0x6000)

static bool pae, large, nxe;
static unsigned long target;
static uint64_t pde, pte;  // without addresses
static const uint64_t kNx = 1ull << 63, kReserved = 1ull << 51;

static void map_everything(void) {
  // The first gigabyte one to one; users have code and a stack from USER_AREA on.
  for (unsigned i = 0; i < 256; ++i) kDirectory[i] = i << 22 | P | W | LARGE | (i == USER_AREA >> 22 ? U : 0);
  // All of memory in small pages, which are there without CR4.PSE too.
  for (unsigned i = 0; i < 16; ++i) {
    uint32_t* const table = (uint32_t*)(FREE_PAGES + 0x8000 + i * 0x1000);
    kDirectory[i] = (uint32_t)table | P | W | U;
    for (unsigned j = 0; j < 1024; ++j) table[j] = i << 22 | j << 12 | P | W | (i == USER_AREA >> 22 ? U : 0);
  }
  for (unsigned i = 0; i < 512; ++i) kPae[i] = (uint64_t)i << 21 | P | W | LARGE | (i == USER_AREA >> 21 ? U : 0);
  for (unsigned i = 0; i < 4; ++i) kPdpt[i] = (uint64_t)(unsigned long)(kPae + 512 * i) | P;
}

static void choose(bool with_pae, bool with_large) {
  write_cr0(read_cr0() & ~(unsigned long)CR0_PG);
  pae = with_pae;
  large = with_large;
  write_cr4((read_cr4() & ~(unsigned long)CR4_PAE) | CR4_PSE | (pae ? CR4_PAE : 0));
  write_cr3(pae ? (unsigned long)kPdpt : (unsigned long)kDirectory);
  write_cr0(read_cr0() | CR0_PG);
  target = !large ? VA : pae ? (VA & ~0x1ffffful) | (PAGE & 0x1fffff) : (VA & ~0x3ffffful) | (PAGE & 0x3fffff);
  uint32_t* const page = (uint32_t*)PAGE;
  page[0] = 0x81cd;
  page[0x202] = 0x0000ffff;  // LDT from +800h: user data, accessed; the same, not accessed
  page[0x203] = 0x00cff300;
  page[0x204] = 0x0000ffff;
  gdt[LDT_SELECTOR / 8] = descriptor(target + 0x800, 0x17, 0x82, 0);
  asm volatile("lldt %0" ::"r"((uint16_t)LDT_SELECTOR));
}

static void set_entries(void) {
  const uint64_t leaf = large ? (pae ? PAGE & ~0x1ffffful : PAGE & ~0x3ffffful) | LARGE : TABLE;
  if (pae) {
    kPae[target >> 21] = pde | leaf;
    ((uint64_t*)TABLE)[target >> 12 & 511] = pte | PAGE;
  } else {
    kDirectory[target >> 22] = (uint32_t)(pde | leaf);
    ((uint32_t*)TABLE)[target >> 12 & 1023] = (uint32_t)(pte | PAGE);
  }
  write_cr3(read_cr3());
}

static uint64_t current(bool table) {
  if (pae) return table ? ((uint64_t*)TABLE)[target >> 12 & 511] : kPae[target >> 21];
  return table ? ((uint32_t*)TABLE)[target >> 12 & 1023] : kDirectory[target >> 22];
}

enum access { READ, WRITE, FETCH, IMPLICIT_READ, IMPLICIT_WRITE };

// The error code of the fault, or -1 (SDM vol. 3, 4.6 and 4.7). `control` is WP, SMEP, SMAP.
static int expected(enum access access, unsigned cpl, bool ac, unsigned control) {
  if (access == IMPLICIT_WRITE) {
    const int read_fault = expected(IMPLICIT_READ, cpl, ac, control);
    if (read_fault >= 0) return read_fault;
  }
  const bool write = access == WRITE || access == IMPLICIT_WRITE;
  const bool fetch = access == FETCH;
  const bool explicit = access <= FETCH;
  const bool user = cpl == 3 && explicit;
  const bool wp = control & 1, smep = control & 2, smap = control & 4, has_nx = pae && nxe;
  const int code = (write ? 2 : 0) | (user ? 4 : 0) | (fetch && (has_nx || smep) ? 16 : 0);
  bool all_writable = true, all_user = true, no_execute = false;
  for (unsigned level = 0; level < (large ? 1 : 2); ++level) {
    const uint64_t entry = level ? pte : pde;
    if (!(entry & P)) return code;
    if (pae && (entry & kReserved || (!nxe && entry & kNx))) return code | 9;
    if (!pae && large && entry & 1u << 21) return code | 9;
    all_writable = all_writable && entry & W;
    all_user = all_user && entry & U;
    no_execute = no_execute || (pae && entry & kNx);
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

// The same for the kernel and for users.
static const char *read_code[2], *write_code[2], *implicit_read_code[2], *implicit_write_code[2];
static bool right;

static void put_access(enum access access, unsigned cpl, unsigned flags, unsigned control) {
  ((uint32_t*)PAGE)[0x205] = 0x00cff200;
  set_entries();
  const bool user = cpl == 3;
  struct setup setup = {.cpl = cpl, .flags = flags, .di = target + 8, .sp = user ? USER_AREA + 0x80000 : 0};
  const char* code = 0;
  unsigned long cr2 = target + 8;
  switch (access) {
    case READ: code = read_code[user]; break;
    case WRITE: code = write_code[user]; break;
    case FETCH: setup.ip = cr2 = target; break;
    case IMPLICIT_READ: code = implicit_read_code[user]; cr2 = target + 0x808; break;
    case IMPLICIT_WRITE: code = implicit_write_code[user]; cr2 = target + 0x810; break;
  }
  run(code, setup);
  if (caught.vector == END) {
    say(".");
  } else if (caught.vector == PF) {
    say("%c", "0123456789abcdefghijklmnopqrstuv"[caught.error & 31]);
  } else {
    say("(%d)", caught.vector);
  }
  const uint64_t leaf = current(!large);
  const unsigned bits = (current(false) & A ? 1 : 0) | (!large && leaf & A ? 2 : 0) | (leaf & D ? 4 : 0);
  say("%c", '@' + bits);
  if (caught.vector == PF && (access == IMPLICIT_WRITE ? (caught.cr2 ^ cr2) >> 3 : caught.cr2 ^ cr2)) {
    say("!");
    right = false;
  }
  const int fault = expected(access, cpl, flags & FL_AC, control);
  right = right && (fault < 0 ? caught.vector == END : caught.vector == PF && (int)caught.error == fault);
  const unsigned all_accessed = large ? 1 : 3;
  if (fault < 0) right = right && bits == (access == WRITE || access == IMPLICIT_WRITE ? all_accessed | 4 : all_accessed);
}

static void put_controls(void) {
  for (unsigned level = 0; level < (large ? 1 : 2); ++level) {
    const uint64_t entry = level ? pte : pde;
    say("%s %s%s%s%s%s", level ? " PTE" : "PDE", entry & P ? "P" : "-", entry & W ? "W" : "-", entry & U ? "U" : "-",
        entry & kNx ? "X" : "-", entry & kReserved || (!pae && entry & 1u << 21) ? "R" : "");
  }
  say(":");
  right = true;
  for (unsigned control = 0; control < 8; ++control) {
    say(" ");
    write_cr0((read_cr0() & ~(unsigned long)CR0_WP) | (control & 1 ? CR0_WP : 0));
    const unsigned long cr4 = read_cr4() & ~(unsigned long)(CR4_SMEP | CR4_SMAP);
    write_cr4(cr4 | (control & 2 ? CR4_SMEP : 0) | (control & 4 ? CR4_SMAP : 0));
    for (enum access access = READ; access <= IMPLICIT_WRITE; ++access) {
      put_access(access, 0, 0, control);
      put_access(access, 0, FL_AC, control);
      put_access(access, 3, 0, control);
    }
    write_cr4(cr4);
  }
  say(right ? " ok\n" : " wrong\n");
}

static void rows(const char* name) {
  for (nxe = true;; nxe = false) {
    if (!nxe) write_msr(MSR_EFER, read_msr(MSR_EFER) & ~(uint64_t)EFER_NXE);
    if (nxe) write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
    say("-- %s%s\n", name, nxe ? "" : ", without EFER.NXE");
    const unsigned count = pae ? 32 : large ? 16 : 8;
    for (unsigned first = 0; first < count; ++first) {
      for (unsigned second = 0; second < (large ? 1 : count); ++second) {
        pde = (first & 7) | (pae ? (first & 8 ? kNx : 0) | (first & 16 ? kReserved : 0) : first & 8 ? 1u << 21 : 0);
        pte = (second & 7) | (pae ? (second & 8 ? kNx : 0) | (second & 16 ? kReserved : 0) : 0);
        put_controls();
      }
    }
    if (!nxe) break;
  }
}

static void single_bits(const char* name) {
  say("-- %s, single bits\n", name);
  write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
  nxe = true;
  for (unsigned level = 0; level < (large ? 1 : 2); ++level) {
    const bool leaf = large || level;
    for (unsigned bit = 3; bit < (pae ? 64 : 32); ++bit) {
      const unsigned address_from = !leaf || !large ? 12 : pae ? 21 : 22;
      if (bit >= address_from && bit < 48) continue;
      if (!pae && large && bit >= 13 && bit < 21) continue;  // physical bits 32 to 39
      if (bit == 7 && level == 0) continue;
      pde = pte = P | W | U;
      if (level) pte |= 1ull << bit; else pde |= 1ull << bit;
      say("level %d bit %d:", (unsigned long)level, (unsigned long)bit);
      for (enum access access = READ; access <= FETCH; ++access) {
        say(" ");
        put_access(access, 0, 0, 1);
        put_access(access, 3, 0, 1);
      }
      say("\n");
    }
  }
}

// Without CR4.PSE, bit 7 of a directory entry is ignored, and the entry leads to a table.
static void without_pse(void) {
  say("-- 32-bit paging without CR4.PSE\n");
  write_cr4(read_cr4() & ~(unsigned long)CR4_PSE);
  for (unsigned bits = 0; bits < 8; ++bits) {
    pde = LARGE | bits;
    pte = P | W | U;
    put_controls();
  }
  write_cr4(read_cr4() | CR4_PSE);
}

// PDPTEs are loaded by MOV to CR3 (and CR0, CR4), and faults come then (SDM vol. 3, 4.4.1).
static void pdptes(void) {
  say("-- PDPTEs\n");
  pde = pte = P | W | U;
  set_entries();
  const char* const load = CODE("mov eax, cr3; mov cr3, eax");
  for (unsigned bit = 1; bit < 64; ++bit) {
    if (bit >= 12 && bit < 48) continue;
    kPdpt[3] = (uint64_t)(unsigned long)(kPae + 512 * 3) | P | 1ull << bit;
    say("PDPTE 3 with bit %d: ", (unsigned long)bit);
    run(load, (struct setup){0});
    report("");
    kPdpt[3] &= ~1ull;
    say("the same, not present: ");
    run(load, (struct setup){0});
    report("");
    kPdpt[3] = (uint64_t)(unsigned long)(kPae + 512 * 3) | P;
    write_cr3(read_cr3());
  }
  kPdpt[3] = 0;
  say("PDPTE cleared in memory only: ");
  run(read_code[0], (struct setup){.di = target});
  report("");
  write_cr3(read_cr3());
  say("and loaded: ");
  run(read_code[0], (struct setup){.di = target});
  report("");
  run(read_code[1], (struct setup){.cpl = 3, .di = target, .sp = USER_AREA + 0x80000});
  say("at CPL 3: ");
  report("");
  kPdpt[3] = (uint64_t)(unsigned long)(kPae + 512 * 3) | P;
  say("set in memory only, INVLPG: ");
  invlpg(target);
  run(read_code[0], (struct setup){.di = target});
  report("");
  say("loaded by CR4.PGE: ");
  write_cr4(read_cr4() ^ CR4_PGE);
  write_cr4(read_cr4() ^ CR4_PGE);
  run(read_code[0], (struct setup){.di = target});
  report("");
}

void guest_main(void) {
  default_gates();
  char* next = (char*)USER_AREA;
#define BOTH_CODES(name, text) name[0] = CODE(text), memcpy(next, name[0], 64), name[1] = next, next += 64
  BOTH_CODES(read_code, "mov al, [edi]");
  BOTH_CODES(write_code, "mov [edi], al");
  BOTH_CODES(implicit_read_code, "mov eax, 0x0f; mov fs, eax");
  BOTH_CODES(implicit_write_code, "mov eax, 0x17; mov fs, eax");
  map_everything();
  choose(false, false);
  rows("32-bit paging, 4 KiB pages");
  single_bits("32-bit paging, 4 KiB pages");
  without_pse();
  choose(false, true);
  rows("32-bit paging, 4 MiB pages");
  single_bits("32-bit paging, 4 MiB pages");
  choose(true, false);
  rows("PAE paging, 4 KiB pages");
  single_bits("PAE paging, 4 KiB pages");
  pdptes();
  choose(true, true);
  rows("PAE paging, 2 MiB pages");
  single_bits("PAE paging, 2 MiB pages");
  finish();
}
