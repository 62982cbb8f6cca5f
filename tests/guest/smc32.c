// Code that changes, as in smc64.c, in 32-bit and 16-bit segments, with bases, in virtual-8086 mode, and under 32-bit and PAE
// page tables. EBX leads to the code's first byte.
#include "runtime/guest.h"

enum { P = 1, W = 2, U = 4 };
enum { CODE_SELECTOR = FREE_SELECTOR, DATA_SELECTOR = FREE_SELECTOR + 8, ALIAS_SELECTOR = FREE_SELECTOR + 16 };
#define AREA 0x20000u  // below 1 MiB for virtual-8086 mode
#define DATA_OFFSET 0x4000u

static const struct mode {
  const char* name;
  bool wide, v8086;
  uint32_t base;
  unsigned cpl;
} kModes[] = {
    {"32-bit code", true, false, 0, 0},
    {"32-bit code, CPL 3", true, false, 0, 3},
    {"32-bit code in a segment with a base", true, false, AREA, 0},
    {"16-bit code", false, false, AREA, 0},
    {"16-bit code, CPL 3", false, false, AREA, 3},
    {"16-bit code in a segment with an odd base", false, false, AREA - 5, 0},
    {"virtual-8086 mode", false, true, AREA, 3},
};
static const struct mode* mode;

static void choose(const struct mode* chosen) {
  mode = chosen;
  const unsigned dpl = mode->cpl << 5;
  gdt[CODE_SELECTOR / 8] = descriptor(mode->base, 0xfffff, 0x9b | dpl, mode->wide ? GRANULAR | BIG : 0);
  gdt[DATA_SELECTOR / 8] = descriptor(mode->base, 0xfffff, 0x93 | dpl, GRANULAR | BIG);
  gdt[ALIAS_SELECTOR / 8] = descriptor(mode->base - 0x1000, 0xfffff, 0x93 | dpl, GRANULAR | BIG);
}

// `offset` is the place in AREA.
static void run_copy(const char* name, const char* code, unsigned offset, struct setup setup) {
  memset((void*)AREA, 0xf4, 0x6000);
  memcpy((void*)(AREA + offset), code, 0x200);
  const uint32_t start = AREA + offset - mode->base;
  setup.cpl = mode->cpl;
  setup.ip = setup.bx = start;
  setup.di = start + 0x800;
  if (mode->v8086) {
    setup.cs = setup.ds = setup.ss = AREA / 16;
    setup.fs = AREA / 16 - 0x100;
    setup.flags |= FL_VM | FL_IOPL;
  } else {
    setup.cs = CODE_SELECTOR | mode->cpl;
    setup.ds = setup.ss = DATA_SELECTOR | mode->cpl;
    setup.fs = ALIAS_SELECTOR | mode->cpl;
  }
  setup.sp = AREA + DATA_OFFSET - mode->base;
  run(code, setup);
  say("%s: ", name);
  if (caught.vector == END) {
    say("done");
  } else {
    say("vector %x(%x) +%x", caught.vector, caught.error, caught.state.ip - start);
  }
  say(" ax=%x cx=%x dx=%x\n", caught.state.ax, caught.state.cx, caught.state.dx);
}

// The same text as 32-bit and as 16-bit code.
#define COPY(name, text)                                                                              \
  run_copy(name, mode->wide ? CODE("0:" text) : CODE_BITS("16", "0:" text), 0x100, (struct setup){0})
// Addresses of the width that the code has: [ebx + label] or [bx + label].
#define STORE(name, before, after)                                                                    \
  run_copy(name, mode->wide ? CODE("0:" before "[ebx + " after) : CODE_BITS("16", "0:" before "[bx + " after), 0x100, \
           (struct setup){0})

