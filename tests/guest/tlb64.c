// What must not stay in a TLB: a translation is used, changed in memory, flushed in one of the ways that the manual names (SDM
// vol. 3, 4.10.4), and used again. Each answer is the page that was reached.
#include "runtime/guest.h"

extern uint64_t page_pml4[512], page_pdpt[512];

enum { P = 1, W = 2, U = 4, A = 32, D = 64, LARGE = 128, G = 256 };
#define VA (1ul << 39)

// Page n: reading gives n, running it leaves n in EAX, and a write shows.
#define PAGES 0x1000000ul
static uint64_t page_of(unsigned n, unsigned size_levels) {
  return size_levels == 4 ? PAGES + n * 0x1000ul : size_levels == 3 ? PAGES + n * 0x200000ul : 0;
}
static void fill_page(uint64_t address, unsigned n) {
  memset((void*)address, 0, 0x1000);
  const uint64_t code = 0x81cd00000000b8ul | (uint64_t)n << 8;  // MOV EAX, n; INT 81h
  memcpy((void*)address, &code, 8);
}

static uint64_t* const kPdpt = (uint64_t*)FREE_PAGES;
static uint64_t* const kPd = (uint64_t*)(FREE_PAGES + 0x1000);
static uint64_t* const kPt = (uint64_t*)(FREE_PAGES + 0x2000);
static uint64_t* const kPt2 = (uint64_t*)(FREE_PAGES + 0x3000);
static uint64_t* const kPml4b = (uint64_t*)(FREE_PAGES + 0x4000);

static unsigned size;   // 4: 4 KiB, 3: 2 MiB
static unsigned rights;  // of all entries
static const char *read_code, *write_code;

static uint64_t* leaf(void) {
  return size == 4 ? &kPt[0] : &kPd[0];
}
static void map(unsigned n) {
  page_pml4[1] = (uint64_t)kPdpt | P | W | U;
  kPdpt[0] = (uint64_t)kPd | P | W | U;
  if (size == 4) kPd[0] = (uint64_t)kPt | P | W | U;
  *leaf() = page_of(n, size) | rights | (size == 3 ? LARGE : 0);
}

enum access { READ, WRITE, FETCH };
static const char* const kAccess[] = {"read", "write", "fetch"};

// The page that an access at `address` reaches, or what it raises.
static void access_and_say(enum access access, unsigned long address, unsigned cpl) {
  switch (access) {
    case READ: run(read_code, (struct setup){.cpl = cpl, .di = address + 1}); break;
    case WRITE:
      for (unsigned n = 0; n < 4; ++n) *(uint8_t*)(page_of(n, size) + 0x10) = 0;
      run(write_code, (struct setup){.cpl = cpl, .di = address + 0x10});
      break;
    case FETCH: run((const char*)address, (struct setup){.cpl = cpl, .ip = address}); break;
  }
  if (caught.vector != END) {
    say("#PF(%x)", caught.error);
    if (caught.vector != PF) say(" vector %d", caught.vector);
    return;
  }
  if (access == WRITE) {
    for (unsigned n = 0; n < 4; ++n) {
      if (*(uint8_t*)(page_of(n, size) + 0x10)) say("page %d", (unsigned long)n);
    }
    return;
  }
  say("page %d", caught.state.ax & 0xff);
}

static void use(enum access access, unsigned long address, unsigned cpl) {
  switch (access) {
    case READ: run(read_code, (struct setup){.cpl = cpl, .di = address + 1}); break;
    case WRITE: run(write_code, (struct setup){.cpl = cpl, .di = address + 0x10}); break;
    case FETCH: run((const char*)address, (struct setup){.cpl = cpl, .ip = address}); break;
  }
}

