// Code that changes: by its own stores, to the next instruction and to those behind, across pages, through another mapping of
// the page, by string and vector stores, by pushes, by what the processor itself writes, and by page tables that change under it.
// Every snippet runs in a fresh copy, so it may spoil itself.
#include "runtime/guest.h"

enum { P = 1, W = 2, U = 4 };
extern uint64_t page_pml4[512];

#define AREA 0x2000000ul  // two pages in a row, physical and, for the kernel, linear
#define VA (1ul << 39)    // pages of kPt, any of FRAME(n)
static uint64_t* const kPt = (uint64_t*)(FREE_PAGES + 0x2000);
#define FRAME(n) (FREE_PAGES + 0x10000ul + (n) * 0x1000ul)

static unsigned cpl;
static unsigned long alias(void) {
  return cpl == 3 ? USER_ALIAS : 0;
}

// Runs a copy of the code at AREA + offset (which is also at AREA's alias, and at VA).
static void run_copy(const char* name, const char* code, unsigned offset, struct setup setup) {
  memset((void*)AREA, 0xf4, 0x3000);
  memcpy((void*)(AREA + offset), code, 0x200);
  setup.cpl = cpl;
  setup.ip = AREA + offset + alias();
  setup.bx = AREA + offset + alias();
  if (!setup.di) setup.di = AREA + offset + alias();
  run(code, setup);
  say("%s: ", name);
  report(setup.show ? setup.show : "a");
}
// Aligned as where it was assembled.
#define COPY(name, text, ...)                                                                         \
  do {                                                                                                \
    const char* const code_copied_ = CODE(text);                                                      \
    run_copy(name, code_copied_, 0x100 + ((unsigned long)code_copied_ & 15), (struct setup){__VA_ARGS__}); \
  } while (0)

