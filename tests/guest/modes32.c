// Real mode and the ways between the modes: exceptions and limits in real mode, unreal mode, the A20 gate, CR0.PE set and cleared
// under running code, 16-bit code in a 32-bit system and back, stacks of both sizes, SYSENTER and SYSCALL outside long mode.
#include "runtime/guest.h"

enum { CODE_SEGMENT = 0x1000, DATA_SEGMENT = 0x2000, STACK_SEGMENT = 0x3000 };
enum { TEST = FREE_SELECTOR, STACK16 = FREE_SELECTOR + 8, CODE16 = FREE_SELECTOR + 16, TINY = FREE_SELECTOR + 24 };

static unsigned limits;

static void run_real(const char* code, struct setup setup) {
  memcpy((void*)0x6000, real_image, (size_t)(real_image_end - real_image));
  uint32_t* const vectors = (uint32_t*)0;
  for (unsigned vector = 0; vector < 256; ++vector) vectors[vector] = 0x6000 + vector * 8;
  memset((void*)(CODE_SEGMENT * 16), 0xf4, 0x10000);
  memcpy((void*)(CODE_SEGMENT * 16 + 0x100), code, 0x200);
  uint8_t* const data = (uint8_t*)(DATA_SEGMENT * 16);
  for (unsigned i = 0; i < 0x100; ++i) data[i] = (uint8_t)(i * 3);
  memcpy(data + 0x100, data, 0xff00);  // upwards: repeats the first 256 bytes
  memset((void*)(STACK_SEGMENT * 16), 0xaa, 0x10000);
  const struct machine_state state = {
      .ax = setup.ax ? setup.ax : 0x1111,
      .cx = setup.cx ? setup.cx : 0x2222,
      .dx = setup.dx ? setup.dx : 0x3333,
      .bx = setup.bx ? setup.bx : 0x4444,
      .sp = setup.sp ? setup.sp : 0x1000,
      .bp = setup.bp ? setup.bp : 0x5555,
      .si = setup.si ? setup.si : 0x10,
      .di = setup.di ? setup.di : 0x20,
      .ip = setup.ip ? setup.ip : 0x100,
      .flags = setup.flags | FL_FIXED,
      .cs = CODE_SEGMENT,
      .ss = STACK_SEGMENT,
      .ds = setup.ds ? setup.ds : DATA_SEGMENT,
      .es = setup.es ? setup.es : DATA_SEGMENT,
      .fs = DATA_SEGMENT,
      .gs = 0xffff,
  };
  asm volatile("fninit");
  enter_real(&state, limits ? limits : KDATA16);
  write_cr0(CR0_PE | CR0_MP | CR0_NE | 16);
}

static void report_real(const char* name) {
  const struct machine_state* const state = &caught.state;
  say("%s: ", name);
  if (caught.vector == END) {
    say("done");
  } else {
    say("vector %x", caught.vector);
  }
  say(" %x:%x flags=%x handler %x sp=%x ax=%x cx=%x dx=%x\n", state->cs, state->ip,
      state->flags & ~(unsigned long)FL_ARITHMETIC, caught.handler_flags & ~(unsigned long)FL_ARITHMETIC, state->sp, state->ax,
      state->cx, state->dx);
}

#define REAL(name, text, ...)                                        \
  run_real(CODE_BITS("16", text), (struct setup){__VA_ARGS__});      \
  report_real(name)

#define NOT_TCG(name, text)              \
  if (is_tcg()) {                        \
    say("%s: not tried\n", name);        \
  } else {                               \
    REAL(name, text);                    \
  }

