// What must not stay in a TLB, as in tlb64.c, under 32-bit and PAE page tables.
#include "runtime/guest.h"

enum { P = 1, W = 2, U = 4, LARGE = 128, G = 256 };
#define VA 0xc0000000ul
#define PAGES 0x1000000ul

static uint32_t* const kDirectory = (uint32_t*)FREE_PAGES;
static uint32_t* const kOther = (uint32_t*)(FREE_PAGES + 0x1000);  // directory without VA
static uint32_t* const kTable = (uint32_t*)(FREE_PAGES + 0x2000);
static uint64_t* const kPdpt = (uint64_t*)(FREE_PAGES + 0x3000);
static uint64_t* const kOtherPdpt = (uint64_t*)(FREE_PAGES + 0x3100);
static uint64_t* const kPae = (uint64_t*)(FREE_PAGES + 0x4000);  // four directories
static uint64_t* const kPaeTable = (uint64_t*)(FREE_PAGES + 0x8000);

static bool pae, large;
static unsigned rights;
static const char *read_code, *write_code;

static unsigned long page_of(unsigned n) {
  return PAGES + n * (!large ? 0x1000ul : pae ? 0x200000ul : 0x400000ul);
}
static void fill_pages(void) {
  for (unsigned n = 1; n < 4; ++n) {
    memset((void*)page_of(n), 0, 0x1000);
    const uint64_t code = 0x81cd00000000b8ull | (uint64_t)n << 8;  // MOV EAX, n; INT 81h
    memcpy((void*)page_of(n), &code, 8);
  }
}

static void set_leaf(uint32_t entry) {
  if (pae) {
    kPae[VA >> 21] = large ? entry : (unsigned long)kPaeTable | P | W | U;
    kPaeTable[0] = large ? 0 : entry;
  } else {
    kDirectory[VA >> 22] = large ? entry : (unsigned long)kTable | P | W | U;
    kTable[0] = large ? 0 : entry;
  }
}
static void map(unsigned n, unsigned with_rights) {
  set_leaf(page_of(n) | with_rights | (large ? LARGE : 0));
}

static void choose(bool with_pae, bool with_large) {
  write_cr0(read_cr0() & ~(unsigned long)CR0_PG);
  pae = with_pae;
  large = with_large;
  memset((void*)FREE_PAGES, 0, 0x9000);
  // Memory one to one, for everybody.
  for (unsigned i = 0; i < 16; ++i) kDirectory[i] = kOther[i] = i << 22 | P | W | U | LARGE;
  for (unsigned i = 0; i < 32; ++i) kPae[i] = (uint64_t)i << 21 | P | W | U | LARGE;
  for (unsigned i = 0; i < 4; ++i) kPdpt[i] = (unsigned long)(kPae + 512 * i) | P;
  kOtherPdpt[0] = kPdpt[0];
  write_cr4((read_cr4() & ~(unsigned long)CR4_PAE) | CR4_PSE | (pae ? CR4_PAE : 0));
  write_cr3(pae ? (unsigned long)kPdpt : (unsigned long)kDirectory);
  write_cr0(read_cr0() | CR0_PG | CR0_WP);
  fill_pages();
}

enum access { READ, WRITE, FETCH };
static const char* const kAccess[] = {"read", "write", "fetch"};

static void use(enum access access, unsigned cpl) {
  switch (access) {
    case READ: run(read_code, (struct setup){.cpl = cpl, .di = VA + 1}); break;
    case WRITE: run(write_code, (struct setup){.cpl = cpl, .di = VA + 0x10}); break;
    case FETCH: run((const char*)VA, (struct setup){.cpl = cpl, .ip = VA}); break;
  }
}
static void use_and_say(enum access access, unsigned cpl) {
  for (unsigned n = 1; n < 4; ++n) *(uint8_t*)(page_of(n) + 0x10) = 0;
  use(access, cpl);
  if (caught.vector != END) {
    say("#PF(%x)", caught.error);
    if (caught.vector != PF || caught.cr2 >> 12 != VA >> 12) say(" vector %d cr2=%x", caught.vector, caught.cr2);
    return;
  }
  if (access != WRITE) {
    say("page %d", caught.state.ax & 0xff);
    return;
  }
  for (unsigned n = 1; n < 4; ++n) {
    if (*(uint8_t*)(page_of(n) + 0x10)) say("page %d", (unsigned long)n);
  }
}