static void stores(void) {
  say("-- the next instruction, CPL %d\n", (unsigned long)cpl);
  COPY("byte of an immediate", "mov byte ptr [rip + 1f + 1], 0x22; 1: mov eax, 0x11");
  COPY("word of an immediate", "mov word ptr [rip + 1f + 1], 0x2233; 1: mov eax, 0x11");
  COPY("immediate", "mov dword ptr [rip + 1f + 1], 0x223344; 1: mov eax, 0x11");
  COPY("opcode", "mov byte ptr [rip + 1f], 0xb9; 1: mov eax, 0x11", .show = "ac");
  COPY("all of it, eight bytes", "mov rcx, 0x9090909012345678; shl rcx, 8; mov cl, 0xb8; mov [rip + 1f], rcx;"
       "1: mov eax, 0x11; nop; nop; nop");
  COPY("a longer one", "mov word ptr [rip + 1f], 0xc0ff; xor eax, eax; 1: nop; nop; nop; nop");
  COPY("a branch's distance", "xor eax, eax; mov byte ptr [rip + 1f + 1], 3; 1: jmp 2f; 2: inc eax; inc eax;"
       "inc eax; inc eax");
  COPY("a branch's condition", "xor eax, eax; mov byte ptr [rip + 1f], 0x75; 1: jz 2f; inc eax; 2: inc eax");
  COPY("a jump appears", "xor eax, eax; mov word ptr [rip + 1f], 0x02eb; 1: inc eax; inc eax; inc eax");
  COPY("it becomes invalid", "mov word ptr [rip + 1f], 0x0b0f; 1: mov eax, 0x11", .show = "R");
  COPY("it becomes INT3", "mov byte ptr [rip + 1f], 0xcc; 1: mov eax, 0x11", .show = "R");
  COPY("misaligned, the end of one and the begin of another", "mov word ptr [rip + 1f + 4], 0xb944;"
       "1: mov eax, 0x11; mov edx, 0x33", .show = "acd");
  COPY("the storing instruction itself", "mov byte ptr [rip + 1f], 0x90; xor eax, eax;"
       "1: mov word ptr [rip + 1b], 0x9090; inc eax");
  COPY("ADD", "add byte ptr [rip + 1f + 1], 0x22; 1: mov eax, 0x11");
  COPY("LOCK XADD", "mov ecx, 0x22; lock xadd [rip + 1f + 1], ecx; 1: mov eax, 0x11", .show = "ac");
  COPY("XCHG", "mov ecx, 0x22; xchg [rip + 1f + 1], ecx; 1: mov eax, 0x11", .show = "ac");
  COPY("LOCK CMPXCHG", "mov eax, 0x11; mov ecx, 0x22; lock cmpxchg [rip + 1f + 1], ecx; 1: mov eax, 0x11");
  COPY("LOCK CMPXCHG that fails", "mov eax, 0x12; mov ecx, 0x22; lock cmpxchg [rip + 1f + 1], ecx;"
       "1: mov eax, 0x11");
  COPY("CMPXCHG8B", "mov eax, [rip + 1f]; mov edx, [rip + 1f + 4]; mov ecx, edx; mov ebx, eax;"
       "add ebx, 0x2200; cmpxchg8b [rip + 1f]; 1: mov eax, 0x11; nop; nop; nop");
  COPY("NOT", "not byte ptr [rip + 1f + 1]; 1: mov eax, 0x11");
  COPY("BTS", "bts dword ptr [rip + 1f + 1], 12; 1: mov eax, 0x11");
  COPY("BTS with a register offset", "mov ecx, 13; lea rdx, [rip + 1f + 1]; bts [rdx], ecx; 1: mov eax, 0x11");
  COPY("SHL", "shl byte ptr [rip + 1f + 1], 3; 1: mov eax, 0x11");
  COPY("SETZ", "xor ecx, ecx; setz byte ptr [rip + 1f + 1]; 1: mov eax, 0x11");
  COPY("MOVNTI", "mov ecx, 0x22; movnti [rip + 1f + 1], ecx; 1: mov eax, 0x11");
  COPY("MOVBE", "mov ecx, 0x22000000; movbe [rip + 1f + 1], ecx; 1: mov eax, 0x11");
  COPY("POP to memory", "push 0x22; lea rdx, [rip + 1f + 1]; push [rdx]; mov byte ptr [rsp], 0x33;"
       "pop qword ptr [rdx]; 1: mov eax, 0x11; nop; nop; nop");
  COPY("PUSH", "mov rdx, rsp; mov rcx, [rip + 1f]; mov ch, 0x22; lea rsp, [rip + 1f + 8]; push rcx;"
       "1: mov eax, 0x11; nop; nop; nop; mov rsp, rdx");
  COPY("MOVUPS", "movups xmm0, [rip + 2f]; movups [rip + 1f], xmm0; 1: mov eax, 0x11; .fill 11, 1, 0x90;"
       "jmp 3f; 2: mov eax, 0x22; .fill 11, 1, 0x90; 3:");
  COPY("MOVQ", "movq xmm0, [rip + 2f]; movq [rip + 1f], xmm0; 1: mov eax, 0x11; nop; nop; nop; jmp 3f;"
       "2: mov eax, 0x22; nop; nop; nop; 3:");
  COPY("MOVNTDQ", "lea rdx, [rip + 1f]; and rdx, -16; movups xmm0, [rip + 2f]; movntdq [rdx], xmm0; jmp rdx;"
       ".balign 16; 1: mov eax, 0x11; .fill 11, 1, 0x90; jmp 3f; 2: mov eax, 0x22; .fill 11, 1, 0x90; 3:");
  COPY("MASKMOVDQU", "mov rcx, rdi; lea rdi, [rip + 1f]; movups xmm0, [rip + 2f]; pcmpeqb xmm1, xmm1;"
       "psrldq xmm1, 14; maskmovdqu xmm0, xmm1; mov rdi, rcx; 1: mov eax, 0x11; jmp 3f; 2: mov eax, 0x22;"
       ".fill 11, 1, 0x90; 3:");
  COPY("FISTP", "mov dword ptr [rsi], 0x22; fild dword ptr [rsi]; fistp dword ptr [rip + 1f + 1];"
       "1: mov eax, 0x11");
  COPY("FSTP m64", "fld qword ptr [rip + 2f]; fstp qword ptr [rip + 1f]; 1: mov eax, 0x11; nop; nop; nop;"
       "jmp 3f; 2: mov eax, 0x22; nop; .byte 0x48, 0x90; 3:");
  COPY("FNSTCW", "fnstcw [rip + 1f + 1]; 1: mov eax, 0x11");
  COPY("STMXCSR", "stmxcsr [rip + 1f + 1]; 1: mov eax, 0x11");
  COPY("SMSW", "smsw word ptr [rip + 1f + 1]; 1: mov eax, 0x11; xor eax, eax");
  COPY("MOV from SS", "mov [rip + 1f + 1], ss; 1: mov eax, 0x11");
  COPY("ENTER", "mov rdx, rsp; mov rcx, rbp; mov rbp, [rip + 1f]; lea rsp, [rip + 1f + 8]; enter 0, 0;"
       "1: mov eax, 0x11; nop; nop; nop; mov rsp, rdx");

  say("-- strings, CPL %d\n", (unsigned long)cpl);
  COPY("STOSB", "lea rdi, [rip + 1f + 1]; mov al, 0x22; stosb; 1: mov eax, 0x11");
  COPY("MOVSB", "lea rdi, [rip + 1f + 1]; lea rsi, [rip + 2f]; movsb; 1: mov eax, 0x11; jmp 3f;"
       "2: .byte 0x22; 3:");
  COPY("MOVSQ", "lea rdi, [rip + 1f]; lea rsi, [rip + 2f]; movsq; 1: mov eax, 0x11; nop; nop; nop; jmp 3f;"
       "2: mov eax, 0x22; nop; nop; nop; 3:");
  COPY("REP MOVSB over what follows", "lea rdi, [rip + 1f]; lea rsi, [rip + 2f]; mov ecx, 8; rep movsb;"
       "1: mov eax, 0x11; nop; nop; nop; jmp 3f; 2: mov eax, 0x22; nop; nop; nop; 3:", .show = "ac");
  COPY("REP MOVSB over itself with the same", "lea rdi, [rip + 1f]; lea rsi, [rip + 2f]; mov ecx, 7;"
       "1: rep movsb; mov eax, 0x11; jmp 3f; 2: rep movsb; mov eax, 0x22; 3:", .show = "ac");
  COPY("REP MOVSB over itself with NOPs", "lea rdi, [rip + 1f]; lea rsi, [rip + 2f]; mov ecx, 7;"
       "1: rep movsb; mov eax, 0x11; jmp 3f; 2: nop; nop; mov eax, 0x22; 3:", .show = "ac");
  COPY("REP MOVSQ over itself with NOPs", "lea rdi, [rip + 1f]; lea rsi, [rip + 2f]; mov ecx, 2;"
       "1: rep movsq; mov eax, 0x11; .fill 8, 1, 0x90; jmp 3f; 2: .fill 16, 1, 0x90; 3: nop", .show = "c");
  COPY("REP STOSB of NOPs from before itself", "lea rdi, [rip + 0f]; mov al, 0x90; mov ecx, 64; 0: nop; nop;"
       "nop; nop; rep stosb; .fill 80, 1, 0x90; xor eax, eax", .show = "c");
  COPY("REP STOSB backwards over itself", "lea rdi, [rip + 0f]; mov al, 0x90; mov ecx, 32; std; rep stosb;"
       ".fill 20, 1, 0x90; 0: nop; cld; xor eax, eax", .show = "c");
  COPY("REP STOSQ of NOPs over a loop", "lea rdi, [rip + 0f]; mov rax, 0x9090909090909090; mov ecx, 2;"
       "rep stosq; xor eax, eax; 0: inc eax; jmp 0b; .fill 16, 1, 0x90");
  if (!cpl) {
    // CMOS memory: a port that gives back what was written.
    COPY("INSB", "mov edx, 0x70; mov al, 0x50; out dx, al; inc edx; mov al, 0x22; out dx, al; dec edx; mov al, 0x50; out dx, al; inc edx;"
         "lea rdi, [rip + 1f + 1]; insb; 1: mov eax, 0x11");
  }
}

