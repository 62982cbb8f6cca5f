// Sensitive instructions in 32-bit protected mode: the 17 critical ones and the privileged ones, at CPL 0 and 3, with the control
// bits that change who may, and every IOPL. The access matrices of segments are segments32.c's, gates gates32.c's.
#include "runtime/guest.h"

static unsigned cpl, iopl;
static unsigned long mode_cr4;

static void restore(void) {
  write_cr0(CR0_NE | 16 | CR0_MP | CR0_PE);
  write_cr4(mode_cr4);
  write_cr2(0);
  write_dr7(0x400);
  write_msr(MSR_EFER, 0);
}

#define BOTH(name, text, ...)                                          \
  CHECK(name, text, .cpl = cpl, .flags = iopl << 12, __VA_ARGS__);     \
  restore()
#define ON_MEMORY(name, text, ...)     \
  memset((void*)DATA, 0xee, 64);       \
  BOTH(name, text, __VA_ARGS__)
#define NOT_TCG(name, ...)            \
  if (is_tcg()) {                     \
    say("%s: not tried\n", name);     \
  } else {                            \
    BOTH(name, __VA_ARGS__);          \
  }

static void critical(void) {
  ON_MEMORY("SGDT", "sgdt [esi]; mov dword ptr [esi + 2], 0", .show = "m");
  ON_MEMORY("SIDT", "sidt [esi]; mov dword ptr [esi + 2], 0", .show = "m");
  ON_MEMORY("SGDT, limit only", "sgdt [esi]; movzx eax, word ptr [esi]", .show = "a");
  BOTH("SGDT of a register", ".byte 0x0f, 0x01, 0xc0");
  BOTH("SLDT r16", "sldt ax", .ax = 0xffff1234, .show = "a");
  BOTH("SLDT r32", "sldt eax", .ax = ~0ul, .show = "a");
  ON_MEMORY("SLDT m16", "sldt word ptr [esi]", .show = "m");
  BOTH("STR r16", "str ax", .ax = 0xffff1234, .show = "a");
  BOTH("STR r32", "str eax", .ax = ~0ul, .show = "a");
  ON_MEMORY("STR m16", "str word ptr [esi]", .show = "m");
  BOTH("SMSW r16", "smsw ax", .ax = 0xffff1234, .show = "a");
  BOTH("SMSW r32", "smsw eax", .ax = ~0ul, .show = "a");
  ON_MEMORY("SMSW m16", "smsw word ptr [esi]", .show = "m");
  BOTH("PUSHF", "pushfd; pop eax; and eax, 0xfffff72a", .show = "a");
  BOTH("PUSHF, 16 bits", "pushf; pop ax; and eax, 0xf72a", .show = "ap");
  BOTH("POPF of everything but TF", "push 0x3f7ed7; popfd", .show = "F");
  BOTH("POPF of nothing", "push 0; popfd", .show = "F");
  BOTH("POPF, 16 bits", "pushw 0x7ed7; popf", .show = "Fp");
  BOTH("POPF of IF", "push 0x202; popfd", .show = "f");
  BOTH("POPF of IOPL", "push 0x3002; popfd", .show = "f");
  BOTH("POPF of RF and VM", "push 0x30002; popfd", .show = "fR");
  BOTH("LAR of null", "xor ecx, ecx; lar eax, ecx; setz cl", .show = "ac");
  BOTH("LAR of a TSS", "mov ecx, 0x38; lar eax, ecx; setz cl", .show = "ac");
  BOTH("LSL of a TSS", "mov ecx, 0x38; lsl eax, ecx; setz cl", .show = "ac");
  BOTH("VERR of kernel data", "mov ecx, 0x10; verr cx; setz cl", .show = "c");
  BOTH("VERW of code", "mov ecx, 0x1b; verw cx; setz cl", .show = "c");
  BOTH("PUSH CS", "push cs; pop eax", .show = "ap");
  BOTH("PUSH SS, 16 bits", ".byte 0x66; push ss; pop ax; movzx eax, ax", .show = "ap");
  BOTH("POP ES", "push 0x23; pop es; mov eax, es", .show = "ap");
  BOTH("POP SS of ring 0 data", "push 0x10; pop ss", .show = "p");
  BOTH("MOV r32 from SS", "mov eax, ss", .ax = ~0ul, .show = "a");
  BOTH("MOV r16 from CS", "mov ax, cs", .ax = 0xffff1234, .show = "a");
  ON_MEMORY("MOV m16 from CS", "mov [esi], cs", .show = "m");
  BOTH("MOV to DS of ring 0 data", "mov eax, 0x10; mov ds, eax; mov ecx, ds", .show = "c");
  BOTH("far CALL", ".byte 0x9a; .long 1f; .word 0x1b; 1: mov ecx, [esp + 4]", .show = "cp");
  BOTH("far JMP to ring 0", ".byte 0xea; .long 1f; .word 8; 1: mov ecx, cs", .show = "c");
  BOTH("far RET", "mov eax, cs; push eax; lea eax, [1f]; push eax; retf; 1: nop", .show = "p");
  BOTH("far RET to ring 3", "push 0x23; push 0x8ff000; push 0x1b; lea eax, [1f]; push eax; retf; 1: nop", .show = "pS");
  BOTH("IRETD to the same ring", "push 0x202; mov eax, cs; push eax; lea eax, [1f]; push eax; iretd; 1: nop", .show = "f");
  BOTH("INT n through a gate of DPL 0", "int 0x44");
  BOTH("ARPL", "mov ecx, 0x10; mov edx, 3; arpl cx, dx; setz al", .show = "c");
}

