// Pages that one view of a shadow window may access and another may not: each check comes after somebody else's access to the page.
#include "runtime/guest.h"

extern uint64_t page_pml4[512];
enum { P = 1, W = 2, U = 4, G = 256 };
#define UPPER 0xffff800000001000ul
static uint64_t* const kTables = (uint64_t*)FREE_PAGES;

static void map(unsigned rights) {
  kTables[1024 + 1] = (FREE_PAGES + 0x10000) | P | rights;
  write_cr4(read_cr4() & ~(unsigned long)CR4_PGE);
  write_cr4(read_cr4() | CR4_PGE);
}

// ADD makes the flags of before free, so that a comparison can choose the window.
#define LOAD "mov eax, 1; mov eax, [rbx]; add ecx, 0"
#define STORE "mov eax, 1; mov [rbx], eax; add ecx, 0"
static void use(const char* name, const char* code, unsigned cpl, unsigned long flags) {
  check(name, code, (struct setup){.cpl = cpl, .bx = UPPER, .flags = flags, .show = "a"});
}

void guest_main(void) {
  default_gates();
  memset(kTables, 0, 0x3000);
  page_pml4[256] = (unsigned long)kTables | P | W | U;
  kTables[0] = (unsigned long)(kTables + 512) | P | W | U;
  kTables[512] = (unsigned long)(kTables + 1024) | P | W | U;
  *(uint32_t*)(FREE_PAGES + 0x10000) = 0x600d;

  say("-- the kernel's page in the upper half\n");
  map(W | G);
  use("the kernel loads", CODE(LOAD), 0, 0);
  use("the kernel stores", CODE(STORE), 0, 0);
  use("a user loads where the kernel did", CODE(LOAD), 3, 0);
  use("a user stores where the kernel did", CODE(STORE), 3, 0);
  map(G);
  use("the kernel loads what is read-only", CODE(LOAD), 0, 0);
  use("the kernel stores to what is read-only", CODE(STORE), 0, 0);
  write_cr0(read_cr0() & ~(unsigned long)CR0_WP);
  use("the kernel stores without WP", CODE(STORE), 0, 0);
  write_cr0(read_cr0() | CR0_WP);
  use("the kernel stores with WP again", CODE(STORE), 0, 0);

  write_cr4(read_cr4() | CR4_SMAP);
  for (unsigned global = 0; global <= G; global += G) {
    say("-- a user's page in the upper half%s\n", global ? ", global" : "");
    map(W | U | global);
    use("a user loads", CODE(LOAD), 3, 0);
    use("a user stores", CODE(STORE), 3, 0);
    use("the kernel loads with SMAP", CODE(LOAD), 0, 0);
    use("the kernel loads with SMAP lifted", CODE(LOAD), 0, FL_AC);
    use("the kernel loads with SMAP again", CODE(LOAD), 0, 0);
    use("the kernel stores with SMAP lifted", CODE(STORE), 0, FL_AC);
    use("the kernel stores with SMAP again", CODE(STORE), 0, 0);
  }
  finish();
}