static void loops(void) {
  say("-- what has run before, CPL %d\n", (unsigned long)cpl);
  COPY("an immediate that counts", "xor ecx, ecx; 1: mov eax, 0; inc dword ptr [rip + 1b + 1]; inc ecx;"
       "cmp ecx, 100; jb 1b", .show = "ac");
  COPY("sum of what an immediate was", "xor ecx, ecx; xor edx, edx; 1: mov eax, 0;"
       "inc dword ptr [rip + 1b + 1]; add edx, eax; inc ecx; cmp ecx, 3000; jb 1b", .show = "acd");
  COPY("a function rewritten by its caller", "xor ecx, ecx; xor edx, edx; jmp 2f; 1: mov eax, 0x11; ret;"
       "2: mov [rip + 1b + 1], ecx; call 1b; add edx, eax; inc ecx; cmp ecx, 1000; jb 2b", .show = "cd");
  COPY("a function that rewrites itself", "xor ecx, ecx; xor edx, edx; jmp 2f; 1: mov eax, 7;"
       "add dword ptr [rip + 1b + 1], 3; ret; 2: call 1b; add edx, eax; inc ecx; cmp ecx, 500;"
       "jb 2b", .show = "cd");
  COPY("a function that rewrites its caller", "xor ecx, ecx; xor edx, edx; jmp 2f;"
       "1: inc dword ptr [rip + 3f + 2]; ret; 2: call 1b; 3: add edx, 0x100; inc ecx; cmp ecx, 500;"
       "jb 2b", .show = "cd");
  COPY("a jump that goes elsewhere in each round", "xor ecx, ecx; xor edx, edx; 1: mov eax, ecx; and eax, 1;"
       "add eax, eax; mov [rip + 2f + 1], al; 2: jmp .+2; inc edx; inc ecx; cmp ecx, 200;"
       "jb 1b", .show = "cd");
  COPY("an opcode that alternates", "xor ecx, ecx; mov edx, 1000; 1: xor byte ptr [rip + 2f + 1], 8;"
       "2: inc edx; inc ecx; cmp ecx, 101; jb 1b", .show = "cd");
  COPY("data in the code's page, often", "xor ecx, ecx; 1: mov [rip + 2f], ecx; mov eax, [rip + 2f]; inc ecx;"
       "cmp ecx, 3000; jb 1b; jmp 3f; 2: .long 0; 3:", .show = "ac");
  COPY("data next to the code, often", "xor ecx, ecx; 1: mov [rdi + 0x800], ecx; mov eax, [rdi + 0x800];"
       "inc ecx; cmp ecx, 3000; jb 1b", .show = "ac");
  COPY("the stack in the code's page", "mov rdx, rsp; lea rsp, [rdi + 0x900]; xor ecx, ecx; 1: push rcx;"
       "pop rax; call 2f; inc ecx; cmp ecx, 1000; jb 1b; jmp 3f; 2: ret; 3: mov rsp, rdx", .show = "ac");
  COPY("code made on the stack", "xor ecx, ecx; xor edx, edx; 1: mov rax, 0xc3000000000000b8; push rax;"
       "mov [rsp + 1], ecx; mov dword ptr [rsp + 5], 0xc3909090; call rsp; pop rbp; add edx, eax; inc ecx;"
       "cmp ecx, 300; jb 1b", .show = "cd");
  COPY("the stack's code rewritten after it ran", "sub rsp, 16; mov byte ptr [rsp], 0xb8;"
       "mov dword ptr [rsp + 1], 5; mov byte ptr [rsp + 5], 0xc3; call rsp; mov ecx, eax;"
       "mov dword ptr [rsp + 1], 6; call rsp; add rsp, 16", .show = "ac");
}

