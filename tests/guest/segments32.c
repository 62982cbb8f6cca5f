// Segmentation in 32-bit protected mode: what may be loaded, limits, expand-down, LAR, LSL, VERR, VERW, ARPL. TCG checks no
// limits, so lines about them end with "ok" when `within`, which follows SDM vol. 3, 5.3, says the same.
#include "runtime/guest.h"

#define TEST FREE_SELECTOR
#define TEST2 (FREE_SELECTOR + 8)

// G, N, S, T with the expected selector, else the whole answer.
static void put_fault(unsigned selector) {
  static const char kLetters[] = {[TS] = 'T', [NP] = 'N', [SS] = 'S', [GP] = 'G'};
  if (caught.vector == END) {
    say(".");
  } else if (caught.vector >= TS && caught.vector <= GP && caught.error == (selector & ~3u)) {
    say("%c", kLetters[caught.vector]);
  } else if (caught.vector >= TS && caught.vector <= GP && caught.error == 0) {
    say("%c", kLetters[caught.vector] + 32);
  } else {
    say("(%d:%x)", caught.vector, caught.error);
  }
}

static void loads(void) {
  static const char* codes[5];
  codes[0] = CODE("mov ds, eax");
  codes[1] = CODE("mov es, eax");
  codes[2] = CODE("mov fs, eax");
  codes[3] = CODE("mov gs, eax");
  codes[4] = CODE("mov ebx, ss; mov ss, eax; mov ss, ebx");
  say("-- loads: RPL 0 to 3 of DS ES FS GS SS at CPL 0, then at CPL 3; accessed bits set\n");
  for (unsigned type = 0; type < 32; ++type) {
    for (unsigned present = 0; present < 2; ++present) {
      for (unsigned dpl = 0; dpl < 4; ++dpl) {
        const unsigned access = type | dpl << 5 | present << 7;
        say("access byte %x:", (unsigned long)access);
        unsigned accessed = 0;
        for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
          for (unsigned reg = 0; reg < 5; ++reg) {
            say(" ");
            for (unsigned rpl = 0; rpl < 4; ++rpl) {
              gdt[TEST / 8] = descriptor(0, 0xfffff, access, GRANULAR | BIG);
              run(codes[reg], (struct setup){.cpl = cpl, .ax = TEST | rpl});
              put_fault(TEST);
              accessed += gdt[TEST / 8] != descriptor(0, 0xfffff, access, GRANULAR | BIG);
            }
          }
        }
        say(" %d\n", (unsigned long)accessed);
      }
    }
  }
  say("-- loads of selectors without a descriptor\n");
  static const unsigned kSelectors[] = {0, 1, 2, 3, 4, 7, 0xfffc, 0xfff8, 0x200, 0x1f8 + 3, 0xc};
  for (unsigned i = 0; i < sizeof kSelectors / sizeof *kSelectors; ++i) {
    for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
      say("selector %x, CPL %d: ", (unsigned long)kSelectors[i], (unsigned long)cpl);
      for (unsigned reg = 0; reg < 5; ++reg) {
        run(codes[reg], (struct setup){.cpl = cpl, .ax = kSelectors[i] ? kSelectors[i] : 0x10000});
        put_fault(kSelectors[i]);
      }
      say("\n");
    }
  }
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    say("-- other ways to load, CPL %d\n", (unsigned long)cpl);
    gdt[TEST / 8] = descriptor(0, 0xfffff, 0xf2, GRANULAR | BIG);
    CHECK("PUSH, POP DS", "push 0x4b; pop ds; mov eax, ds", .cpl = cpl, .show = "ap");
    CHECK("POP ES, 16 bits", "pushw 0x4b; .byte 0x66; pop es; mov eax, es", .cpl = cpl, .show = "ap");
    CHECK("LDS", "mov dword ptr [esi], 0x1234; mov dword ptr [esi + 4], 0x4b; lds eax, [esi]; mov ecx, ds", .cpl = cpl,
          .show = "ac");
    CHECK("LES, 16 bits", "mov dword ptr [esi], 0x4b1234; les ax, [esi]; mov ecx, es", .cpl = cpl, .show = "ac");
    CHECK("LFS of null", "mov dword ptr [esi], 0x1234; mov dword ptr [esi + 4], 0; lfs eax, [esi]; mov ecx, fs", .cpl = cpl,
          .show = "ac");
    CHECK("LSS of null", "mov dword ptr [esi], 0x1234; mov dword ptr [esi + 4], 0; lss eax, [esi]", .cpl = cpl, .show = "a");
    CHECK("LGS beyond the GDT", "mov dword ptr [esi], 0x1234; mov dword ptr [esi + 4], 0xfff8; lgs eax, [esi]", .cpl = cpl,
          .show = "a");
    CHECK("POP SS of null", "push 0; pop ss", .cpl = cpl, .show = "p");
    CHECK("POP DS beyond the GDT", "push 0xfff8; pop ds", .cpl = cpl, .show = "p");
    CHECK("use of a null DS", "xor eax, eax; mov ds, eax; mov eax, [esi]", .cpl = cpl);
    CHECK("use of a null FS", "mov eax, fs:[esi]", .cpl = cpl);
    CHECK("use of a null ES by STOSB", "xor eax, eax; mov es, eax; stosb", .cpl = cpl, .show = "i");
    CHECK("LEA needs no segment", "xor eax, eax; mov ds, eax; lea eax, [esi]", .cpl = cpl, .show = "a");
    CHECK("NOP of memory needs no segment", "xor eax, eax; mov ds, eax; nop dword ptr [esi]", .cpl = cpl);
    CHECK("write to code", "mov cs:[esi], eax", .cpl = cpl);
    CHECK("read of readable code", "mov eax, cs:[esi]; xor eax, eax", .cpl = cpl, .show = "a");
    gdt[TEST / 8] = descriptor(0, 0xfffff, 0xf1, GRANULAR | BIG);
    CHECK("write to read-only data", "mov eax, 0x4b; mov ds, eax; mov [esi], eax", .cpl = cpl);
    CHECK("read-modify-write of read-only data", "mov eax, 0x4b; mov ds, eax; inc dword ptr [esi]", .cpl = cpl);
    CHECK("CMPXCHG of read-only data", "mov eax, 0x4b; mov ds, eax; cmpxchg [esi], ecx", .cpl = cpl);
    CHECK("STOSB to read-only data", "mov eax, 0x4b; mov es, eax; stosb", .cpl = cpl);
    CHECK("TEST of read-only data", "mov eax, 0x4b; mov ds, eax; test [esi], eax", .cpl = cpl);
    gdt[TEST / 8] = descriptor(0, 0xfffff, 0xf9, GRANULAR | BIG);
    CHECK("read of execute-only code", "mov dword ptr [esi], 0; push 0x4b; lea eax, [1f]; push eax; retf; ud2; 1: mov eax, cs:[esi]",
          .cpl = 3 * (cpl == 3));
  }
}