static void real_exceptions(void) {
  say("-- exceptions of real mode\n");
  REAL("nothing", "nop");
  REAL("DIV by zero", "xor cx, cx; div cx");
  REAL("IDIV that overflows", "mov ax, 0x8000; mov cl, 1; idiv cl");
  REAL("AAM 0", "aam 0");
  REAL("INT3", "int3");
  REAL("INT n", "int 0x44");
  REAL("INT n with all flags", "int 0x44", .flags = FL_NT | FL_IOPL | FL_DF);
  REAL("INTO", "mov al, 0x7f; inc al; into");
  REAL("INTO with OF clear", "xor ax, ax; into");
  REAL("BOUND", "mov dword ptr [si], 0x00090005; mov ax, 4; bound ax, [si]");
  REAL("BOUND inside", "mov dword ptr [si], 0x00090005; mov ax, 6; bound ax, [si]");
  REAL("UD2", "nop; ud2");
  REAL("LOCK on a register", ".byte 0xf0, 0x01, 0xc0");
  REAL("ICEBP", ".byte 0xf1");
  REAL("TF", "nop; nop", .flags = FL_TF);
  REAL("TF, INT n", "int 0x44", .flags = FL_TF);
  REAL("POPF that sets TF", "pushw 0x102; popf; nop; nop");
  REAL("MOV SS with TF", "mov ax, ss; mov ss, ax; nop; nop", .flags = FL_TF, .ax = 0);
  REAL("FNOP with TS", "mov eax, cr0; or al, 8; mov cr0, eax; fnop; clts");
  REAL("FNOP with EM", "mov eax, cr0; or al, 4; mov cr0, eax; fnop");
  REAL("#MF", "mov word ptr [si], 0x37b; fldcw [si]; fld1; fldz; fdivp; fwait");
  REAL("ADDPS", "xorps xmm0, xmm0");
  REAL("VADDPS", "vxorps xmm0, xmm0, xmm0");
  REAL("instruction of 16 bytes", ".fill 15, 1, 0x66; nop");
  REAL("LAR", "lar ax, ax");
  REAL("LSL", "lsl ax, ax");
  REAL("VERR", "verr ax");
  REAL("VERW", "verw ax");
  REAL("ARPL", ".byte 0x63, 0xc0");
  REAL("SLDT", "sldt ax");
  REAL("STR", "str ax");
  REAL("LLDT", "lldt ax");
  REAL("LTR", "ltr ax");
  REAL("SMSW", "smsw ax");
  REAL("LMSW of what is there", "smsw ax; lmsw ax");
  REAL("CLTS", "clts");
  REAL("INVLPG", "invlpg [si]");
  REAL("WBINVD", "wbinvd");
  REAL("RDMSR", "mov ecx, 0xc0000080; rdmsr");
  REAL("RDMSR of one that does not exist", "mov ecx, 0x12345; rdmsr");
  REAL("MOV from CR1", ".byte 0x0f, 0x20, 0xc8");
  NOT_TCG("MOV to CR0 with PG and no PE", "mov eax, cr0; bts eax, 31; mov cr0, eax");
  NOT_TCG("MOV to CR0 with NW and no CD", "mov eax, cr0; bts eax, 29; mov cr0, eax");
  NOT_TCG("MOV to CR4 with a reserved bit", "mov eax, cr4; bts eax, 31; mov cr4, eax");
  REAL("MOV from DR7", "mov eax, dr7");
  REAL("SYSENTER", "sysenter");
  REAL("SYSEXIT", "sysexit");
  REAL("SYSCALL", "syscall");
  REAL("SYSRET", "sysret");
  REAL("RSM", "rsm");
  REAL("MOV to CS", ".byte 0x8e, 0xc8");
  REAL("MOV to segment register 6", ".byte 0x8e, 0xf0");
  REAL("LES of a register", ".byte 0xc4, 0xc0");
  REAL("PUSHF", "pushf; pop ax; and ax, 0xf72a", .flags = FL_NT | FL_IOPL);
  REAL("PUSHFD", "pushfd; pop eax; and eax, 0xfffff72a", .flags = FL_NT | FL_IOPL);
  REAL("POPF of everything but TF", "pushw 0x7ed7; popf; mov ax, 0");
  REAL("POPFD of everything but TF", "pushd 0x3f7ed7; popfd; pushfd; pop eax; and eax, 0xfffff72a; pushw 2; popf");
  REAL("IRET", "pushw 0x3002; push cs; pushw 0x130; iret; .fill 0x20, 1, 0xf4; .fill 0x20, 1, 0x90");
  REAL("IRETD", "pushd 0x3002; pushd 0x1000; pushd 0x138; iretd; .fill 0x20, 1, 0xf4; .fill 0x20, 1, 0x90");
  REAL("IRETD to EIP beyond FFFF", "pushd 0x3002; pushd 0x1000; pushd 0x10120; iretd");
  REAL("far RET", "push cs; pushw 0x130; retf; .fill 0x20, 1, 0xf4; .fill 0x20, 1, 0x90");
  REAL("far RET, 32 bits, to EIP beyond FFFF", "pushd 0x1000; pushd 0x10120; .byte 0x66; retf");
  REAL("far CALL", ".byte 0x9a, 0x30, 0x01, 0x00, 0x10; .fill 0x20, 1, 0xf4; .fill 0x20, 1, 0x90");
  REAL("far JMP, 32 bits", ".byte 0x66, 0xea, 0x30, 0x01, 0, 0, 0x00, 0x10; .fill 0x20, 1, 0xf4; .fill 0x20, 1, 0x90");
  REAL("far JMP, 32 bits, to EIP beyond FFFF", ".byte 0x66, 0xea, 0x20, 0x01, 1, 0, 0x00, 0x10");
  REAL("near JMP, 32 bits, beyond FFFF", ".byte 0x66, 0xe9, 0x00, 0x00, 0x01, 0x00");
  REAL("near CALL, 32 bits", ".byte 0x66, 0xe8, 0, 0, 0, 0; pop eax");
  RUN("mov dword ptr [ebx], 0x4400; 1: jmp 1b", .bx = 0xfee00300);  // the local APIC sends an NMI to itself
  *(volatile uint32_t*)0xfee00300 = 0x4400;                         // blocked until the IRET that begins the check
  REAL("NMI", "nop; nop");
  REAL("NMI that is over", "nop; nop");
  REAL("jump that wraps", "mov word ptr cs:[3], 0x81cd; .byte 0xe9, 0xf9, 0xfe");

  say("-- limits of real mode\n");
  REAL("read of a byte at FFFF", "mov si, 0xffff; mov al, [si]; mov ah, 0");
  REAL("read of a word at FFFF", "mov si, 0xffff; mov ax, [si]");
  REAL("write of a word at FFFF", "mov si, 0xffff; mov [si], ax");
  REAL("read of a dword at FFFD", "mov si, 0xfffd; mov eax, [si]");
  REAL("read of a dword at FFFC", "mov si, 0xfffc; mov eax, [si]");
  REAL("FLD m64 at FFF9", "mov si, 0xfff9; fld qword ptr [si]");
  REAL("32-bit address 10000", "mov ebx, 0x10000; mov al, [ebx]");
  REAL("32-bit address FFFF, byte", "mov ebx, 0xffff; mov al, [ebx]; mov ah, 0");
  REAL("code segment, 32-bit address 10000", "mov ebx, 0x10000; mov al, cs:[ebx]");
  REAL("read from the stack segment at FFFF", "mov bp, 0xffff; mov ax, [bp]");
  REAL("read through ES at FFFF", "mov si, 0xffff; mov ax, es:[si]");
  REAL("effective address that wraps", "mov bx, 0xfff0; mov si, 0x30; mov ax, [bx + si]");
  REAL("32-bit effective address that does not", "mov ebx, 0xfff0; mov esi, 0x30; mov ax, [ebx + esi]");
  REAL("PUSH with SP 0", "mov sp, 0; push ax; mov ax, sp; mov sp, 0x1000");
  REAL("PUSH with SP 2", "mov sp, 2; push ax; mov ax, sp; mov sp, 0x1000");
  REAL("PUSHD with SP 2", "mov sp, 2; pushd 5; mov ax, sp; mov sp, 0x1000");
  REAL("POP with SP FFFF", "mov sp, 0xffff; pop ax");
  REAL("POP with SP FFFE", "mov sp, 0xfffe; pop ax; mov ax, sp; mov sp, 0x1000");
  REAL("PUSHA with SP 2000", "mov sp, 0x2000; pusha; mov ax, sp; popa; mov sp, 0x1000");
  REAL("POPA over the end", "mov sp, 0xfff8; popa; mov ax, sp; mov sp, 0x1000");
  REAL("ENTER", "enter 0x10, 2; mov ax, sp; leave");
  REAL("upper half of ESP", "mov esp, 0x12341000; push ax; pop ax; mov eax, esp; mov esp, 0x1000");
  REAL("upper half of EBP, LEAVE", "mov ebp, 0x12340f00; leave; mov eax, esp; mov esp, 0x1000");
  REAL("PUSH SP", "push sp; pop ax");
  REAL("MOVSW with SI FFFF", "mov si, 0xffff; movsw");
  REAL("REP MOVSB that wraps", "mov si, 0xfff0; mov di, 0x100; mov cx, 0x20; rep movsb; mov ax, si; mov dx, di");
  REAL("REP STOSW that wraps", "mov di, 0xfff0; mov cx, 0x20; rep stosw; mov ax, di");
  REAL("REP STOSW that meets FFFF", "mov di, 0xffe1; mov cx, 0x20; rep stosw");
  REAL("REP LODSD by ESI that passes FFFF", "mov esi, 0xfff8; mov ecx, 4; .byte 0x67; rep lodsd");
  REAL("LODSB by SI, ESI's upper half", "mov esi, 0x12340010; lodsb; mov eax, esi");
  REAL("LOOP with ECX's upper half", "mov ecx, 0x10001; 1: nop; loop 1b");
  REAL("LOOP, 32-bit addresses", "mov ecx, 0x10001; 1: dec dx; .byte 0x67; loop 1b", .dx = 0x20000);
  REAL("JCXZ with ECX's upper half", "mov ecx, 0x10000; jcxz 1f; inc ax; 1: nop");
  REAL("JECXZ with ECX's upper half", "mov ecx, 0x10000; jecxz 1f; inc ax; 1: nop");
  REAL("code that runs off FFFF", "mov word ptr cs:[0], 0x81cd; mov byte ptr cs:[0xffff], 0x90; mov bx, 0xffff; jmp bx");
  REAL("segment arithmetic", "mov ax, 0x1fff; mov ds, ax; mov ax, [0x10]; mov cx, ds");
  REAL("LDS", "mov dword ptr [si], 0x20001234; lds bx, [si]; mov ax, ds; mov cx, bx");
  REAL("LSS", "mov dword ptr [si], 0x30000f00; lss sp, [si]; mov ax, ss; mov cx, sp");
  REAL("POP DS, 32 bits", "pushd 0xabcd2001; .byte 0x66; pop ds; mov ax, ds");
  REAL("LGDT and SGDT, 16 bits", "mov word ptr [si], 0x1234; mov dword ptr [si + 2], 0xff345678; lgdt [si]; sgdt [si + 8]; mov eax, [si + 10]");
  REAL("LGDT and SGDT, 32 bits", "mov word ptr [si], 0x1234; mov dword ptr [si + 2], 0xff345678; .byte 0x66; lgdt [si]; sgdt [si + 8]; mov eax, [si + 10]");

  say("-- the table of vectors\n");
  REAL("moved and short: vector 44h", "mov word ptr [si], 0x43 * 4 + 3; mov dword ptr [si + 2], 0; lidt [si]; int 0x44");
  REAL("moved and just long enough", "mov word ptr [si], 0x81 * 4 + 3; mov dword ptr [si + 2], 0; lidt [si]; int 0x81");
  REAL("moved", "mov dword ptr [si + 0x81 * 4 + 8], 0x6000 + 0x55 * 8; mov word ptr [si], 0x3ff; mov dword ptr [si + 2], 0x20018; lidt [si]; int 0x81");
  REAL("SIDT", "sidt [si]; mov eax, [si + 2]; mov cx, [si]");
}