static void across_pages(void) {
  say("-- across pages, CPL %d\n", (unsigned long)cpl);
  // The instruction that begins at the label `1` straddles the pages by each of its bytes.
  for (unsigned before = 1; before <= 7; ++before) {
    // MOV r/m32, imm32 of RDX's register form: 7 bytes with REX (48 C7 C2 imm32); the store is 7 + 4 bytes.
    const char* const code = CODE("mov dword ptr [rip + 1f + 3], 0x2233; jmp 1f; 1: .byte 0x48, 0xc7, 0xc2, 0x11, 0, 0, 0");
    say("%d bytes in the first page: ", (unsigned long)before);
    run_copy("immediate", code, 0x1000 - before - 12, (struct setup){.show = "d"});
    const char* const first = CODE("mov byte ptr [rip + 1f + 2], 0xc1; jmp 1f; 1: .byte 0x48, 0xc7, 0xc2, 0x11, 0, 0, 0");
    say("%d bytes in the first page: ", (unsigned long)before);
    run_copy("ModRM", first, 0x1000 - before - 9, (struct setup){.show = "cd"});
  }
  COPY("the other page, then a jump there", "mov byte ptr [rdi + 0x1100], 0xb8;"
       "mov dword ptr [rdi + 0x1101], 0x33; mov word ptr [rdi + 0x1105], 0x81cd; lea rdx, [rdi + 0x1100];"
       "jmp rdx");
  COPY("the other page, again and again", "lea rdx, [rdi + 0x1100]; mov byte ptr [rdx], 0xb8;"
       "mov byte ptr [rdx + 5], 0xc3; xor ecx, ecx; xor ebp, ebp; 1: mov [rdx + 1], ecx; call rdx;"
       "add ebp, eax; inc ecx; cmp ecx, 300; jb 1b", .show = "acB");
  COPY("this page from the other", "lea rdx, [rdi + 0x1100]; mov dword ptr [rdx], 0x220142c6;"
       "mov byte ptr [rdx + 4], 0xc3; lea rdx, [rip + 1f]; lea rax, [rdi + 0x1100]; call rax;"
       "1: mov eax, 0x11");
  COPY("a store across both pages", "lea rdx, [rdi + 0xefc]; mov rcx, 0xb890909090909090; mov [rdx], rcx;"
       "mov dword ptr [rdx + 8], 0x77; mov word ptr [rdx + 12], 0x81cd; jmp rdx");
  COPY("REP STOSB across both pages", "lea rdi, [rdi + 0xe00]; mov rdx, rdi; mov al, 0x90; mov ecx, 0x200;"
       "rep stosb; mov byte ptr [rdx + 0x1ff], 0xb8; mov dword ptr [rdx + 0x200], 0x77;"
       "mov word ptr [rdx + 0x204], 0x81cd; jmp rdx", .show = "ac");
}