static void flush_by_invlpg(void) { invlpg(VA); }
static void flush_by_invlpg_elsewhere_in_page(void) { invlpg(VA + 0xfff); }
static void flush_by_cr3(void) { write_cr3(read_cr3()); }
static void flush_by_pge(void) {
  write_cr4(read_cr4() ^ CR4_PGE);
  write_cr4(read_cr4() ^ CR4_PGE);
}
static void flush_by_smep(void) {
  write_cr4(read_cr4() | CR4_SMEP);
  write_cr4(read_cr4() & ~(unsigned long)CR4_SMEP);
}
static void flush_by_other_tables(void) {
  const unsigned long cr3 = read_cr3();
  memcpy(kPml4b, page_pml4, 4096);
  kPml4b[1] = 0;
  write_cr3((unsigned long)kPml4b);
  write_cr3(cr3);
}
static void invpcid(unsigned long type, uint64_t pcid, uint64_t address) {
  const uint64_t descriptor[2] = {pcid, address};
  asm volatile("invpcid %0, %1" ::"r"(type), "m"(descriptor) : "memory");
}
static void flush_by_invpcid_0(void) { invpcid(0, 0, VA); }
static void flush_by_invpcid_1(void) { invpcid(1, 0, 0); }
static void flush_by_invpcid_2(void) { invpcid(2, 0, 0); }
static void flush_by_invpcid_3(void) { invpcid(3, 0, 0); }

static bool has_invpcid, has_pcid;

static void flushes(void) {
  static const struct {
    const char* name;
    void (*flush)(void);
    bool drops_global, needs_invpcid;
  } kWays[] = {
      {"INVLPG", flush_by_invlpg, true, false},
      {"INVLPG of the page's last byte", flush_by_invlpg_elsewhere_in_page, true, false},
      {"MOV to CR3", flush_by_cr3, false, false},
      {"CR4.PGE", flush_by_pge, true, false},
      {"CR4.SMEP set", flush_by_smep, false, false},
      {"other tables and back", flush_by_other_tables, false, false},
      {"INVPCID 0", flush_by_invpcid_0, false, true},
      {"INVPCID 1", flush_by_invpcid_1, false, true},
      {"INVPCID 2", flush_by_invpcid_2, true, true},
      {"INVPCID 3", flush_by_invpcid_3, false, true},
  };
  for (size = 4; size >= 3; --size) {
    for (unsigned global = 0; global < 2; ++global) {
      for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        say("-- %s pages%s, CPL %d\n", size == 4 ? "4 KiB" : "2 MiB", global ? ", global" : "", (unsigned long)cpl);
        rights = P | W | U | (global ? G : 0);
        if (global) write_cr4(read_cr4() | CR4_PGE);
        for (unsigned way = 0; way < sizeof kWays / sizeof *kWays; ++way) {
          if (global && !kWays[way].drops_global) continue;
          for (enum access access = READ; access <= FETCH; ++access) {
            say("%s, %s: ", kWays[way].name, kAccess[access]);
            if (kWays[way].needs_invpcid && !has_invpcid) {
              say("not offered\n");
              continue;
            }
            map(1);
            write_cr3(read_cr3());
            invlpg(VA);
            access_and_say(access, VA, cpl);
            for (enum access other = READ; other <= FETCH; ++other) use(other, VA, cpl);
            map(2);
            kWays[way].flush();
            say(", ");
            access_and_say(access, VA, cpl);
            *leaf() = 0;
            kWays[way].flush();
            say(", ");
            access_and_say(access, VA, cpl);
            map(3);  // what was not present is not cached
            say(", ");
            access_and_say(access, VA, cpl);
            *leaf() &= ~(uint64_t)(cpl == 3 ? U : access == WRITE ? W : P);
            kWays[way].flush();
            say(", ");
            access_and_say(access, VA, cpl);
            say("\n");
          }
        }
        write_cr4(read_cr4() & ~(unsigned long)CR4_PGE);
      }
    }
  }
}