static void unreal(void) {
  say("-- limits that outlive protected mode\n");
  limits = KDATA;
  *(uint32_t*)DATA = 0x12345678;
  REAL("read at 8 MiB", "mov ebx, 0x800000 - 0x20000; mov eax, [ebx]");
  REAL("and after a load of DS", "xor ax, ax; mov ds, ax; mov ebx, 0x800000; mov eax, [ebx]");
  REAL("through ES", "xor ax, ax; mov es, ax; mov ebx, 0x800000; mov eax, es:[ebx]");
  REAL("through GS", "mov ebx, 0x800000 - 0xffff0; mov eax, gs:[ebx]");
  REAL("write", "xor ax, ax; mov ds, ax; mov ebx, 0x800004; mov dword ptr [ebx], 0x99; mov eax, [ebx]");
  REAL("word at FFFF", "mov si, 0xffff; mov word ptr [si], 0x2211; mov ax, [si]");
  REAL("REP MOVSD by ESI and EDI", "xor ax, ax; mov ds, ax; mov es, ax; mov esi, 0x800000; mov edi, 0x800010; mov ecx, 2; .byte 0x67; rep movsd;"
       "mov ebx, 0x800010; mov eax, [ebx]");
  REAL("SS is as it was", "mov ebp, 0x10000; mov eax, [ebp]");
  REAL("CS is as it was", "mov ebx, 0x10000; mov eax, cs:[ebx]");
  REAL("address that wraps at 4 GiB", "mov ebx, 0xfffe0000; mov eax, [ebx]; and eax, 0; mov ebx, 0xfffffff0; mov al, gs:[ebx + 0x20]; mov al, 0");
  REAL("INT n keeps them", "int 0x44");
  limits = 0;
  REAL("limits of 64 KiB again", "mov ebx, 0x800000 - 0x20000; mov eax, [ebx]");
  // Inside real mode: there and back without leaving the code segment.
  REAL("made in real mode",
       "cli; push ds; mov word ptr [si], 0x1ff; mov dword ptr [si + 2], ecx; .byte 0x66; lgdt [si]; mov eax, cr0; or al, 1; mov cr0, eax;"
       "mov bx, 0x10; mov ds, bx; and al, 0xfe; mov cr0, eax; pop ds; mov ebx, 0x800000 - 0x20000; mov eax, [ebx]",
       .cx = (unsigned long)gdt);
  REAL("a small limit made in real mode",
       "cli; mov word ptr [si], 0x1ff; mov dword ptr [si + 2], ecx; .byte 0x66; lgdt [si]; mov eax, cr0; or al, 1; mov cr0, eax;"
       "mov bx, 0x60; mov ds, bx; and al, 0xfe; mov cr0, eax; xor bx, bx; mov ds, bx; mov al, [0x10]; mov al, [0xff]; mov ax, [0xff]",
       .cx = (unsigned long)gdt);
  REAL("a read-only segment made in real mode",
       "cli; mov word ptr [si], 0x1ff; mov dword ptr [si + 2], ecx; .byte 0x66; lgdt [si]; mov eax, cr0; or al, 1; mov cr0, eax;"
       "mov bx, 0x68; mov es, bx; and al, 0xfe; mov cr0, eax; mov bx, 0x2000; mov es, bx; mov byte ptr es:[0x10], 0x77; movzx ax, byte ptr es:[0x10]",
       .cx = (unsigned long)gdt);
}