static void map(unsigned page, unsigned frame, unsigned rights) {
  kPt[page] = FRAME(frame) | rights;
  invlpg(VA + page * 0x1000ul);
}

// "mov eax, value" at the start of a frame, and the end of the check.
static void put_code(unsigned frame, unsigned value) {
  uint8_t* const code = (uint8_t*)FRAME(frame);
  memset(code, 0xf4, 0x1000);
  code[0] = 0xb8;
  memcpy(code + 1, &value, 4);
  code[5] = 0xcd;
  code[6] = 0x81;
}

static void aliases(void) {
  say("-- through another mapping, CPL %d\n", (unsigned long)cpl);
  if (!cpl) {
    COPY("next instruction", "lea rcx, [rip + 1f + 1]; mov byte ptr [rcx + rdx], 0x22; 1: mov eax, 0x11", .dx = USER_ALIAS);
  }
  for (unsigned page = 0; page < 4; ++page) map(page, page / 2, P | W | U);  // 0 and 1 are one frame, 2 and 3 another
  // Pages 0 and 1: the same code, run at one address and changed at the other.
  for (unsigned round = 0; round < 3; ++round) {
    put_code(0, 0x11 + round);
    say("run, changed through the other page, run: ");
    run((const char*)0, (struct setup){.cpl = cpl, .ip = VA});
    say("%x ", caught.state.ax);
    run(CODE("inc dword ptr [rdi]"), (struct setup){.cpl = cpl, .di = VA + 0x1001});
    run((const char*)0, (struct setup){.cpl = cpl, .ip = VA});
    say("%x ", caught.state.ax);
    run(CODE("inc dword ptr [rdi]"), (struct setup){.cpl = cpl, .di = FRAME(0) + 1 + alias()});
    run((const char*)0, (struct setup){.cpl = cpl, .ip = VA + 0x1000});
    say("%x\n", caught.state.ax);
  }
  static const uint8_t kOwn[] = {0xff, 0x07, 0xb8, 0x11, 0, 0, 0, 0xcd, 0x81};  // INC [RDI]; MOV EAX, 11h; INT 81h
  for (unsigned round = 0; round < 2; ++round) {
    memcpy((void*)FRAME(0), kOwn, sizeof kOwn);
    say("the next instruction through page 1: ");
    run((const char*)0, (struct setup){.cpl = cpl, .ip = VA, .di = VA + 0x1003});
    report("a");
    say("the next instruction through the linear mapping: ");
    run((const char*)0, (struct setup){.cpl = cpl, .ip = VA, .di = FRAME(0) + alias() + 3});
    report("a");
    say("again: ");
    run((const char*)0, (struct setup){.cpl = cpl, .ip = VA + 0x1000, .di = FRAME(0) + alias() + 3});
    report("a");
  }
  // A loop whose immediate is changed through the other mapping each time round.
  static const uint8_t kLoop[] = {0xff, 0x07, 0x05, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf5, 0xcd, 0x81};  // INC [RDI]; ADD EAX, n; DEC ECX; JNZ
  memcpy((void*)FRAME(1), kLoop, sizeof kLoop);
  say("loop changed through another page: ");
  run((const char*)0, (struct setup){.cpl = cpl, .ip = VA + 0x2000, .di = VA + 0x3003, .ax = 0x100, .cx = 500});
  report("ac");
}

