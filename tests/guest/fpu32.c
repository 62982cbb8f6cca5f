// x87, SSE and their images outside 64-bit mode: the four layouts of FNSTENV and FNSAVE, images that leave XMM8 to XMM15 alone, and
// unmasked exceptions. The rest is fpu64.c's.
#include "runtime/guest.h"

static unsigned cpl;
static const uint32_t kInitial[128] __attribute__((aligned(16))) = {[0] = 0x37f, [6] = 0x1f80};

static void put_hex(const uint8_t* bytes, unsigned count) {
  while (count--) say("%c%c", "0123456789abcdef"[bytes[count] >> 4], "0123456789abcdef"[bytes[count] & 15]);
}

static void put_image(unsigned size) {
  const uint8_t* const bytes = (const uint8_t*)DATA;
  put_outcome("");
  for (unsigned i = 0; i < size; i += 16) {
    bool touched = false;
    for (unsigned j = i; j < i + 16 && j < size; ++j) touched = touched || bytes[j] != 0xcc;
    if (!touched) continue;
    say(" %x=", (unsigned long)i);
    for (unsigned j = i; j < i + 16 && j < size; ++j) {
      if (bytes[j] == 0xcc) {
        say("..");
      } else {
        put_hex(bytes + j, 1);
      }
    }
  }
  say("\n");
}

static uint32_t pattern[256] __attribute__((aligned(64)));
static void fill_registers(bool with_avx) {
  uint8_t* const bytes = (uint8_t*)pattern;
  for (unsigned i = 0; i < sizeof pattern; ++i) bytes[i] = (uint8_t)(i * 7 + 1);
  for (unsigned i = 0; i < 8; ++i) {
    memset(bytes + 32 + i * 16 + 10, 0, 6);
    *(uint16_t*)(bytes + 32 + i * 16 + 8) = (uint16_t)(0x3ff0 + i);
    bytes[32 + i * 16 + 7] |= 0x80;
  }
  memset(bytes, 0, 32);
  *(uint16_t*)bytes = 0x27f;
  *(uint16_t*)(bytes + 2) = 3 << 11;
  bytes[4] = 0xf8;
  *(uint32_t*)(bytes + 24) = 0x1fa1;
  memset(bytes + 512, 0, 64);
  bytes[512] = 7;
  if (with_avx) {
    asm volatile("xrstor [%0]" ::"r"(pattern), "a"(7), "d"(0) : "memory");
  } else {
    asm volatile("fxrstor [%0]" ::"r"(pattern) : "memory");
  }
}

#define IMAGE(name, avx, text, size, ...)                              \
  memset((void*)DATA, 0xcc, 0x1000);                                    \
  fill_registers(avx);                                                  \
  run(CODE(text), (struct setup){.cpl = cpl, __VA_ARGS__});             \
  say("%s: ", name);                                                    \
  put_image(size)