static void without_flush(void) {
  size = 4;
  say("-- no flush needed\n");
  for (enum access access = READ; access <= FETCH; ++access) {
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
      rights = P | W | U;
      say("not accessed, %s, CPL %d: ", kAccess[access], (unsigned long)cpl);
      map(1);
      write_cr3(read_cr3());
      access_and_say(access, VA + 0x1000, cpl);  // fills upper levels, page not present
      kPt[1] = page_of(2, 4) | P | W | U;
      say(", ");
      access_and_say(access, VA + 0x1000, cpl);
      kPt[1] = 0;
      invlpg(VA + 0x1000);
      kPd[1] = 0;
      say(", ");
      access_and_say(access, VA + 0x200000, cpl);
      kPd[1] = (uint64_t)kPt2 | P | W | U;
      kPt2[0] = page_of(3, 4) | P | W | U;
      say(", ");
      access_and_say(access, VA + 0x200000, cpl);
      kPd[1] = 0;
      say("\n");
      write_cr3(read_cr3());
    }
  }
  say("-- a fault drops what raised it\n");
  write_cr3(read_cr3());
  rights = P | U;
  map(1);
  write_cr3(read_cr3());
  use(READ, VA, 0);
  use(WRITE, VA, 3);
  *leaf() |= W;
  use(WRITE, VA, 3);  // may fault once more
  say("made writable, the fault repeated at most once: ");
  access_and_say(WRITE, VA, 3);
  say("\n");
  rights = P | W;
  map(1);
  write_cr3(read_cr3());
  use(READ, VA, 0);
  use(READ, VA, 3);
  *leaf() |= U;
  use(READ, VA, 3);
  say("made a user page, the fault repeated at most once: ");
  access_and_say(READ, VA, 3);
  say("\n");
  rights = P | W | U;
  map(1);
  *leaf() |= 1ul << 63;
  write_cr3(read_cr3());
  use(READ, VA, 0);
  use(FETCH, VA, 0);
  *leaf() &= ~(1ul << 63);
  use(FETCH, VA, 0);
  say("made executable, the fault repeated at most once: ");
  access_and_say(FETCH, VA, 0);
  say("\n");
}

static void say_bits(const char* name) {
  say("%s: %s%s\n", name, *leaf() & A ? "A" : "-", *leaf() & D ? "D" : "-");
}

static void accessed_and_dirty(void) {
  for (size = 4; size >= 3; --size) {
    say("-- accessed and dirty bits, %s pages\n", size == 4 ? "4 KiB" : "2 MiB");
    rights = P | W | U;
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
      map(1);
      write_cr3(read_cr3());
      say_bits("nothing");
      use(READ, VA, cpl);
      say_bits("after a read");
      use(WRITE, VA, cpl);
      say_bits("after a read and a write");
      *leaf() &= ~(uint64_t)(A | D);
      invlpg(VA);
      use(FETCH, VA, cpl);
      say_bits("cleared, INVLPG, fetch");
      *leaf() &= ~(uint64_t)(A | D);
      invlpg(VA);
      use(WRITE, VA, cpl);
      say_bits("cleared, INVLPG, write");
      *leaf() &= ~(uint64_t)D;
      write_cr3(read_cr3());
      use(READ, VA, cpl);
      say_bits("dirty cleared, CR3, read");
      use(WRITE, VA, cpl);
      say_bits("then a write");
      *leaf() &= ~(uint64_t)(A | D);
      write_cr3(read_cr3());
      kPd[0] &= ~(uint64_t)A;
      kPdpt[0] &= ~(uint64_t)A;
      page_pml4[1] &= ~(uint64_t)A;
      invlpg(VA);
      use(READ, VA, cpl);
      say("upper levels: %s%s%s\n", page_pml4[1] & A ? "A" : "-", kPdpt[0] & A ? "A" : "-", kPd[0] & A ? "A" : "-");
      rights = P | U;
      map(1);
      write_cr0(read_cr0() & ~(unsigned long)CR0_WP);
      write_cr3(read_cr3());
      use(WRITE, VA, cpl);
      say_bits("write to a read-only page, WP clear");
      write_cr0(read_cr0() | CR0_WP);
      map(1);
      write_cr3(read_cr3());
      use(WRITE, VA, cpl);
      say_bits("write to a read-only page, WP set");
      rights = P | W | U;
      map(1);
      write_cr3(read_cr3());
      RUN("lock cmpxchg [rdi], ecx", .cpl = cpl, .di = VA + 0x20);  // does not match: writes back what it read
      say_bits("CMPXCHG that does not match");
      map(1);
      write_cr3(read_cr3());
      RUN("lock or dword ptr [rdi], 0", .cpl = cpl, .di = VA + 0x20);
      say_bits("OR of 0");
      map(1);
      write_cr3(read_cr3());
      RUN("xor ecx, ecx; rep stosb", .cpl = cpl, .di = VA + 0x20);
      say_bits("REP STOSB, RCX 0");
      RUN("mov ecx, 1; rep stosb", .cpl = cpl, .di = VA + 0x20);
      say_bits("REP STOSB, RCX 1");
      map(1);
      write_cr3(read_cr3());
      RUN("prefetcht0 [rdi]; nop dword ptr [rdi]; lea eax, [rdi]", .cpl = cpl, .di = VA + 0x20);
      say("PREFETCH, NOP, LEA: %s\n", *leaf() & D ? "D" : "not dirty");
    }
  }
}

