// Sensitive instructions in 64-bit mode: the 17 critical ones, which answer at every privilege level, and the privileged ones,
// at CPL 0 and 3, with the control bits that change who may.
#include "runtime/guest.h"

static unsigned cpl;

static unsigned long mode_cr4;

// What a check may have changed, where it should not have been able to.
static void restore(void) {
  write_cr0(CR0_PG | CR0_WP | CR0_NE | 16 | CR0_MP | CR0_PE);
  write_cr4(mode_cr4);
  write_cr2(0);
  write_dr7(0x400);
  write_msr(MSR_EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
  write_msr(0xc0000082, (unsigned long)CODE("nop; nop"));  // LSTAR
  write_msr(0xc0000100, 0);                                // FS and GS base
  write_msr(0xc0000101, 0);
}

#define BOTH(name, text, ...)                  \
  CHECK(name, text, .cpl = cpl, __VA_ARGS__); \
  restore()

#define NOT_TCG(name, ...)            \
  if (is_tcg()) {                     \
    say("%s: not tried\n", name);     \
  } else {                            \
    BOTH(name, __VA_ARGS__);          \
  }

static void critical(void) {
  memset((void*)DATA, 0xee, 64);
  BOTH("SGDT", "sgdt [rsi]; and dword ptr [rsi], 0xffff; mov qword ptr [rsi + 2], 0", .show = "m");
  memset((void*)DATA, 0xee, 64);
  BOTH("SIDT", "sidt [rsi]; and dword ptr [rsi], 0xffff; mov qword ptr [rsi + 2], 0", .show = "m");
  BOTH("SGDT, base", "sgdt [rsi]; mov rax, [rsi + 2]; test rax, rax; setz al; movzx eax, al", .show = "a");
  BOTH("SLDT r16", "sldt ax", .ax = 0xffff1234, .show = "a");
  BOTH("SLDT r32", "sldt eax", .ax = ~0ul, .show = "a");
  BOTH("SLDT r64", "sldt rax", .ax = ~0ul, .show = "a");
  memset((void*)DATA, 0xee, 64);
  BOTH("SLDT m16", "sldt word ptr [rsi]", .show = "m");
  BOTH("STR r16", "str ax", .ax = 0xffff1234, .show = "a");
  BOTH("STR r32", "str eax", .ax = ~0ul, .show = "a");
  BOTH("STR r64", "str rax", .ax = ~0ul, .show = "a");
  memset((void*)DATA, 0xee, 64);
  BOTH("STR m16 with REX.W", ".byte 0x48, 0x0f, 0x00, 0x0e", .show = "m");
  BOTH("SMSW r16", "smsw ax", .ax = 0xffff1234, .show = "a");
  BOTH("SMSW r32", "smsw eax", .ax = ~0ul, .show = "a");
  BOTH("SMSW r64", "smsw rax", .ax = ~0ul, .show = "a");
  memset((void*)DATA, 0xee, 64);
  BOTH("SMSW m16", "smsw word ptr [rsi]", .show = "m");
  BOTH("SGDT of a register", ".byte 0x0f, 0x01, 0xc0");
  BOTH("SGDT to nowhere", "mov esi, 0x20000000; sgdt [rsi]");
  BOTH("SLDT to nowhere", "mov esi, 0x20000000; sldt [rsi]");
  BOTH("PUSHF", "pushfq; pop rax; and eax, 0xfffff72a", .flags = FL_IOPL, .show = "a");
  BOTH("PUSHF, all that is visible", "pushfq; pop rax; and eax, 0xfffff72a", .flags = FL_AC | FL_ID | FL_NT | FL_DF, .show = "a");
  BOTH("PUSHF, 16 bits", "pushf; pop ax; and ax, 0xf72a", .flags = FL_IOPL | FL_NT, .show = "ap");
  BOTH("POPF of everything", "push -1; popfq; pushfq; and dword ptr [rsp], ~0x100; popfq", .show = "F");
  BOTH("POPF of everything but TF", "push 0x3f7ed7; popfq", .show = "F");
  BOTH("POPF of everything but TF, IOPL 3", "push 0x3f7ed7; popfq", .flags = FL_IOPL, .show = "F");
  BOTH("POPF of nothing", "push 0; popfq", .flags = FL_IOPL | FL_IF | FL_AC | FL_ID | FL_NT, .show = "F");
  BOTH("POPF, 16 bits", "pushw 0x7ed7; popf", .flags = FL_AC | FL_ID, .show = "Fp");
  BOTH("POPF of RF and VM", "push 0x30002; popfq", .show = "fR");
  BOTH("LAR of null", "xor ecx, ecx; lar eax, ecx; setz cl; movzx ecx, cl", .show = "ac");
  BOTH("LSL of null", "xor ecx, ecx; lsl eax, ecx; setz cl; movzx ecx, cl", .show = "ac");
  BOTH("VERR of null", "xor ecx, ecx; verr cx; setz cl; movzx ecx, cl", .show = "c");
  static const unsigned kSelectors[] = {0x08, 0x0b, 0x10, 0x13, 0x18, 0x1b, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x38, 0x40,
                                        0x43, 0x48, 0x50, 0x58, 0x60, 0x68, 0x70, 0x78, 0x80, 0x88, 0x90, 0xff8, 0x0c};
  for (unsigned i = 0; i < sizeof kSelectors / sizeof *kSelectors; ++i) {
    const unsigned long selector = kSelectors[i];
    say("LAR %x: ", selector);
    RUN("lar eax, ecx; setz cl; movzx ecx, cl", .cpl = cpl, .cx = selector);
    report("ac");
    say("LSL %x: ", selector);
    RUN("lsl eax, ecx; setz cl; movzx ecx, cl", .cpl = cpl, .cx = selector);
    report("ac");
    say("VERR, VERW %x: ", selector);
    RUN("verr cx; setz al; verw cx; setz ah; movzx eax, ax", .cpl = cpl, .cx = selector);
    report("a");
  }
  BOTH("LAR, 16 bits", "mov ecx, 0x28; lar ax, cx", .ax = 0x12345678, .show = "a");
  BOTH("LSL, 16 bits", "mov ecx, 0x28; lsl ax, cx", .ax = 0x12345678, .show = "a");
  BOTH("LAR m16", "mov word ptr [rsi], 0x28; lar eax, word ptr [rsi]", .show = "a");
  BOTH("VERR from nowhere", "mov esi, 0x20000000; verr [rsi]");
  BOTH("MOV r32 from SS", "mov eax, ss", .ax = ~0ul, .show = "a");
  BOTH("MOV r16 from SS", "mov ax, ss", .ax = 0xffff1234, .show = "a");
  BOTH("MOV r64 from CS", "mov rax, cs", .ax = ~0ul, .show = "a");
  memset((void*)DATA, 0xee, 64);
  BOTH("MOV m16 from CS", "mov [rsi], cs", .show = "m");
  BOTH("PUSH FS", "mov eax, 0x23; mov fs, eax; push -1; push fs; pop rax", .show = "ap");
  BOTH("POP FS of null", "push 0; pop fs; mov eax, fs", .show = "ap");
  BOTH("POP GS, 16 bits", "pushw 0x23; .byte 0x66; pop gs; mov eax, gs", .show = "ap");
  BOTH("MOV to SS of null", "xor eax, eax; mov ss, eax");
  BOTH("MOV to SS of null with RPL 3", "mov eax, 3; mov ss, eax");
  BOTH("MOV to SS of the other ring's data", "xor eax, eax; mov ax, ss; xor al, 0x33; mov ss, eax");
  BOTH("MOV to DS of ring 0 data", "mov eax, 0x10; mov ds, eax; mov ecx, ds", .show = "c");
  BOTH("MOV to DS of ring 0 data, RPL 3", "mov eax, 0x13; mov ds, eax");
  BOTH("MOV to DS of code", "mov eax, 0x2b; mov ds, eax; mov ecx, ds", .show = "c");
  BOTH("MOV to DS of a TSS", "mov eax, 0x40; mov ds, eax");
  BOTH("INT n", "int 0x81; ud2");
  BOTH("far RET to the same ring", "mov eax, cs; push rax; lea rcx, [rip + 1f]; push rcx; retfq; ud2; 1: nop", .show = "p");
  BOTH("far RET n", "push -1; mov eax, cs; push rax; lea rcx, [rip + 1f]; push rcx; .byte 0x48, 0xca, 8, 0; ud2; 1: nop",
       .show = "p");
  BOTH("far RET to CPL 0", "push 8; lea rcx, [rip + 1f]; push rcx; retfq; ud2; 1: nop", .show = "pS");
  BOTH("far RET to CPL 3", "push 0x23; push rsp; push 0x2b; lea rcx, [rip + 1f]; bts rcx, 30; push rcx; retfq; 1: nop",
       .show = "S");
  BOTH("far JMP m16:64", "lea rcx, [rip + 1f]; mov [rsi], rcx; mov eax, cs; mov [rsi + 8], eax; rex.W jmp fword ptr [rsi]; ud2; 1:");
  BOTH("far CALL m16:64", "lea rcx, [rip + 1f]; mov [rsi], rcx; mov eax, cs; mov [rsi + 8], eax; rex.W call fword ptr [rsi]; ud2;"
       "1: mov ecx, [rsp + 8]", .show = "cp");
  BOTH("far JMP to ring 0", "lea rcx, [rip + 1f]; mov [rsi], rcx; mov word ptr [rsi + 8], 8; rex.W jmp fword ptr [rsi]; ud2; 1:");
  BOTH("far JMP to data", "mov word ptr [rsi + 4], 0x23; jmp fword ptr [rsi]");
  BOTH("far JMP to a TSS", "mov word ptr [rsi + 4], 0x40; jmp fword ptr [rsi]");
  BOTH("LSS", "mov eax, ss; mov [rsi + 4], eax; mov dword ptr [rsi], 0x1000; lss eax, [rsi]", .show = "aS");
  BOTH("LFS of null", "mov dword ptr [rsi], 0x1000; mov dword ptr [rsi + 4], 0; lfs eax, [rsi]; mov ecx, fs", .show = "ac");
}

static void privileged(void) {
  BOTH("HLT", "jmp 1f; 1: hlt", .flags = cpl ? 0 : FL_TF);
  BOTH("CLTS", "clts");
  BOTH("LMSW of itself", "smsw ax; lmsw ax");
  BOTH("LMSW cannot clear PE", "mov rbx, cr0; xor eax, eax; lmsw ax; mov rax, cr0; mov cr0, rbx", .show = "a");
  BOTH("LMSW sets TS", "mov rbx, cr0; mov eax, 0xb; lmsw ax; mov rax, cr0; mov cr0, rbx", .show = "a");
  BOTH("LGDT", "sgdt [rsi]; lgdt [rsi]");
  BOTH("LIDT", "sidt [rsi]; lidt [rsi]");
  NOT_TCG("LGDT of a base that is not canonical",
          "mov word ptr [rsi], 0xffff; mov rax, 1; ror rax, 2; mov [rsi + 2], rax; lgdt [rsi]");
  NOT_TCG("LIDT of a base that is not canonical",
          "mov word ptr [rsi], 0xffff; mov rax, 1; ror rax, 2; mov [rsi + 2], rax; lidt [rsi]");
  BOTH("LGDT of a register", ".byte 0x0f, 0x01, 0xd0 + 6");
  BOTH("LLDT of null", "xor eax, eax; lldt ax");
  BOTH("LLDT of null, RPL 3", "mov eax, 3; lldt ax; sldt ecx; xor eax, eax; lldt ax", .show = "c");
  BOTH("LLDT of a data segment", "mov eax, 0x10; lldt ax");
  BOTH("LLDT beyond the GDT", "mov eax, 0xff8; lldt ax");
  BOTH("LLDT from the LDT", "mov eax, 0xc; lldt ax");
  BOTH("LLDT of one that is not present", "mov eax, 0x58; lldt ax");
  BOTH("LLDT of a base that is not canonical", "mov eax, 0x78; lldt ax; xor eax, eax; lldt ax");
  NOT_TCG("LTR of null", "xor eax, eax; ltr ax");
  BOTH("LTR of a busy TSS", "mov eax, 0x40; ltr ax");
  BOTH("LTR of one that is not present", "mov eax, 0x68; ltr ax");
  BOTH("LTR of a data segment", "mov eax, 0x10; ltr ax");
  BOTH("INVLPG", "invlpg [rsi]");
  BOTH("INVLPG of an address that is not canonical", "mov rsi, 1; ror rsi, 2; invlpg [rsi]");
  BOTH("INVD", "invd");
  BOTH("WBINVD", "wbinvd");
  BOTH("SWAPGS", "swapgs; swapgs");
  BOTH("RDMSR", "mov ecx, 0xc0000080; rdmsr", .show = "ad");
  BOTH("WRMSR", "mov ecx, 0xc0000080; rdmsr; wrmsr");
  BOTH("RDMSR of one that does not exist", "mov ecx, 0x12345; rdmsr");
  BOTH("WRMSR of one that does not exist", "mov ecx, 0x12345; wrmsr");
  BOTH("WRMSR EFER with a reserved bit", "mov ecx, 0xc0000080; rdmsr; bts eax, 20; wrmsr");
  BOTH("WRMSR EFER clears LME under paging", "mov ecx, 0xc0000080; rdmsr; btr eax, 8; wrmsr");
  BOTH("WRMSR FS base not canonical", "mov ecx, 0xc0000100; mov edx, 0x800000; xor eax, eax; wrmsr");
  BOTH("WRMSR LSTAR not canonical", "mov ecx, 0xc0000082; mov edx, 0x800000; xor eax, eax; wrmsr");
  BOTH("WRMSR SYSENTER_EIP not canonical", "mov ecx, 0x176; mov edx, 0x800000; xor eax, eax; wrmsr");
  BOTH("WRMSR PAT with a reserved type", "mov ecx, 0x277; mov edx, 0x00070406; mov eax, 0x02070406; wrmsr");
  BOTH("MOV from CR0", "mov rax, cr0", .show = "a");
  BOTH("MOV from CR2", "mov rax, cr2; xor eax, eax", .show = "a");
  BOTH("MOV from CR3", "mov rax, cr3; xor eax, eax", .show = "a");
  BOTH("MOV from CR4", "mov rax, cr4", .show = "a");
  BOTH("MOV from CR8", "mov rax, cr8", .show = "a");
  BOTH("MOV to CR8", "mov eax, 5; mov cr8, rax; mov rcx, cr8; xor eax, eax; mov cr8, rax", .show = "c");
  BOTH("MOV to CR8 of 16", "mov eax, 16; mov cr8, rax");
  BOTH("MOV to CR0 with a bit above 31", "mov rax, cr0; bts rax, 32; mov cr0, rax");
  BOTH("MOV to CR0 with a reserved bit below 32", "mov rax, cr0; bts rax, 10; mov cr0, rax; mov rax, cr0", .show = "a");
  NOT_TCG("MOV to CR0 with PG and no PE", "mov rax, cr0; btr rax, 0; mov cr0, rax");
  NOT_TCG("MOV to CR0 without PG", "mov rax, cr0; btr rax, 31; mov cr0, rax");
  BOTH("MOV to CR0 with NW and no CD", "mov rax, cr0; bts rax, 29; btr rax, 30; mov cr0, rax");
  BOTH("MOV to CR0 with NW and CD", "mov rbx, cr0; mov rax, rbx; bts rax, 29; bts rax, 30; mov cr0, rax; mov rax, cr0; mov cr0, rbx",
       .show = "a");
  BOTH("MOV to CR0 clears ET", "mov rbx, cr0; mov rax, rbx; btr rax, 4; mov cr0, rax; mov rax, cr0; mov cr0, rbx", .show = "a");
  BOTH("MOV to CR2, not canonical", "mov rax, 1; ror rax, 2; mov cr2, rax; mov rax, cr2", .show = "a");
  NOT_TCG("MOV to CR3 with a reserved bit", "mov rax, cr3; bts rax, 52; mov cr3, rax");
  BOTH("MOV to CR3 with PWT and PCD", "mov rbx, cr3; mov rax, rbx; or rax, 0x18; mov cr3, rax; mov rax, cr3; mov cr3, rbx; and eax, 0xfff",
       .show = "a");
  NOT_TCG("MOV to CR4 without PAE", "mov rax, cr4; btr rax, 5; mov cr4, rax");
  NOT_TCG("MOV to CR4 with a reserved bit", "mov rax, cr4; bts rax, 31; mov cr4, rax");
  NOT_TCG("MOV to CR4 with a bit above 31", "mov rax, cr4; bts rax, 40; mov cr4, rax");
  NOT_TCG("MOV to CR4 with VMXE", "mov rax, cr4; bts rax, 13; mov cr4, rax");
  BOTH("MOV from DR0", "mov rax, dr0", .show = "a");
  BOTH("MOV from DR4", "mov rax, dr4", .show = "a");
  BOTH("MOV from DR5", "mov rax, dr5", .show = "a");
  BOTH("MOV from DR6", "mov rax, dr6", .show = "a");
  BOTH("MOV from DR7", "mov rax, dr7", .show = "a");
  BOTH("MOV to DR7 with bits above 31", "mov rax, 1; shl rax, 32; mov dr7, rax");
  BOTH("MOV to DR6 with bits above 31", "mov rax, 1; shl rax, 32; mov dr6, rax");
  BOTH("MOV to DR7 of its reserved bits", "mov eax, 0xd800; mov dr7, rax; mov rcx, dr7; mov eax, 0x400; mov dr7, rax", .show = "c");
  BOTH("MOV to DR6 of everything", "mov eax, -1; mov dr6, rax; mov rcx, dr6; mov eax, 0xffff0ff0; mov dr6, rax", .show = "c");
  BOTH("MOV to DR0, not canonical", "mov rax, 1; ror rax, 2; mov dr0, rax; mov rcx, dr0; xor eax, eax; mov dr0, rax", .show = "c");
  BOTH("MOV from DR6 with GD", "mov eax, 0x2400; mov dr7, rax; mov rcx, dr6; mov rcx, dr7", .show = "c6");
  BOTH("MOV to DR7 with GD", "mov eax, 0x2400; mov dr7, rax; mov eax, 0x400; mov dr7, rax", .show = "6");
  BOTH("DR7 after that", "mov rax, dr7", .show = "a");
  BOTH("CLI", "cli");
  BOTH("STI", "sti; cli");
  BOTH("IN al, 80h", "in al, 0x80; xor eax, eax");
  BOTH("OUT 80h, al", "out 0x80, al");
  BOTH("INSB", "mov edx, 0x80; insb");
  BOTH("OUTSB", "mov edx, 0x80; outsb");
  BOTH("REP OUTSB with RCX 0", "mov edx, 0x80; xor ecx, ecx; rep outsb");
  BOTH("IN with IOPL 3", "in al, 0x80; xor eax, eax", .flags = FL_IOPL);
  BOTH("RDTSC", "rdtsc; xor eax, eax; xor edx, edx", .show = "ad");
  BOTH("RDTSCP", "rdtscp; xor eax, eax; xor edx, edx", .show = "adc");
  BOTH("RDPMC", "xor ecx, ecx; rdpmc; xor eax, eax; xor edx, edx");
  BOTH("XGETBV", "xor ecx, ecx; xgetbv", .show = "ad");
  BOTH("XGETBV 2", "mov ecx, 2; xgetbv");
  BOTH("XSETBV", "xor ecx, ecx; mov eax, 3; xor edx, edx; xsetbv");
  BOTH("XSETBV without x87", "xor ecx, ecx; mov eax, 2; xor edx, edx; xsetbv");
  BOTH("XSETBV with AVX and no SSE", "xor ecx, ecx; mov eax, 5; xor edx, edx; xsetbv");
  BOTH("XSETBV 1", "mov ecx, 1; mov eax, 1; xor edx, edx; xsetbv");
  BOTH("CLAC", "clac", .flags = FL_AC, .show = "f");
  BOTH("STAC", "stac", .show = "f");
  BOTH("RDFSBASE", "rdfsbase rax", .show = "a");
  BOTH("WRFSBASE", "mov eax, 0x12345; wrfsbase rax; rdfsbase rcx; xor eax, eax; wrfsbase rax", .show = "c");
  BOTH("WRFSBASE, 32 bits", "mov rax, -1; wrfsbase eax; rdfsbase rcx; xor eax, eax; wrfsbase rax", .show = "c");
  BOTH("WRGSBASE, not canonical", "mov rax, 1; ror rax, 2; wrgsbase rax");
  BOTH("RDPID", ".byte 0xf3, 0x0f, 0xc7, 0xf8", .show = "a");
  BOTH("MONITOR", "xor ecx, ecx; xor edx, edx; mov rax, rsi; monitor");
  BOTH("MONITOR with a hint in RCX", "mov ecx, 1; xor edx, edx; mov rax, rsi; monitor");
  BOTH("MONITOR of nowhere", "xor ecx, ecx; xor edx, edx; mov eax, 0x20000000; monitor");
  BOTH("MWAIT", "jmp 1f; 1: mwait", .flags = cpl ? 0 : FL_TF);
  BOTH("MWAIT with reserved hints", "mov ecx, 2; xor eax, eax; mwait");
  BOTH("INVPCID", "mov eax, 2; mov qword ptr [rsi], 0; mov qword ptr [rsi + 8], 0; .byte 0x66, 0x0f, 0x38, 0x82, 0x06");
  BOTH("SYSRET", "lea rcx, [rip + 1f]; bts rcx, 30; mov r11d, 0x3002; sysretq; 1: nop", .show = "Sf");
  BOTH("SYSCALL", "syscall", .flags = FL_TF * 0 + FL_IOPL, .show = "Sf");
  BOTH("SYSENTER", "sysenter", .show = "S");
  BOTH("SYSEXIT", ".byte 0x0f, 0x35", .show = "S");
  BOTH("VMCALL", "vmcall");
  BOTH("VMXOFF", "vmxoff");
  BOTH("GETSEC", "getsec");
}

static void io_bitmap(void) {
  say("-- the I/O bitmap of a 64-bit TSS, CPL 3\n");
  enum { MAP = 0x80 };
  const uint64_t saved = gdt[TSS_SELECTOR / 8];
  static const struct {
    const char* name;
    unsigned map, limit;
  } kMaps[] = {{"map inside", MAP, MAP + 0x20},      {"map beyond the limit", 0x68, 0x67},
               {"port's byte is the last", MAP, MAP + 0x10}, {"one byte more", MAP, MAP + 0x11},
               {"map of 0", 0, MAP + 0x20}};
  for (unsigned i = 0; i < sizeof kMaps / sizeof *kMaps; ++i) {
    memset(tss + 0x66, 0, 0x200);
    *(uint16_t*)(tss + 0x66) = kMaps[i].map;
    tss[MAP + 0x88 / 8] = 0x06;  // 89h and 8Ah denied
    gdt[TSS_SELECTOR / 8] = (saved & ~0xf00000000fffful & ~(2ul << 40)) | kMaps[i].limit;
    asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
    for (unsigned iopl = 0; iopl <= 3; iopl += 3) {
      say("%s, IOPL %d, ports 80 to 8f, byte, word and dword: ", kMaps[i].name, (unsigned long)iopl);
      for (unsigned width = 0; width < 3; ++width) {
        for (unsigned port = 0x80; port <= 0x8f; ++port) {
          const char* const code = width == 0 ? CODE("in al, dx") : width == 1 ? CODE("in ax, dx") : CODE("in eax, dx");
          run(code, (struct setup){.cpl = 3, .dx = port, .flags = iopl << 12});
          say("%c", caught.vector == END ? '.' : caught.vector == GP && caught.error == 0 ? 'G' : '!');
        }
        say(width < 2 ? " " : "\n");
      }
    }
    CHECK("OUTSB of a denied port", "outsb", .cpl = 3, .dx = 0x89, .show = "s");
    CHECK("REP INSB of a denied port, RCX 0", "xor ecx, ecx; rep insb", .cpl = 3, .dx = 0x89, .show = "i");
    CHECK("port FFFF", "in al, dx", .cpl = 3, .dx = 0xffff);
  }
  memset(tss + 0x66, 0, 0x200);
  *(uint16_t*)(tss + 0x66) = 0x68;
  gdt[TSS_SELECTOR / 8] = saved & ~(2ul << 40);
  asm volatile("ltr %0" ::"r"((uint16_t)TSS_SELECTOR));
}

void guest_main(void) {
  default_gates();
  gdt[0x50 / 8] = 0x0000820000000017;  // LDT
  gdt[0x58 / 8 + 0] = 0x0000020000000017;  // LDT, not present
  gdt[0x68 / 8] = 0x0000090000000067;  // TSS, not present
  gdt[0x78 / 8] = 0x0000820000000017;  // LDT at an address that is not canonical
  gdt[0x80 / 8] = 0x00800000;
  gdt[0x88 / 8] = 0x00408e0000080000;  // interrupt gate
  gdt[0x90 / 8] = 0x0000ec0000080000;  // call gate
  static const struct {
    const char* name;
    unsigned long bit;
  } kModes[] = {
      {"", 0},
      {", UMIP", CR4_UMIP},
      {", TSD", CR4_TSD},
      {", PCE", CR4_PCE},
      {", DE", CR4_DE},
      {", OSXSAVE", CR4_OSXSAVE},
      {", FSGSBASE", CR4_FSGSBASE},
      {", SMAP", CR4_SMAP},
  };
  write_msr(0xc0000081, 0x0018000800000000);
  write_msr(0xc0000084, FL_IF | FL_TF);
  for (unsigned mode = 0; mode < sizeof kModes / sizeof *kModes; ++mode) {
    mode_cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | kModes[mode].bit;
    write_cr4(mode_cr4);
    for (cpl = 0; cpl <= 3; cpl += 3) {
      say("-- CPL %d%s\n", (unsigned long)cpl, kModes[mode].name);
      critical();
      privileged();
    }
  }
  io_bitmap();
  finish();
}