static void images(void) {
  say("-- images, CPL %d\n", (unsigned long)cpl);
#define WITHOUT_POINTERS "; mov dword ptr [esi + 12], 0; mov dword ptr [esi + 16], 0; mov dword ptr [esi + 20], 0; mov dword ptr [esi + 24], 0"
#define WITHOUT_POINTERS_16 "; mov dword ptr [esi + 6], 0; mov dword ptr [esi + 10], 0"
  IMAGE("FNSTENV", false, "fnstenv [esi]" WITHOUT_POINTERS, 64);
  IMAGE("FNSTENV, 16 bits", false, ".byte 0x66; fnstenv [esi]" WITHOUT_POINTERS_16, 64);
  IMAGE("FNSAVE", false, "fnsave [esi]" WITHOUT_POINTERS, 128);
  IMAGE("FNSAVE, 16 bits", false, ".byte 0x66; fnsave [esi]" WITHOUT_POINTERS_16, 128);
  IMAGE("FNSAVE and FRSTOR", false, "fnsave [esi]; frstor [esi]; fnsave [esi + 128]" WITHOUT_POINTERS "; add esi, 128" WITHOUT_POINTERS "; sub esi, 128", 256);
  IMAGE("FNSAVE and FRSTOR, 16 bits", false,
        ".byte 0x66; fnsave [esi]; .byte 0x66; frstor [esi]; .byte 0x66; fnsave [esi + 128]" WITHOUT_POINTERS_16 "; add esi, 128" WITHOUT_POINTERS_16 "; sub esi, 128", 256);
  IMAGE("FXSAVE", false, "fxsave [esi]; mov dword ptr [esi + 28], 0", 512);
  IMAGE("FXSAVE that is not aligned", false, "fxsave [esi + 8]", 512);
  IMAGE("FXRSTOR leaves XMM8 on alone", false, "fxsave [esi]; mov dword ptr [esi + 28], 0; mov dword ptr [esi + 288], -1; fxrstor [esi]; fxsave [esi]; mov dword ptr [esi + 28], 0", 512);
  const unsigned long cr4 = read_cr4();
  write_cr4(cr4 | CR4_OSXSAVE);
  PRIVILEGED("xsetbv" ::"c"(0), "a"(7), "d"(0));
  for (unsigned long components = 1; components < 8; ++components) {
    say("components %d, ", components);
    IMAGE("XSAVE", true, "xor edx, edx; mov dword ptr [esi + 512], 0; mov dword ptr [esi + 516], 0; xsave [esi]; mov dword ptr [esi + 28], 0", 896, .ax = components);
  }
  IMAGE("XRSTOR", true, "xor edx, edx; xor eax, eax; lea edi, [esi + 512]; mov ecx, 64; rep stosb; mov eax, 7; xsave [esi]; vzeroall; fninit; xrstor [esi];"
        "xsave [esi]; mov dword ptr [esi + 28], 0; mov dword ptr [esi + 512], 0", 896);
  IMAGE("XRSTOR of what is initial", true, "xor edx, edx; xor eax, eax; lea edi, [esi + 512]; mov ecx, 64; rep stosb; mov eax, 7; xrstor [esi];"
        "fxsave [esi]; vextractf128 [esi + 512], ymm0, 1; mov dword ptr [esi + 28], 0", 576);
  IMAGE("XRSTOR with a reserved bit", true, "xor edx, edx; xor eax, eax; lea edi, [esi + 512]; mov ecx, 64; rep stosb; mov eax, 7; xsave [esi];"
        "mov byte ptr [esi + 520], 2; xrstor [esi]", 16);
  write_cr4(cr4);
}

static uint8_t state[512] __attribute__((aligned(16)));
static void exceptions(void) {
  say("-- exceptions, CPL %d\n", (unsigned long)cpl);
#define F(name, text)                                                             \
  do {                                                                            \
    memset((void*)DATA, 0, 0x100);                                                \
    PRIVILEGED("clts");                                                           \
    asm volatile("fxrstor [%0]" ::"r"(kInitial) : "memory");                      \
    run(CODE(text), (struct setup){.cpl = cpl});                                  \
    PRIVILEGED("clts");                                                           \
    say("%s: ", name);                                                            \
    put_outcome("");                                                              \
    asm volatile("fxsave [%0]; fninit" ::"r"(state) : "memory");                  \
    say(" fsw=");                                                                 \
    put_hex(state + 2, 2);                                                        \
    say(" tags=");                                                                \
    put_hex(state + 4, 1);                                                        \
    say(" mxcsr=");                                                               \
    put_hex(state + 24, 4);                                                       \
    say(" ");                                                                     \
    put_hex((const uint8_t*)DATA, 16);                                            \
    say("\n");                                                                    \
  } while (0)
#define UNMASKED(bit) "mov word ptr [esi + 32], 0x37f & ~" #bit "; fldcw [esi + 32];"
  F("1/0", "fld1; fldz; fdivp; fwait");
  F("1/0, unmasked", UNMASKED(4) "fld1; fldz; fdivp; nop; fwait");
  F("0/0, unmasked", UNMASKED(1) "fldz; fldz; fdivp; nop; fwait");
  F("stack overflow, unmasked", UNMASKED(1) "fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1; nop; fwait");
  F("stack underflow, unmasked", UNMASKED(1) "fistp dword ptr [esi]; nop; fwait");
  F("FIST that does not fit, unmasked", UNMASKED(1) "mov dword ptr [esi], 70000; fild dword ptr [esi]; fist word ptr [esi]; nop; fwait");
  F("1/3, unmasked", UNMASKED(32) "mov dword ptr [esi], 3; fld1; fidiv dword ptr [esi]; nop; fwait");
  F("#MF before a page that does not matter", UNMASKED(4) "fld1; fldz; fdivp; fld dword ptr [esi]");
  F("MMX with it pending", UNMASKED(4) "fld1; fldz; fdivp; paddb mm0, mm0");
  F("FNSTSW with it pending", UNMASKED(4) "fld1; fldz; fdivp; fnstsw [esi]");
  F("DIVSS 1/0, unmasked", "mov dword ptr [esi], 0x1d80; ldmxcsr [esi]; pcmpeqb xmm0, xmm0; psrld xmm0, 25; pslld xmm0, 23; xorps xmm1, xmm1; divss xmm0, xmm1");
  F("CVTPS2PI that does not fit, unmasked", "mov dword ptr [esi], 0x1f00; ldmxcsr [esi]; pcmpeqb xmm0, xmm0; psrld xmm0, 2; cvtps2pi mm0, xmm0");
  F("MOVAPS that is not aligned", "movaps xmm0, [esi + 8]");
  F("FCOMI in 32-bit code", "fld1; fldz; fcomip st, st(1); seta [esi]");
  F("FBSTP", "mov dword ptr [esi], 123456789; fild dword ptr [esi]; fbstp [esi]");
}