static void large_pages(void) {
  say("-- split and join\n");
  rights = P | W | U;
  say("split, INVLPG of another address, code that ran: ");
  size = 3;
  map(1);
  fill_page(page_of(1, 3) + 0x2000, 7);
  write_cr3(read_cr3());
  for (unsigned i = 0; i < 3; ++i) access_and_say(FETCH, VA + 0x2000, 0);
  for (unsigned i = 0; i < 512; ++i) kPt[i] = page_of(i, 4) | P | W | U;
  kPd[0] = (uint64_t)kPt | P | W | U;
  invlpg(VA + 0x1ff000);
  say(", ");
  access_and_say(FETCH, VA + 0x2000, 0);
  say("\n");
  fill_page(page_of(1, 3) + 0x2000, 0);
  for (enum access access = READ; access <= FETCH; ++access) {
    size = 3;
    map(1);
    write_cr3(read_cr3());
    use(access, VA, 0);
    use(access, VA + 0x1000, 0);
    use(access, VA + 0x5000, 0);
    say("split, INVLPG of another address, %s: ", kAccess[access]);
    for (unsigned i = 0; i < 512; ++i) kPt[i] = page_of(i, 4) | P | W | U;
    kPd[0] = (uint64_t)kPt | P | W | U;
    invlpg(VA + 0x1ff000);
    size = 4;
    access_and_say(access, VA + 0x2000, 0);
    say(", ");
    access_and_say(access, VA + 0x1000, 0);
    say(", ");
    access_and_say(access, VA + 0x3000, 0);
    say("\n");
    say("joined, CR3, %s: ", kAccess[access]);
    size = 3;
    map(2);
    write_cr3(read_cr3());
    access_and_say(access, VA, 0);
    say("\n");
    say("table replaced, INVLPG of another address, %s: ", kAccess[access]);
    size = 4;
    for (unsigned i = 0; i < 512; ++i) kPt2[i] = page_of((i + 1) & 3, 4) | P | W | U;
    map(0);
    write_cr3(read_cr3());
    use(access, VA + 0x3000, 0);
    kPd[0] = (uint64_t)kPt2 | P | W | U;
    invlpg(VA + 0x3000);
    access_and_say(access, VA + 0x2000, 0);
    say(", ");
    access_and_say(access, VA + 0x3000, 0);
    say("\n");
    for (unsigned i = 0; i < 512; ++i) kPt[i] = 0;
  }
}