static void flush_by_invlpg(void) { invlpg(VA); }
static void flush_by_invlpg_elsewhere(void) { invlpg(VA + 0xfff); }
static void flush_by_cr3(void) { write_cr3(read_cr3()); }
static void flush_by_pge(void) {
  write_cr4(read_cr4() ^ CR4_PGE);
  write_cr4(read_cr4() ^ CR4_PGE);
}
static void flush_by_pg(void) {
  write_cr0(read_cr0() & ~(unsigned long)CR0_PG);
  write_cr0(read_cr0() | CR0_PG);
}
static void flush_by_other_tables(void) {
  const unsigned long cr3 = read_cr3();
  write_cr3(pae ? (unsigned long)kOtherPdpt : (unsigned long)kOther);
  write_cr3(cr3);
}

static void flushes(void) {
  static const struct {
    const char* name;
    void (*flush)(void);
    bool drops_global;
  } kWays[] = {{"INVLPG", flush_by_invlpg, true},     {"INVLPG of the page's last byte", flush_by_invlpg_elsewhere, true},
               {"MOV to CR3", flush_by_cr3, false},   {"CR4.PGE", flush_by_pge, true},
               {"CR0.PG", flush_by_pg, true},         {"other tables and back", flush_by_other_tables, false}};
  for (unsigned global = 0; global < 2; ++global) {
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
      say("-- %s paging, %s pages%s, CPL %d\n", pae ? "PAE" : "32-bit", large ? "large" : "4 KiB", global ? ", global" : "",
          (unsigned long)cpl);
      rights = P | W | U | (global ? G : 0);
      if (global) write_cr4(read_cr4() | CR4_PGE);
      for (unsigned way = 0; way < sizeof kWays / sizeof *kWays; ++way) {
        if (global && !kWays[way].drops_global) continue;
        for (enum access access = READ; access <= FETCH; ++access) {
          say("%s, %s: ", kWays[way].name, kAccess[access]);
          map(1, rights);
          flush_by_pge();
          use_and_say(access, cpl);
          for (enum access other = READ; other <= FETCH; ++other) use(other, cpl);
          map(2, rights);
          kWays[way].flush();
          say(", ");
          use_and_say(access, cpl);
          set_leaf(0);
          kWays[way].flush();
          say(", ");
          use_and_say(access, cpl);
          map(3, rights);  // what was not present is not cached
          say(", ");
          use_and_say(access, cpl);
          map(3, rights & ~(unsigned)(cpl == 3 ? U : access == WRITE ? W : P));
          kWays[way].flush();
          say(", ");
          use_and_say(access, cpl);
          map(1, rights & ~(unsigned)W);
          kWays[way].flush();
          say(", read-only ");
          use_and_say(access, cpl);
          say("\n");
        }
      }
      write_cr4(read_cr4() & ~(unsigned long)CR4_PGE);
    }
  }
}

// A page of the kernel's is not a user's, whoever came first; nor with CR0.WP what it is without.
static void views(void) {
  say("-- views, %s paging, %s pages\n", pae ? "PAE" : "32-bit", large ? "large" : "4 KiB");
  for (enum access access = READ; access <= FETCH; ++access) {
    say("the kernel's page, %s: ", kAccess[access]);
    map(1, P | W);
    flush_by_cr3();
    use_and_say(access, 0);
    say(", ");
    use_and_say(access, 3);
    say(", ");
    use_and_say(access, 0);
    say("\n");
    say("a user's read-only page, %s: ", kAccess[access]);
    map(1, P | U);
    flush_by_cr3();
    write_cr0(read_cr0() & ~(unsigned long)CR0_WP);
    use_and_say(access, 0);
    say(", ");
    use_and_say(access, 3);
    write_cr0(read_cr0() | CR0_WP);
    say(", ");
    use_and_say(access, 0);
    say("\n");
  }
}

// Two systems of tables, switched again and again.
static void spaces(void) {
  say("-- two spaces, %s paging, %s pages\n", pae ? "PAE" : "32-bit", large ? "large" : "4 KiB");
  const unsigned long first = read_cr3(), second = pae ? (unsigned long)kOtherPdpt : (unsigned long)kOther;
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    for (enum access access = READ; access <= FETCH; ++access) {
      say("%s, CPL %d: ", kAccess[access], (unsigned long)cpl);
      map(1, P | W | U);
      write_cr3(first);
      for (unsigned round = 0; round < 3; ++round) {
        use_and_say(access, cpl);
        write_cr3(second);
        say(", ");
        use_and_say(access, cpl);
        write_cr3(first);
        say(", ");
      }
      use_and_say(access, cpl);
      say("\n");
    }
  }
}

void guest_main(void) {
  default_gates();
  read_code = CODE("movzx eax, byte ptr [edi]");
  write_code = CODE("mov byte ptr [edi], 1");
  for (unsigned kind = 0; kind < 4; ++kind) {
    choose(kind & 2, kind & 1);
    flushes();
    views();
    spaces();
  }
  finish();
}