static bool within(unsigned access, bool big, uint32_t limit, uint32_t offset, unsigned size) {
  const uint32_t last = offset + size - 1;
  if ((access & 12) == 4) return offset > limit && last >= offset && last <= (big ? 0xffffffff : 0xffff);
  return last >= offset && last <= limit;
}

static void limits(void) {
  static const struct {
    const char* name;
    uint32_t limit;  // as in the descriptor
    unsigned access, flags;
  } kSegments[] = {
      {"expand-up, limit 0", 0, 0xf3, BIG},
      {"expand-up, limit fff", 0xfff, 0xf3, BIG},
      {"expand-up, limit 10fff", 0x10fff, 0xf3, BIG},
      {"expand-up, 16-bit, limit ffff", 0xffff, 0xf3, 0},
      {"expand-up, granular, limit 0", 0, 0xf3, BIG | GRANULAR},
      {"read-only, limit fff", 0xfff, 0xf1, BIG},
      {"readable code, limit fff", 0xfff, 0xfb, BIG},
      {"expand-down, limit fff", 0xfff, 0xf7, BIG},
      {"expand-down, 16-bit, limit fff", 0xfff, 0xf7, 0},
      {"expand-down, granular, limit 1", 1, 0xf7, BIG | GRANULAR},
      {"expand-down, 16-bit, limit 0", 0, 0xf7, 0},
  };
  static const char* codes[7];  // EDI is one too much, since 0 would be the default
  static const unsigned kSizes[7] = {1, 2, 4, 8, 10, 16, 4};
  codes[0] = CODE("mov al, fs:[edi - 1]");
  codes[1] = CODE("mov ax, fs:[edi - 1]");
  codes[2] = CODE("mov eax, fs:[edi - 1]");
  codes[3] = CODE("fld qword ptr fs:[edi - 1]; fstp st");
  codes[4] = CODE("fld tbyte ptr fs:[edi - 1]; fstp st");
  codes[5] = CODE("movups xmm0, fs:[edi - 1]");
  codes[6] = CODE("mov fs:[edi - 1], eax");
  say("-- limits: reads of 1 2 4 8 10 16 bytes and a write of 4\n");
  for (unsigned i = 0; i < sizeof kSegments / sizeof *kSegments; ++i) {
    const uint32_t limit = kSegments[i].flags & GRANULAR ? kSegments[i].limit << 12 | 0xfff : kSegments[i].limit;
    const uint32_t kOffsets[] = {0,         1,         limit - 15, limit - 9, limit - 7, limit - 3, limit - 2,
                                 limit - 1, limit,     limit + 1,  limit + 2, 0xfffc,    0xfffd,    0xffff,
                                 0x10000,   0x1fffff,  0xfffffff0, 0xfffffffe};
    // The base is such that what is within the limit lies in memory of ours.
    gdt[TEST / 8] = descriptor(DATA, kSegments[i].limit, kSegments[i].access, kSegments[i].flags);
    for (unsigned j = 0; j < sizeof kOffsets / sizeof *kOffsets; ++j) {
      const uint32_t offset = kOffsets[j];
      say("%s, offset %x: ", kSegments[i].name, (unsigned long)offset);
      bool right = true;
      for (unsigned kind = 0; kind < 7; ++kind) {
        memset((void*)(DATA + offset), 0, 16);
        run(codes[kind], (struct setup){.cpl = 3, .fs = TEST | 3, .di = offset + 1});
        put_fault(0);
        bool allowed = within(kSegments[i].access, kSegments[i].flags & BIG, limit, offset, kSizes[kind]);
        if (kind == 6 && (kSegments[i].access & 8 || !(kSegments[i].access & 2))) allowed = false;
        // Where the access goes on at 0, the manual leaves it open.
        if (offset + kSizes[kind] - 1 < offset && kSegments[i].access == 0xf7) continue;
        right = right && (allowed ? caught.vector == END : caught.vector == GP && caught.error == 0);
      }
      say(right ? " ok\n" : " wrong\n");
    }
  }
  say("-- limits of the stack segment\n");
  for (unsigned i = 0; i < sizeof kSegments / sizeof *kSegments; ++i) {
    if (kSegments[i].access & 8 || !(kSegments[i].access & 2)) continue;
    const uint32_t limit = kSegments[i].flags & GRANULAR ? kSegments[i].limit << 12 | 0xfff : kSegments[i].limit;
    const uint32_t kOffsets[] = {0, 1, 2, 3, 4, 5, limit, limit + 1, limit + 2, limit + 4, limit + 5, 0x10000, 0xfffffff0};
    gdt[TEST / 8] = descriptor(DATA, kSegments[i].limit, kSegments[i].access, kSegments[i].flags);
    for (unsigned j = 0; j < sizeof kOffsets / sizeof *kOffsets; ++j) {
      say("%s, SP %x: ", kSegments[i].name, (unsigned long)kOffsets[j]);
      const struct setup setup = {.cpl = 3, .ss = TEST | 3, .bp = kOffsets[j] + 1};
      run(CODE("lea esp, [ebp - 1]; push eax"), setup);
      put_fault(0);
      say(" ");
      run(CODE("lea esp, [ebp - 1]; push ax"), setup);
      put_fault(0);
      say(" ");
      run(CODE("lea esp, [ebp - 1]; pop eax"), setup);
      put_fault(0);
      say(" ");
      run(CODE("mov al, [ebp - 1]"), setup);
      put_fault(0);
      say(" ");
      run(CODE("lea esp, [ebp - 1]; call 1f; 1:"), setup);
      put_fault(0);
      say(" ");
      run(CODE("lea esp, [ebp - 1]; pushad"), setup);
      put_fault(0);
      say("\n");
    }
  }
}