static void privileged(void) {
  BOTH("HLT", "jmp 1f; 1: hlt", .flags = iopl << 12 | (cpl ? 0 : FL_TF));  // #DB keeps CPL 0 from it
  BOTH("CLTS", "clts");
  BOTH("LMSW of itself", "smsw eax; lmsw ax");
  BOTH("LMSW cannot clear PE", "mov ebx, cr0; xor eax, eax; lmsw ax; mov eax, cr0; mov cr0, ebx", .show = "a");
  BOTH("LGDT", "sgdt [esi]; lgdt [esi]");
  BOTH("LIDT", "sidt [esi]; lidt [esi]");
  BOTH("LGDT of a register", ".byte 0x0f, 0x01, 0xd6");
  BOTH("LLDT of null", "xor eax, eax; lldt ax");
  BOTH("LLDT of a data segment", "mov eax, 0x10; lldt ax");
  BOTH("LTR of a busy TSS", "mov eax, 0x38; ltr ax");
  BOTH("LTR of one that is not present", "mov eax, 0x48; ltr ax");
  BOTH("INVLPG", "invlpg [esi]");
  BOTH("INVLPG of a register", ".byte 0x0f, 0x01, 0xf8");
  BOTH("INVD", "invd");
  BOTH("WBINVD", "wbinvd");
  BOTH("RDMSR", "mov ecx, 0xc0000080; rdmsr", .show = "ad");
  BOTH("WRMSR", "mov ecx, 0xc0000080; rdmsr; wrmsr");
  BOTH("RDMSR of one that does not exist", "mov ecx, 0x12345; rdmsr");
  BOTH("MOV from CR0", "mov eax, cr0", .show = "a");
  BOTH("MOV from CR2", "mov eax, cr2", .show = "a");
  BOTH("MOV from CR3", "mov eax, cr3", .show = "a");
  BOTH("MOV from CR4", "mov eax, cr4", .show = "a");
  BOTH("MOV from CR1", ".byte 0x0f, 0x20, 0xc8");
  BOTH("MOV from CR7", ".byte 0x0f, 0x20, 0xf8");
  BOTH("MOV to CR2", "mov eax, 0x12345678; mov cr2, eax; mov ecx, cr2", .show = "c");
  BOTH("MOV to CR3", "mov eax, cr3; mov cr3, eax");
  NOT_TCG("MOV to CR0 with NW and no CD", "mov eax, cr0; bts eax, 29; mov cr0, eax");
  NOT_TCG("MOV to CR0 with PG and no PE", "mov eax, 0x80000030; mov cr0, eax");
  NOT_TCG("MOV to CR4 with a reserved bit", "mov eax, cr4; bts eax, 31; mov cr4, eax");
  NOT_TCG("MOV to CR4 with PCIDE outside long mode", "mov eax, cr4; bts eax, 17; mov cr4, eax");
  BOTH("MOV, ModRM's mode does not count", ".byte 0x0f, 0x20, 0x00", .show = "a");
  BOTH("MOV from DR0", "mov eax, dr0", .show = "a");
  BOTH("MOV from DR4", "mov eax, dr4", .show = "a");
  BOTH("MOV from DR5", "mov eax, dr5", .show = "a");
  BOTH("MOV to DR4", "mov eax, 0xffff0ff0; mov dr4, eax");
  BOTH("MOV from DR6", "mov eax, dr6", .show = "a");
  BOTH("MOV from DR7", "mov eax, dr7", .show = "a");
  BOTH("MOV to DR1", "mov eax, 0xffffffff; mov dr1, eax; mov ecx, dr1; xor eax, eax; mov dr1, eax", .show = "c");
  BOTH("MOV with GD", "mov eax, 0x2400; mov dr7, eax; mov ecx, dr0", .show = "6");
  BOTH("MOV from TR6", ".byte 0x0f, 0x24, 0xf0");
  BOTH("CLI", "cli", .show = "f");
  BOTH("STI", "sti", .show = "f");
  BOTH("IN al, 80h", "in al, 0x80; xor eax, eax");
  BOTH("IN eax, dx", "mov edx, 0x80; in eax, dx; xor eax, eax");
  BOTH("OUT 80h, al", "out 0x80, al");
  BOTH("INSD", "mov edx, 0x80; insd", .show = "i");
  BOTH("REP OUTSB", "mov edx, 0x80; mov ecx, 2; rep outsb", .show = "cs");
  BOTH("REP OUTSB with ECX 0", "mov edx, 0x80; xor ecx, ecx; rep outsb", .show = "cs");
  BOTH("RDTSC", "rdtsc; xor eax, eax; xor edx, edx");
  BOTH("RDTSCP", "rdtscp; xor eax, eax; xor edx, edx", .show = "c");
  BOTH("RDPMC", "xor ecx, ecx; rdpmc; xor eax, eax; xor edx, edx");
  BOTH("XGETBV", "xor ecx, ecx; xgetbv", .show = "ad");
  BOTH("XSETBV", "xor ecx, ecx; mov eax, 3; xor edx, edx; xsetbv");
  BOTH("XSETBV without x87", "xor ecx, ecx; mov eax, 2; xor edx, edx; xsetbv");
  BOTH("CLAC", "clac", .show = "f");
  BOTH("STAC", "stac", .show = "f");
  BOTH("MONITOR", "xor ecx, ecx; xor edx, edx; mov eax, esi; monitor");
  BOTH("MWAIT", "jmp 1f; 1: mwait", .flags = iopl << 12 | (cpl ? 0 : FL_TF));
  BOTH("MWAIT with reserved hints", "mov ecx, 2; xor eax, eax; mwait");
  BOTH("SWAPGS", ".byte 0x0f, 0x01, 0xf8");
  BOTH("RDFSBASE", ".byte 0xf3, 0x0f, 0xae, 0xc0");
  BOTH("SYSEXIT", "sysexit");
  BOTH("VMCALL", "vmcall");
  BOTH("VMXOFF", "vmxoff");
  BOTH("GETSEC", "getsec");
  BOTH("RSM", "rsm");
}