static void protection_switched(void) {
  say("-- CR0.PE under running code\n");
  REAL("set and cleared", "mov eax, cr0; or al, 1; mov cr0, eax; mov bx, cs; mov dx, ds; and al, 0xfe; mov cr0, eax; mov ax, bx");
  REAL("LMSW sets, MOV clears", "mov ax, 1; lmsw ax; smsw bx; mov eax, cr0; and al, 0xfe; mov cr0, eax; mov ax, bx; and ax, 1");
  REAL("memory between", "mov eax, cr0; or al, 1; mov cr0, eax; mov bx, [si]; push bx; pop dx; and al, 0xfe; mov cr0, eax; mov ax, bx");
  REAL("jump between", "mov eax, cr0; or al, 1; mov cr0, eax; jmp 1f; ud2; 1: and al, 0xfe; mov cr0, eax");
  REAL("loop between", "mov eax, cr0; or al, 1; mov cr0, eax; mov cx, 100; xor dx, dx; 1: add dx, cx; loop 1b; and al, 0xfe; mov cr0, eax");
  REAL("far jump into a 16-bit segment and back",
       "cli; push ds; mov word ptr [si], 0x1ff; mov dword ptr [si + 2], ecx; .byte 0x66; lgdt [si]; mov eax, cr0; or al, 1; mov cr0, eax;"
       ".byte 0xea; .word 0x100 + 1f - 771b, 0x58; 1: mov bx, cs; mov dx, bx; mov bx, 0x30; mov ds, bx; and al, 0xfe; mov cr0, eax;"
       ".byte 0xea; .word 0x100 + 2f - 771b, 0x1000; 2: pop ds; mov bx, cs; mov ax, bx",
       .cx = (unsigned long)gdt);
  REAL("CPL is 0 with any CS", "cli; mov eax, cr0; or al, 1; mov cr0, eax; mov bx, cs; mov eax, cr0; and al, 0xfe; mov cr0, eax; mov ax, bx");
}