static void code_limits(void) {
  say("-- limits of the code segment\n");
  uint8_t* const code = (uint8_t*)DATA;
  code[0x10000] = 0xcd;
  code[0x10001] = 0x81;
  for (unsigned limit = 0x0fe; limit <= 0x105; ++limit) {
    gdt[TEST / 8] = descriptor(DATA, limit, 0xfb, BIG);
    memset(code, 0x90, 0x200);
    static const uint8_t kEnd[] = {0xb8, 1, 2, 3, 4, 0xcd, 0x81};  // MOV EAX, imm32; INT 81h
    memcpy(code + 0xfc, kEnd, sizeof kEnd);
    say("limit %x, code that runs up to it: ", (unsigned long)limit);
    run((const char*)0, (struct setup){.cpl = 3, .cs = TEST | 3, .ip = 0xf0});
    say("vector %d(%x) ip=%x ax=%x\n", caught.vector, caught.error, caught.state.ip, caught.state.ax);
    memset(code, 0x90, 0x100);
    static const uint8_t kJump[] = {0xe9, 0xeb, 0, 0, 0};  // JMP to 100h
    memcpy(code + 0x10, kJump, sizeof kJump);
    memcpy(code + 0x100, kEnd + 5, 2);
    say("limit %x, jump to 100: ", (unsigned long)limit);
    run((const char*)0, (struct setup){.cpl = 3, .cs = TEST | 3, .ip = 0x10});
    say("vector %d(%x) ip=%x\n", caught.vector, caught.error, caught.state.ip);
    run((const char*)0, (struct setup){.cpl = 3, .cs = TEST | 3, .ip = 0x10000});
    say("limit %x, IRET to an address beyond it: vector %d(%x)\n", (unsigned long)limit, caught.vector, caught.error);
  }
  gdt[TEST / 8] = descriptor(DATA, 0xffff, 0xfb, 0);  // 16-bit code: IP wraps
  memset(code, 0x90, 0x10000);
  code[0] = 0xcd;
  code[1] = 0x81;
  run((const char*)0, (struct setup){.cpl = 3, .cs = TEST | 3, .ip = 0xfff8});
  say("16-bit code that runs to ffff: vector %d(%x) ip=%x\n", caught.vector, caught.error, caught.state.ip);
  code[0xfffc] = 0xeb;
  code[0xfffd] = 0x02;  // JMP to 10000
  run((const char*)0, (struct setup){.cpl = 3, .cs = TEST | 3, .ip = 0xfffc});
  say("16-bit jump beyond ffff: vector %d(%x) ip=%x\n", caught.vector, caught.error, caught.state.ip);
  memset(code, 0x90, 0x10000);
}