static void stores(void) {
  say("-- %s\n", mode->name);
  STORE("next instruction, immediate", "mov byte ptr ", "1f - 0b + 1], 0x22; 1: mov al, 0x11");
  STORE("next instruction, opcode", "mov byte ptr ", "1f - 0b], 0xb1; 1: mov al, 0x11");
  STORE("next instruction, prefix", "mov byte ptr ", "1f - 0b], 0x66; 1: nop; mov ax, 0x3344; nop; nop");
  STORE("next instruction, invalid", "mov word ptr ", "1f - 0b], 0x0b0f; 1: mov ax, 0x11");
  STORE("next instruction, a jump", "mov word ptr ", "1f - 0b], 0x01eb; 1: nop; nop; inc ax; inc dx");
  STORE("ADD", "add byte ptr ", "1f - 0b + 1], 0x22; 1: mov al, 0x11");
  STORE("LOCK INC", "lock inc byte ptr ", "1f - 0b + 1]; 1: mov al, 0x11");
  STORE("XCHG", "xchg cl, ", "1f - 0b + 1]; 1: mov al, 0x11");
  STORE("POP to memory", "pushw 0x9022; pop word ptr ", "1f - 0b + 1]; 1: mov al, 0x11; nop");
  STORE("MOVQ", "movq xmm0, qword ptr [ebx + 2f - 0b]; movq qword ptr ",
        "1f - 0b], xmm0; 1: mov al, 0x11; .fill 6, 1, 0x90; jmp 3f; 2: mov al, 0x22; .fill 6, 1, 0x90; 3:");
  STORE("through another segment", "mov byte ptr fs:", "1f - 0b + 0x1001], 0x22; 1: mov al, 0x11");
  STORE("word through another segment", "mov word ptr fs:", "1f - 0b + 0x1001], 0x9022; 1: mov al, 0x11; nop; mov dl, 5");
  STORE("FISTP", "fld1; fistp word ptr ", "1f - 0b + 1]; 1: mov al, 0x11; mov dl, 5");
  COPY("PUSH", "mov ebp, esp; lea esp, [ebx + 1f - 0b + 2]; pushw 0x22b0; 1: .fill 6, 1, 0x90; mov esp, ebp");
  COPY("CALL", "mov ebp, esp; xor edx, edx; lea esp, [ebx + 3f - 0b + 4]; call 1f; 2: inc dx; jmp 4f; 1: ret; 3: .long 0; 4: mov esp, ebp");
  COPY("MOVSB", "lea esi, [ebx + 2f - 0b]; lea edi, [ebx + 1f - 0b + 1]; push ds; pop es; movsb; 1: mov al, 0x11; jmp 3f;"
       "2: .byte 0x22; 3:");
  COPY("REP MOVSB over itself with the same", "lea edi, [ebx + 1f - 0b]; lea esi, [ebx + 2f - 0b]; push ds; pop es; mov ecx, 6;"
       "1: rep movsb; mov al, 0x11; nop; nop; jmp 3f; 2: rep movsb; mov al, 0x22; nop; nop; 3:");
  COPY("REP MOVSB over itself with NOPs", "lea edi, [ebx + 1f - 0b]; lea esi, [ebx + 2f - 0b]; push ds; pop es; mov ecx, 6;"
       "1: rep movsb; mov al, 0x11; nop; nop; jmp 3f; 2: nop; nop; mov al, 0x22; nop; nop; 3:");
  COPY("REP STOSB over what follows", "lea edi, [ebx + 1f - 0b]; push ds; pop es; mov ax, 0x90; mov ecx, 0x20; rep stosb;"
       "1: .fill 0x20, 1, 0xf4");
  COPY("REP STOSW backwards over itself", "lea edi, [ebx + 1f - 0b]; push ds; pop es; mov ax, 0x9090; mov ecx, 8; std; rep stosw;"
       ".fill 6, 1, 0x90; 1: nop; nop; nop; cld");
}