// Addresses wrap at 4 GiB, element by element.
static void gathers(void) {
  say("-- gathers, CPL %d\n", (unsigned long)cpl);
  const unsigned long cr4 = read_cr4();
  write_cr4(cr4 | CR4_OSXSAVE);
  PRIVILEGED("xsetbv" ::"c"(0), "a"(7), "d"(0));
#define GATHER(name, text)                                                                                                    \
  F(name, "mov dword ptr [esi + 0x44], 0x11223344; mov dword ptr [esi + 0x48], 0x55667788; vpcmpeqd xmm2, xmm2, xmm2;" text    \
    "; vmovdqu [esi], xmm0")
  GATHER("base and index", "lea eax, [esi + 0x50]; vmovd xmm1, eax; vpbroadcastd xmm1, xmm1; mov ebx, -0xc; vpgatherdd xmm0, [ebx + xmm1], xmm2");
  GATHER("scaled index", "mov eax, 0x20000000; vmovd xmm1, eax; vpbroadcastd xmm1, xmm1; vpgatherdd xmm0, [esi + xmm1 * 8 + 0x44], xmm2");
  GATHER("negative index", "mov eax, -0x100; vmovd xmm1, eax; vpbroadcastd xmm1, xmm1; vgatherdps xmm0, [esi + xmm1 + 0x144], xmm2");
  GATHER("index of 64 bits", "mov eax, 0x44; mov edx, 0x12345678; vmovd xmm1, eax; vpinsrd xmm1, xmm1, edx, 1; vpbroadcastq xmm1, xmm1; vpgatherqq xmm0, [esi + xmm1], xmm2");
  GATHER("elements of 64 bits", "mov eax, 0x20000008; vmovd xmm1, eax; vpbroadcastd xmm1, xmm1; vgatherdpd xmm0, [esi + xmm1 * 8 + 4], xmm2");
  write_cr4(cr4);
}

#ifndef NATIVE
// Real-mode layouts: in virtual-8086 mode.
static void narrow_images(void) {
  say("-- images of virtual-8086 mode\n");
  static const struct {
    const char* name;
    const char* bytes;
    unsigned count;
  } kCodes[] = {{"FNSTENV, 16 bits", "\xd9\x34", 2},     {"FNSTENV, 32 bits", "\x66\xd9\x34", 3}, {"FNSAVE, 16 bits", "\xdd\x34", 2},
                {"FNSAVE, 32 bits", "\x66\xdd\x34", 3}, {"FXSAVE", "\x0f\xae\x04", 3}};
  for (unsigned i = 0; i < sizeof kCodes / sizeof *kCodes; ++i) {
    uint8_t* const image = (uint8_t*)0x30000;
    memset(image, 0xcc, 0x1000);
    memset((void*)DATA, 0xcc, 0x1000);
    memcpy((void*)0x20100, kCodes[i].bytes, kCodes[i].count);
    memcpy((void*)(0x20100 + kCodes[i].count), "\xcd\x81", 2);
    fill_registers(false);
    run((const char*)0, (struct setup){.cpl = 3, .cs = 0x2000, .ip = 0x100, .ss = 0x4000, .ds = 0x3000, .sp = 0x1000, .si = 0x10, .flags = FL_VM | FL_IOPL});
    memcpy((void*)DATA, image + 0x10, 0x200);
    if (i < 4) memset((void*)(DATA + (kCodes[i].count == 2 ? 6 : 12)), 0, kCodes[i].count == 2 ? 8 : 16);  // pointers
    if (i == 4) memset((void*)(DATA + 28), 0, 4);
    say("%s: ", kCodes[i].name);
    put_image(512);
  }
}
#endif

void guest_main(void) {
  default_gates();
#ifndef NATIVE
  *(uint32_t*)(tss + 4) = STACK_TOP - 0x1000;
#endif
  for (cpl = FIRST_CPL; cpl <= 3; cpl += 3) {
    images();
    exceptions();
    gathers();
  }
#ifndef NATIVE
  narrow_images();
#endif
  finish();
}