static void modes(void) {
  say("-- control bits that change rights take effect at once\n");
  size = 4;
  rights = P | U;
  map(1);
  write_cr3(read_cr3());
  say("CR0.WP cleared, then set: ");
  access_and_say(WRITE, VA, 0);
  write_cr0(read_cr0() & ~(unsigned long)CR0_WP);
  say(", ");
  access_and_say(WRITE, VA, 0);
  write_cr0(read_cr0() | CR0_WP);
  say(", ");
  access_and_say(WRITE, VA, 0);
  rights = P | W | U;
  map(1);
  write_cr3(read_cr3());
  say("\nCR4.SMEP: ");
  access_and_say(FETCH, VA, 0);
  write_cr4(read_cr4() | CR4_SMEP);
  say(", ");
  access_and_say(FETCH, VA, 0);
  write_cr4(read_cr4() & ~(unsigned long)CR4_SMEP);
  say(", ");
  access_and_say(FETCH, VA, 0);
  say("\nCR4.SMAP: ");
  access_and_say(READ, VA, 0);
  write_cr4(read_cr4() | CR4_SMAP);
  say(", ");
  access_and_say(READ, VA, 0);
  say(", ");
  run(read_code, (struct setup){.di = VA + 1, .flags = FL_AC});
  say("with AC %s, ", caught.vector == END ? "page 1" : "#PF");
  access_and_say(READ, VA, 0);
  RUN("stac; mov al, [rdi]; clac; mov al, [rdi]", .di = VA + 1);
  say(", after CLAC +%x, ", caught.vector == PF ? 1ul : 0ul);
  write_cr4(read_cr4() & ~(unsigned long)CR4_SMAP);
  access_and_say(READ, VA, 0);
  say("\nEFER.NXE cleared makes XD reserved: ");
  map(1);
  *leaf() |= 1ul << 63;
  write_cr3(read_cr3());
  access_and_say(READ, VA, 0);
  say(", ");
  access_and_say(FETCH, VA, 0);
  write_msr(MSR_EFER, read_msr(MSR_EFER) & ~(uint64_t)EFER_NXE);
  write_cr3(read_cr3());
  invlpg(VA);
  say(", ");
  access_and_say(READ, VA, 0);
  write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
  write_cr3(read_cr3());
  invlpg(VA);
  say(", ");
  access_and_say(READ, VA, 0);
  say("\n");
}