static void inspections(void) {
  static const char* codes[4];
  codes[0] = CODE("lar eax, ecx; setz cl");
  codes[1] = CODE("lsl eax, ecx; setz cl");
  codes[2] = CODE("verr cx; setz cl");
  codes[3] = CODE("verw cx; setz cl");
  say("-- LAR, LSL, VERR, VERW: ZF for RPL 0 to 3 at CPL 0, then at CPL 3\n");
  for (unsigned type = 0; type < 32; ++type) {
    for (unsigned present = 0; present < 2; ++present) {
      for (unsigned dpl = 0; dpl < 4; ++dpl) {
        const unsigned access = type | dpl << 5 | present << 7;
        say("access byte %x:", (unsigned long)access);
        unsigned long lar = 0, lsl = 0;
        for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
          for (unsigned kind = 0; kind < 4; ++kind) {
            say(" ");
            for (unsigned rpl = 0; rpl < 4; ++rpl) {
              gdt[TEST / 8] = descriptor(0x12345678, 0xabcde, access, GRANULAR);
              run(codes[kind], (struct setup){.cpl = cpl, .cx = TEST | rpl});
              const bool zero = caught.state.cx & 1;
              say("%c", caught.vector != END ? '!' : zero ? '1' : '0');
              if (kind == 0 && zero) lar = caught.state.ax & ~0xf0000ul;  // these are undefined (SDM vol. 2, LAR)
              if (kind == 1 && zero) lsl = caught.state.ax;
            }
          }
        }
        say(" %x %x\n", lar, lsl);
      }
    }
  }
  say("-- other operands\n");
  gdt[TEST / 8] = descriptor(0, 0xabcde, 0xf3, 0);
  CHECK("LSL, 16 bits", "mov ecx, 0x4b; lsl ax, cx", .ax = 0x55555555, .show = "aF");
  CHECK("LAR, 16 bits", "mov ecx, 0x4b; lar ax, cx", .ax = 0x55555555, .show = "aF");
  CHECK("LAR that fails leaves the register", "mov ecx, 0xfff8; lar eax, ecx", .ax = 0x55555555, .show = "a");
  CHECK("LAR of m16", "mov word ptr [esi], 0x4b; lar eax, word ptr [esi]", .show = "a");
  CHECK("LAR through a null segment", "xor eax, eax; mov ds, eax; lar eax, word ptr [esi]");
  for (unsigned to = 0; to < 4; ++to) {
    for (unsigned from = 0; from < 4; ++from) {
      for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
        say("ARPL %d, %d, CPL %d: ", (unsigned long)to, (unsigned long)from, (unsigned long)cpl);
        RUN("arpl cx, dx; setz al", .cpl = cpl, .cx = 0xffff1230 | to, .dx = 0x5670 | from);
        report("ca");
      }
    }
  }
  CHECK("ARPL of m16", "mov dword ptr [esi], 0x55555550; mov ecx, 3; arpl [esi], cx", .show = "m");
  CHECK("ARPL of read-only memory that need not change", "mov eax, cs; mov ds, eax; mov dword ptr es:[esi], 0x13; mov ecx, 3;"
        "arpl [esi], cx");
}

void guest_main(void) {
  default_gates();
  memset((void*)DATA, 0, 0x20000);
  loads();
  limits();
  code_limits();
  inspections();
  finish();
}