static void loops(void) {
  COPY("an immediate that counts", "xor cx, cx; xor dx, dx; 1: mov al, 0; add dl, al; adc dh, 0; inc byte ptr [ebx + 1b - 0b + 1];"
       "inc cx; cmp cx, 3000; jb 1b");
  COPY("a ModRM byte that alternates", "xor cx, cx; 1: xor byte ptr [ebx + 2f - 0b + 1], 8; 2: .byte 0xfe, 0xc2; inc cx;"
       "cmp cx, 101; jb 1b");
  COPY("a function rewritten by its caller", "xor cx, cx; xor dx, dx; jmp 2f; 1: mov al, 0x11; ret; 2: mov [ebx + 1b - 0b + 1], cl;"
       "call 1b; add dl, al; adc dh, 0; inc cx; cmp cx, 500; jb 2b");
  COPY("a function rewritten through another segment", "xor cx, cx; xor dx, dx; jmp 2f; 1: mov al, 0x11; ret;"
       "2: mov fs:[ebx + 1b - 0b + 0x1001], cl; call 1b; add dl, al; adc dh, 0; inc cx; cmp cx, 500; jb 2b");
  COPY("data next to the code, often", "xor cx, cx; 1: mov [ebx + 0x600], cx; mov ax, [ebx + 0x600]; inc cx; cmp cx, 3000; jb 1b");
  COPY("the stack in the code's page", "mov ebp, esp; lea esp, [ebx + 0x700]; xor cx, cx; 1: push cx; pop ax; call 2f; inc cx;"
       "cmp cx, 1000; jb 1b; jmp 3f; 2: ret; 3: mov esp, ebp");
}

static void across_pages(void) {
  for (unsigned before = 1; before <= 5; ++before) {
    say("%d bytes in the first page: ", (unsigned long)before);
    // A store and a jump, 9 bytes or 10, then the instruction that straddles the pages.
    const char* const code =
        mode->wide ? CODE("0: mov byte ptr [ebx + 1f - 0b + 2], 0x22; jmp 1f; 1: lea eax, [ecx + 0x12345678]; lea edx, [eax + 1]")
                   : CODE_BITS("16", "0: mov byte ptr [bx + 1f - 0b + 3], 0x22; jmp 1f; 1: mov eax, 0x12345678; mov dx, ax");
    const unsigned length = mode->wide ? 6 : 6;
    run_copy("immediate", code, 0x1000 - before - length, (struct setup){.cx = 0x100});
  }
}

// --- page tables

static uint32_t* const kDirectory = (uint32_t*)FREE_PAGES;
static uint64_t* const kPdpt = (uint64_t*)(FREE_PAGES + 0x1000);
static uint64_t* const kPae = (uint64_t*)(FREE_PAGES + 0x2000);  // four page directories
#define TABLE (FREE_PAGES + 0x6000)
#define VA 0x40000000u
#define FRAME(n) (FREE_PAGES + 0x10000ul + (n) * 0x1000ul)

static bool pae;
static void map(unsigned page, unsigned frame) {
  if (pae) {
    ((uint64_t*)TABLE)[page] = FRAME(frame) | P | W | U;
  } else {
    ((uint32_t*)TABLE)[page] = FRAME(frame) | P | W | U;
  }
  invlpg(VA + page * 0x1000u);
}