// Two address spaces with PCIDs 1 and 2 that map VA to pages 1 and 2.
static void pcids(void) {
  say("-- PCIDs\n");
  size = 4;
  rights = P | W | U;
  map(1);
  memcpy(kPml4b, page_pml4, 4096);
  uint64_t* const pdpt2 = (uint64_t*)(FREE_PAGES + 0x5000);
  uint64_t* const pd2 = (uint64_t*)(FREE_PAGES + 0x6000);
  memset(pdpt2, 0, 0x2000);
  kPml4b[1] = (uint64_t)pdpt2 | P | W | U;
  pdpt2[0] = (uint64_t)pd2 | P | W | U;
  pd2[0] = (uint64_t)kPt2 | P | W | U;
  kPt2[0] = page_of(2, 4) | P | W | U;
  const unsigned long first = (unsigned long)page_pml4 | 1, second = (unsigned long)kPml4b | 2, keep = 1ul << 63;
  write_cr3((unsigned long)page_pml4);
  if (has_pcid) write_cr4(read_cr4() | CR4_PCIDE);
  for (enum access access = READ; access <= FETCH; access += 2) {
    if (!has_pcid) break;
    say("two spaces, %s: ", kAccess[access]);
    map(1);
    write_cr3(first);
    access_and_say(access, VA, 0);
    write_cr3(second);
    say(", ");
    access_and_say(access, VA, 0);
    write_cr3(first | keep);
    say(", ");
    access_and_say(access, VA, 0);
    write_cr3(second | keep);
    say(", ");
    access_and_say(access, VA, 0);
    say("\n");
    static const struct {
      const char* name;
      unsigned kind;
    } kWays[] = {{"CR3 with the PCID", 0}, {"INVPCID 0", 1}, {"INVPCID 1", 2}, {"INVPCID 2", 3},
                              {"INVPCID 3", 4},         {"INVLPG there", 5}, {"CR4.PCIDE cleared and set", 6},
                              {"CR4.PGE", 7}};
    for (unsigned way = 0; way < sizeof kWays / sizeof *kWays; ++way) {
      say("%s, %s: ", kWays[way].name, kAccess[access]);
      map(1);
      write_cr3(first);
      access_and_say(access, VA, 0);
      write_cr3(second | keep);
      *leaf() = page_of(3, 4) | P | W | U;  // of the first space
      switch (kWays[way].kind) {
        case 0: write_cr3(first); break;
        case 1: invpcid(0, 1, VA); break;
        case 2: invpcid(1, 1, 0); break;
        case 3: invpcid(2, 0, 0); break;
        case 4: invpcid(3, 0, 0); break;
        case 5:
          write_cr3(first | keep);
          invlpg(VA);
          break;
        case 6:
          write_cr3((unsigned long)kPml4b);
          write_cr4(read_cr4() & ~(unsigned long)CR4_PCIDE);
          write_cr4(read_cr4() | CR4_PCIDE);
          break;
        case 7: flush_by_pge(); break;
      }
      write_cr3(first | keep);
      say(", ");
      access_and_say(access, VA, 0);
      write_cr3(second | keep);
      say(", ");
      access_and_say(access, VA, 0);
      say("\n");
    }
  }
  write_cr3((unsigned long)page_pml4);
  if (!has_pcid) return;
  CHECK("CR3 reads without bit 63", "mov rax, cr3; mov rbx, rax; bts rbx, 63; mov cr3, rbx; mov rcx, cr3; sub rcx, rax", .show = "c");
  CHECK("PCIDE cleared with a PCID in CR3", "mov rax, cr3; or rax, 5; mov cr3, rax; mov rax, cr4; btr rax, 17; mov cr4, rax;"
        "mov rax, cr3; and eax, 0xfff", .show = "a");
  write_cr4(read_cr4() & ~(unsigned long)CR4_PCIDE);
  write_cr3((unsigned long)page_pml4);
  CHECK("bit 63 without PCIDE", "mov rax, cr3; bts rax, 63; mov cr3, rax");
  CHECK("PCIDE with a PCID in CR3", "mov rbx, cr3; mov rax, rbx; or rax, 8; mov cr3, rax; mov rax, cr4; bts rax, 17; mov cr4, rax");
  write_cr3((unsigned long)page_pml4);
  CHECK("INVPCID 0 of a PCID without PCIDE", "mov qword ptr [rsi], 5; mov qword ptr [rsi + 8], 0; xor eax, eax; invpcid rax, [rsi]");
  CHECK("INVPCID 1 of a PCID without PCIDE", "mov qword ptr [rsi], 5; mov qword ptr [rsi + 8], 0; mov eax, 1; invpcid rax, [rsi]");
  CHECK("INVPCID 4", "mov qword ptr [rsi], 0; mov qword ptr [rsi + 8], 0; mov eax, 4; invpcid rax, [rsi]");
  CHECK("INVPCID, reserved bits", "mov qword ptr [rsi], 0x1000; mov qword ptr [rsi + 8], 0; mov eax, 2; invpcid rax, [rsi]");
  CHECK("INVPCID 0, not canonical", "mov qword ptr [rsi], 0; mov rax, 1; ror rax, 2; mov [rsi + 8], rax; xor eax, eax;"
        "invpcid rax, [rsi]");
  CHECK("INVPCID from nowhere", "mov esi, 0x20000000; mov eax, 2; invpcid rax, [rsi]");
  CHECK("INVPCID of a register", ".byte 0x66, 0x0f, 0x38, 0x82, 0xc1");
}

void guest_main(void) {
  default_gates();
  read_code = CODE("mov al, [rdi]");
  write_code = CODE("mov byte ptr [rdi], 1");
  has_invpcid = cpuid(7, 0).ebx >> 10 & 1;
  has_pcid = cpuid(1, 0).ecx >> 17 & 1;
  memset((void*)FREE_PAGES, 0, 0x8000);
  for (size = 4; size >= 3; --size) {
    for (unsigned n = 4; n-- > 0;) {
      for (unsigned long offset = 0; offset < 0x6000; offset += 0x1000) fill_page(page_of(n, size) + offset, n);
    }
  }
  for (unsigned n = 0; n < 4; ++n) fill_page(page_of(n, 4), n);
  flushes();
  without_flush();
  accessed_and_dirty();
  large_pages();
  modes();
  pcids();
  finish();
}