// Address bit 20. All of it in real mode below 1 MiB, since the harness lies at 1 MiB.
static void a20(void) {
  say("-- A20\n");
  // GS begins at FFFF0h.
  // A chipset opens the gate when port 92h or the keyboard controller says so; in QEMU the last one decides.
#define CLOSED "mov al, 0xdd; out 0x64, al; mov al, 0; out 0x92, al;"
#define OPEN "mov al, 2; out 0x92, al; mov al, 0xdf; out 0x64, al;"
  *(uint32_t*)0x5f0 = 0x11111111;
  REAL("open, the word at 1 MiB is another", "mov eax, gs:[0x600]; cmp eax, fs:[0]; mov ax, 0; xor cx, cx; mov ds, cx; mov ecx, [0x5f0]");
  REAL("closed, read", CLOSED "xor cx, cx; mov ds, cx; mov ecx, gs:[0x600]; " OPEN);
  REAL("closed, write", CLOSED "xor cx, cx; mov ds, cx; mov dword ptr gs:[0x600], 0x22222222; mov ecx, [0x5f0]; " OPEN);
  REAL("closed, both ways", CLOSED "xor cx, cx; mov ds, cx; mov dword ptr [0x5f0], 0x33333333; mov ecx, gs:[0x600]; " OPEN);
  REAL("opened in between", CLOSED "xor dx, dx; mov ds, dx; mov ecx, gs:[0x600]; " OPEN "mov edx, gs:[0x600]; sub edx, ecx; cmp edx, 1; sbb dx, dx; inc dx; movzx edx, dx");
  REAL("LODSD", CLOSED "push gs; pop ds; mov si, 0x600; lodsd; mov ecx, eax; " OPEN);
  REAL("REP MOVSB", CLOSED "push gs; pop ds; xor ax, ax; mov es, ax; mov si, 0x600; mov di, 0x5f4; mov cx, 4; rep movsb; mov ecx, es:[0x5f4]; " OPEN);
  REAL("stack", CLOSED "push ss; pop dx; mov bx, sp; mov ax, gs; mov ss, ax; mov sp, 0x610; pushd 0x55555555; xor ax, ax; mov ds, ax; mov ecx, [0x5fc];"
       "mov ss, dx; mov sp, bx; " OPEN);
  // FFFF:0610 is 600h, where "mov cx, 77h; retf" lies; opened, it would be the harness' own code.
  REAL("code", "xor ax, ax; mov ds, ax; mov dword ptr [0x600], 0xcb0077b9; " CLOSED "call 0xffff:0x610; mov dword ptr [0x600], 0xcb0088b9; call 0xffff:0x610; mov dx, cx;"
       "mov dword ptr gs:[0x610], 0xcb0099b9; call 0x0000:0x600; " OPEN);
  REAL("through the keyboard controller",
       "xor cx, cx; mov ds, cx; mov al, 0; out 0x92, al; mov bx, 3; 0: mov dx, 0x64; 1: in al, dx; test al, 2; jnz 1b; mov al, 0xd1; out dx, al; 2: in al, dx; test al, 2;"
       "jnz 2b; cmp bx, 3; mov al, 0xdf; jne 3f; mov al, 0xdd; 3: out 0x60, al; 4: in al, dx; test al, 2; jnz 4b; cmp bx, 3; jne 5f;"
       "mov dword ptr [0x5f0], 0x66666666; mov ecx, gs:[0x600]; dec bx; jmp 0b; 5: mov ax, bx");
  REAL("open again", "xor cx, cx; mov ds, cx; mov dword ptr [0x5f0], 0x77777777; mov ecx, gs:[0x600]; cmp ecx, 0x77777777; setz cl; movzx ecx, cl; xor ax, ax");
}