static void page_tables(void) {
  say("-- page tables that change\n");
  // The page's code goes on in another frame.
  static const uint8_t kSwitch[] = {0x0f, 0x22, 0xd8, 0xb9, 0x11, 0, 0, 0, 0xcd, 0x81};  // MOV CR3, RAX; MOV ECX, n; INT 81h
  for (unsigned frame = 0; frame < 2; ++frame) {
    memcpy((void*)FRAME(frame), kSwitch, sizeof kSwitch);
    *(uint32_t*)(FRAME(frame) + 4) = 0x100 * (frame + 1);
  }
  uint64_t* const second = (uint64_t*)(FREE_PAGES + 0x3000);  // page tables of another space, the same but for kPt
  memcpy(second, page_pml4, 0x1000);
  memcpy(second + 512, (void*)FREE_PAGES, 0x1000);
  memcpy(second + 1024, (void*)(FREE_PAGES + 0x1000), 0x1000);
  second[1] = (unsigned long)(second + 512) | P | W | U;
  second[512] = (unsigned long)(second + 1024) | P | W | U;
  second[1024] = (unsigned long)(second + 1536) | P | W | U;
  map(0, 0, P | W | U);
  memcpy(second + 1536, kPt, 0x1000);
  second[1536] = FRAME(1) | P | W | U;
  const unsigned long first = read_cr3();
  for (unsigned round = 0; round < 3; ++round) {
    say("MOV CR3: ");
    run((const char*)0, (struct setup){.ip = VA, .ax = (unsigned long)second});
    report("c");
    say("and back: ");
    run((const char*)0, (struct setup){.ip = VA, .ax = first});
    report("c");
  }
  write_cr3(first);
  // MOV [RDI], RAX; INVLPG [RDX]; MOV ECX, n; INT 81h
  static const uint8_t kChange[] = {0x48, 0x89, 0x07, 0x0f, 0x01, 0x3a, 0xb9, 0x11, 0, 0, 0, 0xcd, 0x81};
  for (unsigned frame = 0; frame < 4; ++frame) {
    memcpy((void*)FRAME(frame), kChange, sizeof kChange);
    *(uint32_t*)(FRAME(frame) + 7) = 0x1000 * (frame + 1);
  }
  map(0, 0, P | W | U);
  for (unsigned frame = 0; frame < 6; ++frame) {
    say("entry and INVLPG: ");
    run((const char*)0, (struct setup){.ip = VA, .di = (unsigned long)kPt, .dx = VA, .ax = FRAME((frame + 1) & 3) | P | W | U});
    report("c");
  }
  say("entry and INVLPG, absent: ");
  run((const char*)0, (struct setup){.ip = VA, .di = (unsigned long)kPt, .dx = VA, .ax = 0x1000});
  report("c");
  map(0, 0, P | W | U);
  say("entry and INVLPG, no execution: ");
  run((const char*)0, (struct setup){.ip = VA, .di = (unsigned long)kPt, .dx = VA, .ax = FRAME(1) | P | W | 1ul << 63});
  report("c");
  map(0, 0, P | W | U);
  // Code that runs across two pages whose second frame changes.
  memset((void*)FRAME(0), 0x90, 0x2000);
  for (unsigned frame = 0; frame < 3; ++frame) {
    uint8_t* const code = (uint8_t*)FRAME(frame);
    memset(code, 0x90, 0x1000);
    code[0xffd] = 0xb8;  // MOV EAX, imm32: its last bytes lie in the next page
    code[0xffe] = code[0xfff] = 0x11;
    code[0] = code[1] = (uint8_t)(0x20 + frame);
    code[2] = 0xcd;
    code[3] = 0x81;
  }
  for (unsigned round = 0; round < 4; ++round) {
    map(0, 0, P | W | U);
    map(1, round % 3, P | W | U);
    say("an instruction that ends in a page that was exchanged: ");
    run((const char*)0, (struct setup){.ip = VA + 0xff0});
    report("a");
  }
  map(1, 1, 0);
  say("an instruction that ends in a page that is gone: ");
  run((const char*)0, (struct setup){.ip = VA + 0xff0});
  report("a");
  say("an instruction that ends in a page that must not be executed: ");
  kPt[1] = FRAME(1) | P | W | 1ul << 63;
  invlpg(VA + 0x1000);
  run((const char*)0, (struct setup){.ip = VA + 0xff0});
  report("a");

  say("-- what the processor writes\n");
  // A page with code and descriptors, whose accessed bits are set; the code reads the byte as its own immediate.
  map(0, 0, P | W | U);
  uint8_t* const code = (uint8_t*)FRAME(0);
  // MOV DS, ECX; MOV EAX, imm32 (imm32 is the upper half of a descriptor); INT 81h
  static const uint8_t kLoad[] = {0x8e, 0xd9, 0x90, 0xb8};
  for (unsigned round = 0; round < 2; ++round) {
    memset(code, 0x90, 0x1000);
    memcpy(code + 0x100, kLoad, 4);
    *(uint32_t*)(code + 0x104) = 0x00cff200;
    *(uint16_t*)(code + 0x108) = 0x81cd;
    gdt[FREE_SELECTOR / 8] = 0x0000820000000007 | (VA & 0xffffff) << 16 | (VA + 0x100) << 16;
    gdt[FREE_SELECTOR / 8 + 1] = VA >> 32;
    asm volatile("lldt %0" ::"r"((uint16_t)FREE_SELECTOR));
    say("accessed bit of a descriptor: ");
    run((const char*)0, (struct setup){.ip = VA + 0x100, .cx = 7});
    report("a");
  }
  asm volatile("lldt %0" ::"r"((uint16_t)0));
  // A page table with code in it: the walk for the store sets the dirty bit in the next instruction's immediate.
  for (unsigned round = 0; round < 2; ++round) {
    uint8_t* const table = (uint8_t*)kPt;
    memset(table + 0x800, 0, 0x100);
    table[0x801] = 0x88;  // MOV [RDI], AL
    table[0x802] = 0x07;
    table[0x805] = 0x90;
    table[0x803] = table[0x804] = table[0x806] = 0x90;
    table[0x807] = 0xb8;                                        // MOV EAX, imm32: the entry of page 101h
    *(uint64_t*)(table + 0x808) = FRAME(1) | P | W | U;
    table[0x810] = 0xcd;
    table[0x811] = 0x81;
    *(uint32_t*)(table + 0x80c) = 0;
    map(2, 0, P | W | U);
    kPt[2] = (unsigned long)kPt | P | W | U;
    invlpg(VA + 0x2000);
    invlpg(VA + 0x101000);
    // The entry's upper half is ADD [RAX], AL twice: RAX is then the entry's lower half, which is mapped.
    say("accessed and dirty bits of an entry: ");
    run((const char*)0, (struct setup){.ip = VA + 0x2801, .di = VA + 0x101000});
    report("a");
  }
  // A frame that is pushed onto the page of the code that faulted.
  set_gate(UD, STUB(UD), GATE_INTERRUPT, KCODE, 0);
  COPY("the frame of #UD over its own instruction", "lea rsp, [rip + 1f + 16]; and rsp, -16; 1: ud2;"
       ".fill 32, 1, 0x90", .show = "");
}

void guest_main(void) {
  default_gates();
  set_gate(BP, STUB(BP), 0xee, KCODE, 1);
  memset((void*)FREE_PAGES, 0, 0x8000);
  page_pml4[1] = FREE_PAGES | P | W | U;
  *(uint64_t*)FREE_PAGES = (FREE_PAGES + 0x1000) | P | W | U;
  *(uint64_t*)(FREE_PAGES + 0x1000) = (unsigned long)kPt | P | W | U;
  for (cpl = 0; cpl <= 3; cpl += 3) {
    stores();
    loops();
    across_pages();
    aliases();
  }
  cpl = 0;
  page_tables();
  finish();
}