static void io_bitmap(void) {
  say("-- the I/O bitmap of a TSS\n");
  enum { MAP = 0x80 };
  const uint64_t saved = gdt[TSS_SELECTOR / 8];
  static const struct {
    const char* name;
    unsigned map, limit;
    bool narrow;
  } kMaps[] = {{"map inside", MAP, MAP + 0x20, false},       {"map beyond the limit", 0x68, 0x67, false},
               {"port's byte is the last", MAP, MAP + 0x10, false}, {"one byte more", MAP, MAP + 0x11, false},
               {"map of 0", 0, MAP + 0x20, false},           {"16-bit TSS", MAP, MAP + 0x20, true}};
  static uint8_t narrow_tss[512];
  for (unsigned i = 0; i < sizeof kMaps / sizeof *kMaps; ++i) {
    uint8_t* const task = kMaps[i].narrow ? narrow_tss : tss;
    memset(task + 0x66, 0, 0x180);
    *(uint16_t*)(task + 0x66) = (uint16_t)kMaps[i].map;
    task[MAP + 0x88 / 8] = 0x06;  // 89h and 8Ah denied
    if (kMaps[i].narrow) {
      // CPL 0's stack of a 16-bit TSS has an offset of 16 bits.
      *(uint16_t*)(task + 2) = 0x7000;
      *(uint16_t*)(task + 4) = KDATA;
    }
    gdt[TSS_SELECTOR / 8] = descriptor((unsigned long)task, kMaps[i].limit, kMaps[i].narrow ? 0x81 : 0x89, 0);
    asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
    for (unsigned level = 0; level <= 3; ++level) {
      for (unsigned ring = 0; ring <= 3; ring += 3) {
        say("%s, CPL %d, IOPL %d, ports 80 to 8f, byte, word and dword: ", kMaps[i].name, (unsigned long)ring, (unsigned long)level);
        for (unsigned width = 0; width < 3; ++width) {
          for (unsigned port = 0x80; port <= 0x8f; ++port) {
            const char* const code = width == 0 ? CODE("in al, dx") : width == 1 ? CODE("in ax, dx") : CODE("in eax, dx");
            run(code, (struct setup){.cpl = ring, .dx = port, .flags = level << 12});
            say("%c", caught.vector == END ? '.' : caught.vector == GP && caught.error == 0 ? 'G' : '!');
          }
          say(width < 2 ? " " : "\n");
        }
      }
    }
    CHECK("OUTSB of a denied port", "outsb", .cpl = 3, .dx = 0x89, .show = "s");
    CHECK("OUTSB of a port that is allowed", "outsb", .cpl = 3, .dx = 0x88, .show = "s");
    CHECK("REP INSB of a denied port, ECX 0", "xor ecx, ecx; rep insb", .cpl = 3, .dx = 0x89, .show = "i");
    CHECK("port FFFF", "in al, dx", .cpl = 3, .dx = 0xffff);
    CHECK("IN of an immediate port", "in al, 0x8a", .cpl = 3);
    CHECK("OUT to an immediate port", "out 0x88, al", .cpl = 3);
  }
  memset(tss + 0x66, 0, 0x180);
  *(uint16_t*)(tss + 0x66) = 0x68;
  gdt[TSS_SELECTOR / 8] = saved & ~(2ull << 40);
  asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
}

void guest_main(void) {
  default_gates();
  *(uint32_t*)(tss + 4) = STACK_TOP - 0x1000;
  gdt[FREE_SELECTOR / 8] = descriptor(0, 0x67, 0x09, 0);  // a TSS that is not present
  static const struct {
    const char* name;
    unsigned long bit;
  } kModes[] = {{"", 0},
                {", UMIP", CR4_UMIP},
                {", TSD", CR4_TSD},
                {", PCE", CR4_PCE},
                {", DE", CR4_DE},
                {", OSXSAVE", CR4_OSXSAVE},
                {", FSGSBASE", CR4_FSGSBASE},
                {", SMAP", CR4_SMAP}};
  for (unsigned mode = 0; mode < sizeof kModes / sizeof *kModes; ++mode) {
    mode_cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | kModes[mode].bit;
    write_cr4(mode_cr4);
    for (cpl = 0; cpl <= 3; cpl += 3) {
      for (iopl = 0; iopl < 4; ++iopl) {
        if (mode && iopl && iopl < 3) continue;
        say("-- CPL %d, IOPL %d%s\n", (unsigned long)cpl, (unsigned long)iopl, kModes[mode].name);
        critical();
        privileged();
      }
    }
  }
  io_bitmap();
  finish();
}