static void mixed(void) {
  gdt[STACK16 / 8] = descriptor(0, 0xfffff, 0x93, 0);
  gdt[CODE16 / 8] = descriptor(CODE_SEGMENT * 16, 0xffff, 0x9b, 0);
  say("-- a 32-bit system with a 16-bit stack\n");
#define NARROW(name, text, ...) CHECK(name, text, .ss = KDATA16, .sp = 0x12348000, __VA_ARGS__)
  NARROW("PUSH and POP", "push 0x11; pop eax; mov ecx, esp", .show = "ac");
  NARROW("PUSH", "push 0x11; mov ecx, esp; mov eax, [esi]", .show = "c", .si = 0x7ffc);
  NARROW("PUSH, 16 bits", "pushw 0x11; mov ecx, esp", .show = "c");
  NARROW("CALL and RET", "call 1f; jmp 2f; 1: mov ecx, esp; ret; 2: mov edx, esp", .show = "cd");
  NARROW("RET n", "push 1; push 2; call 1f; jmp 2f; 1: ret 8; 2: mov edx, esp", .show = "d");
  NARROW("PUSHA and POPA", "pushad; mov ecx, esp; mov [0x8000 - 24], ecx; popad", .show = "c");
  NARROW("ENTER", "enter 0x20, 0; mov ecx, esp; mov edx, ebp; leave; mov eax, esp", .show = "acdB");
  NARROW("ENTER with levels", "mov ebp, 0x7ff0; enter 0x20, 3; mov ecx, esp; mov edx, ebp", .show = "cd");
  NARROW("LEAVE with EBP's upper half", "mov ebp, 0xabcd7000; mov dword ptr [0x7000], 0x99; leave; mov ecx, esp", .show = "cB");
  NARROW("wrap at 0", "mov sp, 0; push 0x77; mov ecx, esp; mov eax, [0xfffc]; mov sp, 0x8000", .show = "ac");
  NARROW("wrap at 64 KiB", "mov esp, 0x1234fffc; pop eax; mov ecx, esp; mov esp, 0x8000", .show = "c");
  NARROW("POP to [ESP]", "push 5; push 6; pop dword ptr [esp - 0x12340000]; pop eax", .show = "a");
  NARROW("IRETD", "push 2; push 8; lea eax, [1f]; push eax; iretd; 1: mov ecx, esp", .show = "c");
  NARROW("far RET", "push 8; lea eax, [1f]; push eax; retf; 1: mov ecx, esp", .show = "c");
  NARROW("exception", "ud2", .show = "p");
  NARROW("POPF", "push 0x202; popfd; cli; mov ecx, esp", .show = "c");
  NARROW("PUSH of memory by ESP", "mov dword ptr [0x8000], 0x31; mov esp, 0x8000; push dword ptr [esp]; pop eax", .show = "a");

  say("-- 16-bit code in a 32-bit system\n");
  static const uint8_t kFarReturn[] = {0x89, 0xe1, 0x8c, 0xca, 0xcb};        // MOV CX, SP; MOV DX, CS; RETF
  static const uint8_t kFarReturn32[] = {0x66, 0x89, 0xe1, 0x8c, 0xca, 0x66, 0xcb};  // the same with 32-bit operands
  memcpy((void*)(CODE_SEGMENT * 16), kFarReturn32, sizeof kFarReturn32);
  memcpy((void*)(CODE_SEGMENT * 16 + 0x10), kFarReturn, sizeof kFarReturn);
  CHECK("far CALL from 32-bit code, RETF of 32 bits", ".byte 0x9a, 0, 0, 0, 0, 0x58, 0; mov eax, esp", .show = "acd");
  memcpy((void*)0x9000, CODE(".byte 0x66, 0x9a, 0x10, 0, 0x58, 0; mov eax, esp"), 32);
  run((const char*)0, (struct setup){.ip = 0x9000});
  say("far CALL of 16 bits from 32-bit code: ");
  report("acd");
  memcpy((void*)0x19000, CODE(".byte 0x66, 0xe9, 0x10, 0"), 32);
  memcpy((void*)0x9014, CODE("inc eax"), 32);
  run((const char*)0, (struct setup){.ip = 0x19000});
  say("near JMP of 16 bits truncates EIP: ");
  report("a");
  memcpy((void*)0x19000, CODE("xor eax, eax; .byte 0x66, 0x74, 0x10"), 32);
  run((const char*)0, (struct setup){.ip = 0x19000});
  say("short Jcc of 16 bits truncates EIP: ");
  report("a");
  CHECK("near RET of 16 bits", "mov word ptr [0x8010], 0x81cd; pushw 0x8010; .byte 0x66; ret", .show = "p");
  CHECK("near CALL of 16 bits through a register", "mov word ptr [0x8010], 0x81cd; mov eax, 0x12348010; .byte 0x66; call eax", .show = "p");
  CHECK("Jcc of 16 bits, not taken", "xor eax, eax; .byte 0x66, 0x0f, 0x85, 0x34, 0x12; inc eax", .show = "a");
  CHECK("LOOP of CX", "mov ecx, 0x10002; xor eax, eax; 1: inc eax; .byte 0x67; loop 1b", .show = "ac");
  CHECK("JCXZ in 32-bit code", "mov ecx, 0x10000; xor eax, eax; jcxz 1f; inc eax; 1:", .show = "ac");
  CHECK("REP MOVSB of CX, SI and DI", "mov ecx, 0x12340004; mov esi, 0x56788000; mov edi, 0x9abc8100; .byte 0x67; rep movsb", .show = "csi");
  CHECK("16-bit addresses wrap", "mov dword ptr [0x8020], 0x4711; mov ebx, 0xffff8010; mov esi, 0x12340010; .byte 0x67; mov eax, [bx + si]", .show = "a");
  CHECK("LEA with 16-bit addresses", "mov ebx, 0xffff8010; mov esi, 0x1234fff0; lea eax, [bx + si + 0x20]", .show = "a");
  CHECK("XLAT by BX", "mov byte ptr [0x8021], 0x5a; mov ebx, 0x77778020; mov eax, 1; .byte 0x67; xlatb", .show = "a");
  memcpy((void*)0x9000, CODE_BITS("16", "mov eax, 0x12345678; push eax; pop edx; push ax; mov ecx, esp; pop ax; call 1f; jmp 2f; 1: ret; 2: mov ebx, esp"), 64);
  run((const char*)0, (struct setup){.cs = KCODE16, .ip = 0x9000});
  say("16-bit code with a 32-bit stack: ");
  report("acdbp");
  run((const char*)0, (struct setup){.cs = KCODE16, .ip = 0x9000, .ss = KDATA16, .sp = 0x12348000});
  say("16-bit code with a 16-bit stack: ");
  report("acdb");
  memcpy((void*)0x9000, CODE_BITS("16", "jmp 1f; .fill 0x40, 1, 0xf4; 1: mov cx, 3; 2: dec ax; loop 2b; .byte 0x66, 0xea; .long 0x9100; .word 8"), 96);
  memcpy((void*)0x9100, CODE("mov edx, cs; mov ebx, esp"), 32);
  run((const char*)0, (struct setup){.cs = KCODE16, .ip = 0x9000, .ax = 0x10000});
  say("16-bit code that jumps to 32-bit code: ");
  report("acdb");
  if (!is_tcg()) {  // it jumps there
    memcpy((void*)0x9000, CODE_BITS("16", "mov eax, 0x12345; jmp eax"), 32);
    run((const char*)0, (struct setup){.cs = KCODE16, .ip = 0x9000});
    say("16-bit code, JMP EAX beyond 64 KiB: ");
    report("S");
    memcpy((void*)0x9000, CODE_BITS("16", ".byte 0x66, 0xe9; .long 0x10000"), 32);
    run((const char*)0, (struct setup){.cs = KCODE16, .ip = 0x9000});
    say("16-bit code, JMP rel32 beyond 64 KiB: ");
    report("S");
  }
  memcpy((void*)0x9000, CODE_BITS("16", ".byte 0x66, 0xe8, 0, 0, 0, 0; pop eax; mov ecx, esp"), 32);
  run((const char*)0, (struct setup){.cs = KCODE16, .ip = 0x9000});
  say("16-bit code, CALL of 32 bits: ");
  report("a");
}