static void page_tables(void) {
  memset((void*)FREE_PAGES, 0, 0x8000);
  for (unsigned i = 0; i < 256; ++i) kDirectory[i] = i << 22 | P | W | 128;
  for (unsigned i = 0; i < 512; ++i) kPae[i] = (uint64_t)i << 21 | P | W | 128;
  for (unsigned i = 0; i < 4; ++i) kPdpt[i] = (uint64_t)(unsigned long)(kPae + 512 * i) | P;
  kDirectory[VA >> 22] = TABLE | P | W | U;
  kPae[VA >> 21] = TABLE | P | W | U;
  for (unsigned with_pae = 0; with_pae < 2; ++with_pae) {
    pae = with_pae;
    say(pae ? "-- PAE paging\n" : "-- 32-bit paging\n");
    memset((void*)TABLE, 0, 0x1000);
    write_cr4((read_cr4() & ~(unsigned long)CR4_PAE) | CR4_PSE | (pae ? CR4_PAE : 0));
    write_cr3(pae ? (unsigned long)kPdpt : (unsigned long)kDirectory);
    write_cr0(read_cr0() | CR0_PG);
    map(0, 0);
    map(1, 0);
    // INC [EDI]; MOV EAX, 11h; INT 81h: the next instruction through the other page.
    static const uint8_t kOwn[] = {0xff, 0x07, 0xb8, 0x11, 0, 0, 0, 0xcd, 0x81};
    memcpy((void*)FRAME(0), kOwn, sizeof kOwn);
    for (unsigned round = 0; round < 3; ++round) {
      say("next instruction through the other page: ");
      run((const char*)0, (struct setup){.ip = VA, .di = VA + 0x1003});
      report("a");
      say("next instruction through linear memory: ");
      run((const char*)0, (struct setup){.ip = VA + 0x1000, .di = FRAME(0) + 3});
      report("a");
    }
    // MOV [EDI], EAX; INVLPG [EDX]; MOV ECX, n; INT 81h
    static const uint8_t kChange[] = {0x89, 0x07, 0x0f, 0x01, 0x3a, 0xb9, 0, 0, 0, 0, 0xcd, 0x81};
    for (unsigned frame = 0; frame < 3; ++frame) {
      memcpy((void*)FRAME(frame), kChange, sizeof kChange);
      *(uint32_t*)(FRAME(frame) + 6) = 0x1000 * (frame + 1);
    }
    for (unsigned frame = 0; frame < 6; ++frame) {
      say("entry and INVLPG: ");
      run((const char*)0, (struct setup){.ip = VA, .di = TABLE, .dx = VA, .ax = FRAME((frame + 1) % 3) | P | W | U});
      report("c");
    }
    // MOV [EDI], EAX; MOV EAX, CR3; MOV CR3, EAX; MOV ECX, n; INT 81h
    static const uint8_t kReload[] = {0x89, 0x07, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0xb9, 0, 0, 0, 0, 0xcd, 0x81};
    for (unsigned frame = 0; frame < 3; ++frame) {
      memcpy((void*)FRAME(frame), kReload, sizeof kReload);
      *(uint32_t*)(FRAME(frame) + 9) = 0x1000 * (frame + 1);
    }
    map(0, 0);
    for (unsigned frame = 0; frame < 6; ++frame) {
      say("entry and MOV CR3: ");
      run((const char*)0, (struct setup){.ip = VA, .di = TABLE, .dx = VA, .ax = FRAME((frame + 1) % 3) | P | W | U});
      report("c");
    }
    write_cr0(read_cr0() & ~(unsigned long)CR0_PG);
  }
  write_cr4(read_cr4() & ~(unsigned long)CR4_PAE);
  // The same linear address with and without paging.
  say("-- paging switched on and off\n");
  write_cr3((unsigned long)kDirectory);
  pae = false;
  static const uint8_t kValue[] = {0xb8, 0x11, 0, 0, 0, 0xcd, 0x81};
  memcpy((void*)0x2800000, kValue, sizeof kValue);
  memcpy((void*)FRAME(2), kValue, sizeof kValue);
  *(uint8_t*)(FRAME(2) + 1) = 0x22;
  kDirectory[0x2800000 >> 22] = TABLE | P | W | U;
  ((uint32_t*)TABLE)[0] = FRAME(2) | P | W | U;
  for (unsigned round = 0; round < 4; ++round) {
    write_cr0(round & 1 ? read_cr0() | CR0_PG : read_cr0() & ~(unsigned long)CR0_PG);
    say("paging %d: ", (unsigned long)(round & 1));
    run((const char*)0, (struct setup){.ip = 0x2800000});
    report("a");
  }
  write_cr0(read_cr0() & ~(unsigned long)CR0_PG);
}

void guest_main(void) {
  default_gates();
  *(uint32_t*)(tss + 4) = STACK_TOP - 0x1000;
  write_cr0(read_cr0() & ~(unsigned long)CR0_EM);
  for (unsigned i = 0; i < sizeof kModes / sizeof *kModes; ++i) {
    choose(&kModes[i]);
    stores();
    loops();
    across_pages();
  }
  page_tables();
  finish();
}