static void fast_calls(void) {
  say("-- SYSENTER and SYSEXIT\n");
  static const char* target;
  target = CODE("mov ecx, esp; mov eax, cs; mov edx, ss; pushfd; pop ebx; and ebx, 0x3300");
  write_msr(0x175, STACK_TOP - 0x100);
  write_msr(0x176, (unsigned long)target);
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    static const unsigned kSelectors[] = {0, 3, KCODE, KCODE + 3};
    for (unsigned i = 0; i < 4; ++i) {
      write_msr(0x174, kSelectors[i]);
      say("SYSENTER_CS %x, CPL %d: ", (unsigned long)kSelectors[i], (unsigned long)cpl);
      RUN("sysenter", .cpl = cpl, .flags = FL_IF | FL_IOPL);
      report("acdbS");
    }
  }
  write_msr(0x174, KCODE);
  CHECK("SYSENTER with TF", "sysenter", .cpl = 3, .flags = FL_TF, .show = "Sf6");
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    say("SYSEXIT, CPL %d: ", (unsigned long)cpl);
    RUN("lea edx, [1f]; mov ecx, 0x8ff000; sysexit; nop; 1: mov eax, ds", .cpl = cpl);
    report("apS");
  }
  write_msr(0x174, 0);
  CHECK("SYSEXIT, SYSENTER_CS 0", "sysexit", .show = "S");
  say("-- SYSCALL and SYSRET in protected mode\n");
  write_msr(0xc0000081, (uint64_t)KCODE << 32 | (uint64_t)(UCODE - 3) << 48 | (unsigned long)CODE("mov eax, cs; mov edx, ss"));
  CHECK("SYSCALL without SCE", "syscall", .cpl = 3, .show = "S");
  write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_SCE);
  for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
    say("SYSCALL, CPL %d: ", (unsigned long)cpl);
    RUN("syscall", .cpl = cpl, .flags = FL_IF | FL_IOPL);
    report("adSf");
    say("SYSRET, CPL %d: ", (unsigned long)cpl);
    RUN("lea ecx, [1f]; sysret; nop; 1: mov eax, cs; mov edx, ss", .cpl = cpl);
    report("adSf");
  }
  write_msr(MSR_EFER, read_msr(MSR_EFER) & ~(uint64_t)EFER_SCE);
}

void guest_main(void) {
  default_gates();
  *(uint32_t*)(tss + 4) = STACK_TOP - 0x1000;
  gdt[CODE16 / 8] = descriptor(CODE_SEGMENT * 16, 0xffff, 0x9b, 0);
  gdt[TINY / 8] = descriptor(0, 0xff, 0x93, 0);
  gdt[TINY / 8 + 1] = descriptor(0, 0xffff, 0x91, 0);
  real_exceptions();
  unreal();
  protection_switched();
  a20();
  default_gates();
  mixed();
  fast_calls();
  finish();
}
