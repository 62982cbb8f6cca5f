// x87, MMX, SSE and AVX state: masked and unmasked exceptions and where they are raised, CR0.TS, EM and MP with CR4.OSFXSR and
// OSXSAVE, and the images of FNSTENV, FNSAVE, FXSAVE and the XSAVE family, byte by byte.
#include "runtime/guest.h"

static unsigned cpl;

static uint8_t image[1024] __attribute__((aligned(64)));

static void put_hex(const uint8_t* bytes, unsigned count) {
  while (count--) say("%c%c", "0123456789abcdef"[bytes[count] >> 4], "0123456789abcdef"[bytes[count] & 15]);
}

// Vector and place, then x87 control, status and tag words, MXCSR; t: ST0; u: ST0 and ST1; x: XMM0; m: 16 bytes at DATA.
static void put_state(const char* show) {
  put_outcome("");
  asm volatile("fxsave64 [%0]" ::"r"(image) : "memory");
  say(" fcw=");
  put_hex(image, 2);
  say(" fsw=");
  put_hex(image + 2, 2);
  say(" tags=");
  put_hex(image + 4, 1);
  say(" mxcsr=");
  put_hex(image + 24, 4);
  for (; show && *show; ++show) {
    say(" ");
    if (*show == 't' || *show == 'u') put_hex(image + 32, 10);
    if (*show == 'u') say(","), put_hex(image + 48, 10);
    if (*show == 'x') put_hex(image + 160, 16);
    if (*show == 'm') put_hex((const uint8_t*)DATA, 16);
    if (*show == 'a') say("ax=%x", caught.state.ax);
  }
  say("\n");
}

static const uint32_t kMxcsr = 0x1f80;
static const uint32_t kInitial[128] __attribute__((aligned(16))) = {[0] = 0x37f, [6] = 0x1f80};  // and all registers 0
#define F(name, text, shown, ...)                                                                  \
  do {                                                                                             \
    PRIVILEGED("clts");                                                                            \
    asm volatile("fxrstor64 [%0]" ::"r"(kInitial) : "memory");                                     \
    run(CODE(text), (struct setup){.cpl = cpl, __VA_ARGS__});                                      \
    PRIVILEGED("clts");                                                                            \
    say("%s: ", name);                                                                             \
    put_state(shown);                                                                              \
  } while (0)

// Constants at DATA + 100h.
enum { ONE = 0x100, ZERO = 0x108, LARGEST = 0x110, SMALLEST = 0x118, DENORMAL = 0x120, SNAN = 0x128, QNAN = 0x130,
       INFINITY = 0x138, MINUS_ONE = 0x140, THREE = 0x148, INTEGER = 0x150, SINGLE_DENORMAL = 0x158, SINGLE_SNAN = 0x15c };
static void set_constants(void) {
  static const uint64_t kValues[] = {0x3ff0000000000000, 0, 0x7fefffffffffffff, 0x0010000000000000, 1, 0x7ff0000000000001,
                                     0x7ff8000000000001, 0x7ff0000000000000, 0xbff0000000000000, 0x4008000000000000, 70000,
                                     0x7fa0000000000001};
  memset((void*)DATA, 0, 0x1000);
  memcpy((void*)(DATA + ONE), kValues, sizeof kValues);
}

static void x87_exceptions(void) {
  say("-- x87 exceptions, CPL %d\n", (unsigned long)cpl);
  // The control word's mask bits: IM DM ZM OM UM PM. Masked, then unmasked with FWAIT behind.
#define X(name, mask, text)                                                                                       \
  set_constants();                                                                                                \
  F(name ", masked", text "; fwait", "um");                                                                       \
  set_constants();                                                                                                \
  F(name ", unmasked", "mov word ptr [rsi], 0x37f & ~" #mask "; fldcw [rsi]; mov dword ptr [rsi], 0;" text "; nop; fwait", "um"); \
  set_constants();                                                                                                \
  F(name ", extended precision of single", "mov word ptr [rsi], 0x7f; fldcw [rsi]; mov dword ptr [rsi], 0;" text "; fwait", "um")
  X("0/0", 1, "fldz; fldz; fdivp");
  X("infinity - infinity", 1, "fld qword ptr [rsi + 0x138]; fld st; fsubp");
  X("0 * infinity", 1, "fldz; fmul qword ptr [rsi + 0x138]");
  X("FSQRT of -1", 1, "fld1; fchs; fsqrt");
  X("load of an SNaN", 1, "fld qword ptr [rsi + 0x128]");
  X("SNaN + 1", 1, "fld1; fadd qword ptr [rsi + 0x128]");
  X("FCOM with a QNaN", 1, "fld1; fcom qword ptr [rsi + 0x130]");
  X("FUCOM with a QNaN", 1, "fld1; fld qword ptr [rsi + 0x130]; fucom");
  X("FCOMI with a QNaN", 1, "fld qword ptr [rsi + 0x130]; fld1; fcomi st, st(1)");
  X("FIST that does not fit", 1, "fild dword ptr [rsi + 0x150]; fist word ptr [rsi]");
  X("FISTP of a NaN", 1, "fld qword ptr [rsi + 0x130]; fistp dword ptr [rsi]");
  X("FISTTP that does not fit", 1, "fild dword ptr [rsi + 0x150]; fisttp word ptr [rsi]");
  X("FBSTP of infinity", 1, "fld qword ptr [rsi + 0x138]; fbstp [rsi]");
  X("FPREM by 0", 1, "fldz; fld1; fprem");
  X("FSCALE infinity by -infinity", 1, "fld qword ptr [rsi + 0x138]; fchs; fld qword ptr [rsi + 0x138]; fscale");
  X("stack underflow", 1, "fadd st, st(1)");
  X("stack underflow of a store", 1, "fstp dword ptr [rsi]");
  X("stack underflow of FXCH", 1, "fld1; fxch st(3)");
  X("stack overflow", 1, "fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1; fldz");
  X("denormal operand", 2, "fld1; fadd qword ptr [rsi + 0x120]");
  X("load of a denormal", 2, "fld qword ptr [rsi + 0x120]");
  X("1/0", 4, "fld1; fldz; fdivp");
  X("1/-0", 4, "fld1; fldz; fchs; fdivp");
  X("FDIV by memory that is 0", 4, "fld1; fdiv qword ptr [rsi + 0x108]");
  X("FIDIV by 0", 4, "fld1; fidiv dword ptr [rsi + 0x108]");
  X("FYL2X of 0", 4, "fld1; fldz; fyl2x");
  X("FXTRACT of 0", 4, "fldz; fxtract");
  X("FSTP m64 that overflows", 8, "fld qword ptr [rsi + 0x110]; fadd st, st; fstp qword ptr [rsi]");
  X("FST m32 that overflows", 8, "fld qword ptr [rsi + 0x110]; fst dword ptr [rsi]");
  X("FSTP m32 that underflows", 16, "fld qword ptr [rsi + 0x118]; fstp dword ptr [rsi]");
  X("FSTP m64 that underflows", 16, "fld qword ptr [rsi + 0x118]; fdiv qword ptr [rsi + 0x148]; fstp qword ptr [rsi]");
  X("1/3", 32, "fld1; fdiv qword ptr [rsi + 0x148]");
  X("FST m32 of 1/3", 32, "fld1; fdiv qword ptr [rsi + 0x148]; fnclex; fst dword ptr [rsi]");
  X("FIST of 1/3", 32, "fld1; fdiv qword ptr [rsi + 0x148]; fnclex; fist dword ptr [rsi]");
  X("FRNDINT of 1/3", 32, "fld1; fdiv qword ptr [rsi + 0x148]; fnclex; frndint");

  say("-- where #MF is raised, CPL %d\n", (unsigned long)cpl);
  // With 1/0 pending and unmasked.
#define PENDING(name, text, ...)                                                                                     \
  set_constants();                                                                                                   \
  F(name, "mov word ptr [rsi + 0x40], 0x37b; fldcw [rsi + 0x40]; fld1; fldz; fdivp;" text, "ta", .ax = 0x5555, __VA_ARGS__)
  PENDING("nothing", "nop");
  PENDING("FWAIT", "nop; fwait");
  PENDING("FNOP", "fnop");
  PENDING("FLD1", "fld1");
  PENDING("FADD", "fadd st, st");
  PENDING("FLDCW", "fldcw [rsi + 0x40]");
  PENDING("FNSTCW", "fnstcw [rsi]");
  PENDING("FNSTSW", "fnstsw ax");
  PENDING("FSTSW", "fstsw ax");
  PENDING("FNCLEX", "fnclex; fwait");
  PENDING("FCLEX", "fclex");
  PENDING("FNINIT", "fninit; fwait");
  PENDING("FNSTENV, which masks all", "fnstenv [rsi]; fwait");
  PENDING("FNSAVE", "fnsave [rsi]; fwait");
  PENDING("FLDENV", "fldenv [rsi]");
  PENDING("FRSTOR", "frstor [rsi]");
  PENDING("FXSAVE", "fxsave [rsi]");
  PENDING("FXRSTOR of it", "fxsave [rsi]; fninit; fxrstor [rsi]; nop; fwait");
  PENDING("FFREE", "ffree st");
  PENDING("FDECSTP", "fdecstp");
  PENDING("FSTP", "fstp qword ptr [rsi]");
  PENDING("FUCOMI", "fucomi st, st");
  PENDING("FCMOVE", "fcmove st, st(1)");
  PENDING("EMMS", "emms");
  PENDING("PADDB mm0, mm0", "paddb mm0, mm0");
  PENDING("MOVD from mm0", "movd eax, mm0");
  PENDING("MOVQ store of mm0", "movq [rsi], mm0");
  PENDING("CVTPS2PI", "cvtps2pi mm0, xmm0");
  PENDING("CVTPI2PS from memory", "cvtpi2ps xmm0, [rsi]");
  PENDING("MOVQ2DQ", "movq2dq xmm0, mm0");
  PENDING("MOVDQ2Q", "movdq2q mm0, xmm0");
  PENDING("PADDB xmm0, xmm0", "paddb xmm0, xmm0");
  PENDING("LDMXCSR", "mov dword ptr [rsi], 0x1f80; ldmxcsr [rsi]");
  PENDING("a page fault behind it", "mov esi, 0x20000000; fld qword ptr [rsi]");
  PENDING("a store that page-faults", "mov esi, 0x20000000; fstp qword ptr [rsi]");
  PENDING("MMX that page-faults", "mov esi, 0x20000000; paddb mm0, [rsi]");
  PENDING("FNSTCW that page-faults", "mov esi, 0x20000000; fnstcw [rsi]");
  PENDING("FLDCW that masks it", "fnclex; mov word ptr [rsi], 0x37f; fldcw [rsi]; fld1; fldz; fdivp; fwait");
  F("FLDCW that unmasks what is set", "fld1; fldz; fdivp; mov word ptr [rsi], 0x37b; fldcw [rsi]; nop; fnop", "t");
  F("FLDENV with an exception", "fnstenv [rsi]; mov word ptr [rsi], 0x37b; mov byte ptr [rsi + 4], 4; fldenv [rsi]; nop; fwait", "");
  F("FXRSTOR with an exception", "fxsave [rsi]; mov word ptr [rsi], 0x37b; mov byte ptr [rsi + 2], 4; fxrstor [rsi]; nop; fwait", "");
}

// All 64 bits of their results: the processor's own algorithms, which the manual bounds to one unit in the last place.
static void transcendentals(void) {
  say("-- x87 transcendental instructions, CPL %d\n", (unsigned long)cpl);
#define T(name, text) \
  set_constants();    \
  F(name, text, "u")
#define OPERANDS(name, op)                                                                                                 \
  T(name " of 1", "fld1;" op);                                                                                             \
  T(name " of -0", "fldz; fchs;" op);                                                                                      \
  T(name " of 1/3", "fld1; fdiv qword ptr [rsi + 0x148];" op);                                                             \
  T(name " of -1/3", "fld1; fdiv qword ptr [rsi + 0x148]; fchs;" op);                                                      \
  T(name " of 3", "fld qword ptr [rsi + 0x148];" op);                                                                      \
  T(name " of pi", "fldpi;" op);                                                                                           \
  T(name " of 70000", "fild dword ptr [rsi + 0x150];" op);                                                                 \
  T(name " of a denormal", "fld qword ptr [rsi + 0x120];" op);                                                             \
  T(name " of the largest", "fld qword ptr [rsi + 0x110];" op);                                                            \
  T(name " of infinity", "fld qword ptr [rsi + 0x138];" op);                                                               \
  T(name " of a QNaN", "fld qword ptr [rsi + 0x130];" op);                                                                 \
  T(name " of 1/3, rounded up", "mov word ptr [rsi], 0xb7f; fldcw [rsi]; fld1; fdiv qword ptr [rsi + 0x148];" op);          \
  T(name " of 1/3, single precision", "fld1; fdiv qword ptr [rsi + 0x148]; mov word ptr [rsi], 0x7f; fldcw [rsi];" op)
  OPERANDS("FSIN", "fsin");
  OPERANDS("FCOS", "fcos");
  OPERANDS("FSINCOS", "fsincos");
  OPERANDS("FPTAN", "fptan");
  OPERANDS("F2XM1", "f2xm1");
  OPERANDS("FPATAN, 1 and that,", "fld1; fxch; fpatan");
  OPERANDS("FPATAN, that and 3,", "fld qword ptr [rsi + 0x148]; fpatan");
  OPERANDS("FYL2X, 3 times,", "fld qword ptr [rsi + 0x148]; fxch; fyl2x");
  OPERANDS("FYL2XP1, 3 times,", "fld qword ptr [rsi + 0x148]; fxch; fyl2xp1");
  OPERANDS("FSQRT", "fsqrt");
  OPERANDS("FXTRACT", "fxtract");
  OPERANDS("FPREM by 3", "fld qword ptr [rsi + 0x148]; fxch; fprem");
  OPERANDS("FPREM1 by 3", "fld qword ptr [rsi + 0x148]; fxch; fprem1");
  // Out of range: C2, and the operand stays.
  T("FSIN of 2^63", "mov dword ptr [rsi], 63; fild dword ptr [rsi]; fld1; fscale; fstp st(1); fsin");
  T("FSIN of 2^62", "mov dword ptr [rsi], 62; fild dword ptr [rsi]; fld1; fscale; fstp st(1); fsin");
  T("FPTAN of 2^63", "mov dword ptr [rsi], 63; fild dword ptr [rsi]; fld1; fscale; fstp st(1); fptan");
#define ROUNDED(name, op)                                                      \
  T(name ", to nearest", op);                                                  \
  T(name ", up", "mov word ptr [rsi], 0xb7f; fldcw [rsi];" op);                \
  T(name ", down", "mov word ptr [rsi], 0x77f; fldcw [rsi];" op)
  ROUNDED("FLDPI", "fldpi");
  ROUNDED("FLDL2E", "fldl2e");
  ROUNDED("FLDL2T", "fldl2t");
  ROUNDED("FLDLG2", "fldlg2");
  ROUNDED("FLDLN2", "fldln2");
}

static void sse_exceptions(void) {
  say("-- SSE exceptions, CPL %d\n", (unsigned long)cpl);
  // Masked, unmasked, unmasked without OSXMMEXCPT.
#define S(name, bit, text)                                                                                             \
  set_constants();                                                                                                     \
  F(name ", masked", "movupd xmm0, [rsi + 0x100];" text, "xm");                                                        \
  F(name ", unmasked", "mov dword ptr [rsi], 0x1f80 & ~(0x80 << " #bit "); ldmxcsr [rsi]; movupd xmm0, [rsi + 0x100];" text, "xm"); \
  if (!cpl) {                                                                                                          \
    write_cr4(read_cr4() & ~(unsigned long)CR4_OSXMMEXCPT);                                                            \
    F(name ", without OSXMMEXCPT", "mov dword ptr [rsi], 0x1f80 & ~(0x80 << " #bit "); ldmxcsr [rsi]; movupd xmm0, [rsi + 0x100];" text, "x"); \
    write_cr4(read_cr4() | CR4_OSXMMEXCPT);                                                                            \
  }
  S("DIVSD 0/0", 0, "pxor xmm0, xmm0; divsd xmm0, [rsi + 0x108]");
  S("ADDSD of an SNaN", 0, "addsd xmm0, [rsi + 0x128]");
  S("ADDSD of a QNaN", 0, "addsd xmm0, [rsi + 0x130]");
  S("COMISD of a QNaN", 0, "comisd xmm0, [rsi + 0x130]");
  S("UCOMISD of a QNaN", 0, "ucomisd xmm0, [rsi + 0x130]");
  S("UCOMISD of an SNaN", 0, "ucomisd xmm0, [rsi + 0x128]");
  S("CMPEQSD of a QNaN", 0, "cmpeqsd xmm0, [rsi + 0x130]");
  S("CMPLTSD of a QNaN", 0, "cmpltsd xmm0, [rsi + 0x130]");
  S("MINSD of a QNaN", 0, "minsd xmm0, [rsi + 0x130]");
  S("SQRTSD of -1", 0, "sqrtsd xmm0, [rsi + 0x140]");
  S("CVTSD2SI that does not fit", 0, "cvtsd2si eax, [rsi + 0x110]");
  S("CVTTSD2SI, 64 bits", 0, "cvttsd2si rax, [rsi + 0x110]");
  S("CVTSS2SD of an SNaN", 0, "cvtss2sd xmm0, dword ptr [rsi + 0x15c]");
  S("CVTPD2DQ", 0, "movupd xmm1, [rsi + 0x110]; cvtpd2dq xmm0, xmm1");
  S("ADDSD of a denormal", 1, "addsd xmm0, [rsi + 0x120]");
  S("COMISD of a denormal", 1, "comisd xmm0, [rsi + 0x120]");
  S("CVTSD2SI of a denormal", 1, "cvtsd2si eax, [rsi + 0x120]");
  S("DIVSD 1/0", 2, "divsd xmm0, [rsi + 0x108]");
  S("DIVPD 1/0 in one lane", 2, "movupd xmm1, [rsi + 0x100]; divpd xmm0, xmm1");
  S("MULSD that overflows", 3, "movsd xmm0, [rsi + 0x110]; mulsd xmm0, xmm0");
  S("CVTSD2SS that overflows", 3, "cvtsd2ss xmm0, [rsi + 0x110]");
  S("MULSD that underflows", 4, "movsd xmm0, [rsi + 0x118]; mulsd xmm0, xmm0");
  S("DIVSD that underflows", 4, "movsd xmm0, [rsi + 0x118]; divsd xmm0, [rsi + 0x148]");
  S("CVTSD2SS that underflows", 4, "cvtsd2ss xmm0, [rsi + 0x118]");
  S("DIVSD 1/3", 5, "divsd xmm0, [rsi + 0x148]");
  S("CVTSI2SD that is not exact", 5, "mov rax, 0x20000000000001; cvtsi2sd xmm0, rax");
  S("SQRTSD of 3", 5, "sqrtsd xmm0, [rsi + 0x148]");
  S("CVTDQ2PS that is not exact", 5, "mov eax, 0x1000001; movd xmm1, eax; cvtdq2ps xmm0, xmm1");
  S("ROUNDSD", 5, "divsd xmm0, [rsi + 0x148]; mov dword ptr [rsi], 0x0f80; ldmxcsr [rsi]; roundsd xmm0, xmm0, 0");
  S("ROUNDSD without precision", 5, "mov dword ptr [rsi], 0x1f80; ldmxcsr [rsi]; divsd xmm0, [rsi + 0x148]; mov dword ptr [rsi], 0x0f80; ldmxcsr [rsi]; roundsd xmm0, xmm0, 8");
  const unsigned long cr4 = read_cr4();
  write_cr4(cr4 | CR4_OSXSAVE);
  PRIVILEGED("xsetbv" ::"c"(0), "a"(7), "d"(0));
  S("VDIVSD 0/0", 0, "vxorpd xmm0, xmm0, xmm0; vdivsd xmm0, xmm0, [rsi + 0x108]");
  S("VADDPD of an SNaN in the upper half", 0, "vbroadcastsd ymm0, [rsi + 0x100]; vaddpd ymm0, ymm0, [rsi + 0x118]");
  S("VCMPSD, signalling", 0, "vcmpltsd xmm0, xmm0, [rsi + 0x130]");
  S("VDIVPD by 0 in one lane of four", 2, "vbroadcastsd ymm0, [rsi + 0x100]; vdivpd ymm0, ymm0, [rsi + 0x100]");
  S("VMULSD that overflows", 3, "vmovsd xmm0, [rsi + 0x110]; vmulsd xmm0, xmm0, xmm0");
  S("VSQRTPD that is not exact", 5, "vbroadcastsd ymm0, [rsi + 0x148]; vsqrtpd ymm0, ymm0");
  F("VMOVAPS that is not aligned", "vmovaps xmm0, [rsi + 8]", "");
  F("VMOVAPS ymm that is aligned to 16", "vmovaps ymm0, [rsi + 16]", "");
  F("VADDPS ymm that is not aligned", "vaddps ymm0, ymm0, [rsi + 1]", "");
  F("VMOVNTDQ that is not aligned", "vmovntdq [rsi + 16], ymm0", "");
  F("VMASKMOVPS of nothing, beyond memory", "vxorps xmm1, xmm1, xmm1; mov esi, 0x20000000; vmaskmovps xmm0, xmm1, [rsi]", "");
  F("VMASKMOVPS of the first, at the end of memory", "mov eax, -1; vmovd xmm1, eax; vmaskmovps xmm0, xmm1, [rdi - 4]", "x",
    .di = 0x4000000 + (cpl ? USER_ALIAS : 0));
  F("VMASKMOVPS of the second, at the end of memory", "mov eax, -1; vmovd xmm1, eax; vpslldq xmm1, xmm1, 4; vmaskmovps xmm0, xmm1, [rdi - 4]", "x",
    .di = 0x4000000 + (cpl ? USER_ALIAS : 0));
  F("VPGATHERDD, one element beyond memory", "vpcmpeqd xmm2, xmm2, xmm2; vpxor xmm1, xmm1, xmm1; vpinsrd xmm1, xmm1, eax, 2;"
    "vpxor xmm0, xmm0, xmm0; vpgatherdd xmm0, [rsi + xmm1 + 0x100], xmm2", "x", .ax = 0x20000000);
  // Addresses of 32 bits wrap, element by element; an index of 64 bits counts with its lower half.
#define INDEX(value) "mov rax, " value "; vmovq xmm1, rax; vpbroadcastq ymm1, xmm1; vpcmpeqd ymm2, ymm2, ymm2;"
  set_constants();
  F("VPGATHERDD, 32-bit addresses, base and index wrap", "lea eax, [rsi + 0x110]; vmovd xmm1, eax; vpbroadcastd xmm1, xmm1; vpcmpeqd xmm2, xmm2, xmm2;"
    "mov ebx, -0xc; vpgatherdd xmm0, [ebx + xmm1], xmm2", "x");
  F("VPGATHERDD, 32-bit addresses, the scaled index wraps", INDEX("0x2000000020000000") "vpgatherdd xmm0, [esi + xmm1 * 8 + 0x104], xmm2", "x");
  F("VPGATHERDD, 32-bit addresses, the displacement wraps", INDEX("0x0000020400000204") "vpgatherdd xmm0, [esi + xmm1 - 0x100], xmm2", "x");
  F("VPGATHERDD, 32-bit addresses, base of 64 bits", INDEX("0x0000010400000104") "mov rbx, 0x1234567800000000; or rbx, rsi; vpgatherdd xmm0, [ebx + xmm1], xmm2", "x");
  F("VPGATHERQD, 32-bit addresses", INDEX("0x1234567800000104") "vpgatherqd xmm0, [esi + xmm1], xmm2", "x");
  F("VGATHERDPD, 32-bit addresses", INDEX("0x2000002820000028") "vgatherdpd xmm0, [esi + xmm1 * 8], xmm2", "x");
  F("VGATHERQPD, 32-bit addresses", INDEX("0xffffffff20000028") "vgatherqpd xmm0, [esi + xmm1 * 8], xmm2", "x");
  F("VPGATHERQQ, 32-bit addresses, sum beyond 4 GiB", INDEX("0xffffffff00000140") "vpgatherqq xmm0, [esi + xmm1], xmm2", "x");
  F("VPGATHERDD, 64-bit addresses, negative index", INDEX("0xffffff00ffffff00") "vpgatherdd xmm0, [rsi + xmm1 + 0x204], xmm2", "x");
  F("VPGATHERDD, 64-bit addresses do not wrap", INDEX("0x2000000020000000") "vpgatherdd xmm0, [rsi + xmm1 * 8 + 0x104], xmm2", "");
  write_cr4(cr4);
  set_constants();
#define MX(name, value, text) F(name, "mov dword ptr [rsi], " #value "; ldmxcsr [rsi]; movupd xmm0, [rsi + 0x100];" text, "x")
  MX("LDMXCSR of a reserved bit", 0x11f80, "nop");
  MX("LDMXCSR of what is set", 0x1fbf, "nop");
  MX("flags that are set raise nothing", 0x003f, "addsd xmm0, xmm0");
  MX("a set flag and an unmasked exception", 0x1d84, "divsd xmm0, [rsi + 0x108]");
  MX("two exceptions, one unmasked", 0x1780, "mulsd xmm0, [rsi + 0x110]; movsd xmm1, [rsi + 0x118]; mulsd xmm1, xmm1");
  MX("two exceptions, the second unmasked", 0x0f80, "movsd xmm0, [rsi + 0x110]; mulsd xmm0, xmm0");
  MX("FTZ", 0x9f80, "movsd xmm0, [rsi + 0x118]; mulsd xmm0, xmm0");
  MX("FTZ, underflow unmasked", 0x9780, "movsd xmm0, [rsi + 0x118]; mulsd xmm0, xmm0");
  MX("DAZ", 0x1fc0, "addsd xmm0, [rsi + 0x120]");
  MX("DAZ, denormals unmasked", 0x1ec0, "addsd xmm0, [rsi + 0x120]");
  MX("round down", 0x3f80, "divsd xmm0, [rsi + 0x148]");
  MX("round up", 0x5f80, "divsd xmm0, [rsi + 0x148]");
  MX("round to zero", 0x7f80, "divsd xmm0, [rsi + 0x148]");
  F("MOVAPS that is not aligned", "movaps xmm0, [rsi + 8]", "");
  F("MOVAPS store that is not aligned", "movaps [rsi + 8], xmm0", "");
  F("ADDPS that is not aligned", "addps xmm0, [rsi + 8]", "");
  F("MOVNTDQ that is not aligned", "movntdq [rsi + 8], xmm0", "");
  F("MOVUPS across pages", "movups xmm0, [rsi + 0xff8]", "");
  F("LDDQU", "lddqu xmm0, [rsi + 0x101]", "x");
  F("PSHUFB that is not aligned", "pshufb xmm0, [rsi + 1]", "");
  F("an unmasked exception before a page fault", "mov dword ptr [rsi], 0; ldmxcsr [rsi]; mov esi, 0x20000000; divsd xmm0, [rsi]", "");
  F("not aligned before a page fault", "mov esi, 0x20000008; addps xmm0, [rsi]", "");
}

static void controls(void) {
  say("-- CR0.TS, EM, MP and CR4.OSFXSR, OSXSAVE, CPL %d\n", (unsigned long)cpl);
  struct {
    const char* name;
    const char* code;
  } classes[] = {
      {"FNOP", CODE("fnop")},
      {"FWAIT", CODE("fwait")},
      {"FNSTCW", CODE("fnstcw [rsi]")},
      {"FNINIT", CODE("fninit")},
      {"FNSAVE", CODE("fnsave [rsi]; frstor [rsi]")},
      {"FISTTP", CODE("fld1; fisttp dword ptr [rsi]")},
      {"FCMOVE", CODE("fcmove st, st(1)")},
      {"EMMS", CODE("emms")},
      {"PADDB mm", CODE("paddb mm0, mm0; emms")},
      {"PSHUFW mm", CODE("pshufw mm0, mm0, 0; emms")},
      {"CVTPS2PI", CODE("cvtps2pi mm0, xmm0; emms")},
      {"MOVQ2DQ", CODE("movq2dq xmm0, mm0; emms")},
      {"ADDPS", CODE("xorps xmm0, xmm0; addps xmm0, xmm0")},
      {"MOVUPS store", CODE("movups [rsi], xmm0")},
      {"PADDB xmm", CODE("paddb xmm0, xmm0")},
      {"CRC32", CODE("crc32 eax, al")},
      {"POPCNT", CODE("popcnt eax, eax")},
      {"MOVNTI", CODE("movnti [rsi], eax")},
      {"PREFETCHT0", CODE("prefetcht0 [rsi]")},
      {"CLFLUSH", CODE("clflush [rsi]")},
      {"LFENCE", CODE("lfence")},
      {"PAUSE", CODE("pause")},
      {"MOVBE", CODE("movbe eax, [rsi]")},
      {"LDMXCSR", CODE("mov dword ptr [rsi], 0x1f80; ldmxcsr [rsi]")},
      {"STMXCSR", CODE("stmxcsr [rsi]")},
      {"FXSAVE", CODE("fxsave [rsi]")},
      {"FXRSTOR", CODE("fxrstor [rsi]")},
      {"XSAVE", CODE("xor edx, edx; mov eax, 3; xsave [rsi]")},
      {"XSAVEOPT", CODE("xor edx, edx; mov eax, 3; xsaveopt [rsi]")},
      {"XRSTOR", CODE("xor edx, edx; xor eax, eax; xrstor [rsi]")},
      {"XGETBV", CODE("xor ecx, ecx; xgetbv")},
      {"VZEROUPPER", CODE("vzeroupper")},
      {"VADDPS", CODE("vxorps xmm0, xmm0, xmm0; vaddps xmm0, xmm0, xmm0")},
      {"VPADDB ymm", CODE("vpaddb ymm0, ymm0, ymm0")},
      {"ANDN", CODE("andn eax, eax, eax")},
      {"RORX", CODE("rorx eax, eax, 3")},
      {"AESENC", CODE("aesenc xmm0, xmm0")},
      {"PCLMULQDQ", CODE("pclmulqdq xmm0, xmm0, 0")},
      {"UD2", CODE("ud2")},
      {"SSE with LOCK", CODE(".byte 0xf0, 0x0f, 0x58, 0xc0")},
      {"x87 with LOCK", CODE(".byte 0xf0, 0xd9, 0xd0")},
      {"x87 that does not exist", CODE(".byte 0xd9, 0xd1")},
      {"x87 memory form that does not exist", CODE(".byte 0xd9, 0x0e")},
      {"SSE with a page fault", CODE("mov esi, 0x20000000; addps xmm0, [rsi]")},
      {"x87 with a page fault", CODE("mov esi, 0x20000000; fld qword ptr [rsi]")},
      {"FXSAVE, not aligned", CODE("fxsave [rsi + 8]")},
  };
  memset((void*)DATA, 0, 0x1000);
  asm volatile("fninit; ldmxcsr %1; fxsave64 [%0]" ::"r"(DATA), "m"(kMxcsr) : "memory");
  for (unsigned i = 0; i < sizeof classes / sizeof *classes; ++i) {
    say("%s:", classes[i].name);
    for (unsigned bits = 0; bits < 32; ++bits) {
      if (bits % 8 == 0) say(" ");
      const unsigned long cr4 = read_cr4() & ~(unsigned long)(CR4_OSFXSR | CR4_OSXSAVE);
      write_cr4(cr4 | CR4_OSXSAVE);
      PRIVILEGED("xsetbv" ::"c"(0), "a"(7), "d"(0));
      write_cr4(cr4 | (bits & 8 ? 0 : CR4_OSFXSR) | (bits & 16 ? 0 : CR4_OSXSAVE));
      write_cr0((read_cr0() & ~(unsigned long)(CR0_TS | CR0_EM | CR0_MP)) | (bits & 1 ? CR0_TS : 0) | (bits & 2 ? CR0_EM : 0) |
                (bits & 4 ? CR0_MP : 0));
      run(classes[i].code, (struct setup){.cpl = cpl});
      say("%c", caught.vector == END  ? '.'
                : caught.vector == UD ? 'U'
                : caught.vector == NM ? 'N'
                : caught.vector == PF ? 'P'
                : caught.vector == GP ? 'G'
                                      : '!');
      write_cr0((read_cr0() & ~(unsigned long)(CR0_TS | CR0_EM)) | CR0_MP);
      write_cr4(cr4 | CR4_OSFXSR);
      asm volatile("fninit; ldmxcsr %0" ::"m"(kMxcsr));
    }
    say("\n");
  }
}

// --- images

static void put_image(const char* name, unsigned size) {
  const uint8_t* const bytes = (const uint8_t*)DATA;
  say("%s: ", name);
  if (caught.vector != END) {
    report("");
    return;
  }
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

// What all images begin with: every register has something in it, ST0 to ST4 are in use.
static void fill_registers(bool with_avx) {
  static uint8_t pattern[1024] __attribute__((aligned(64)));
  for (unsigned i = 0; i < sizeof pattern; ++i) pattern[i] = (uint8_t)(i * 7 + 1);
  for (unsigned i = 0; i < 8; ++i) {
    memset(pattern + 32 + i * 16 + 10, 0, 6);
    *(uint16_t*)(pattern + 32 + i * 16 + 8) = 0x3ff0 + i;
    pattern[32 + i * 16 + 7] |= 0x80;
  }
  memset(pattern, 0, 32);
  *(uint16_t*)pattern = 0x27f;
  *(uint16_t*)(pattern + 2) = 3 << 11;
  pattern[4] = 0xf8;
  *(uint32_t*)(pattern + 24) = 0x1fa1;
  memset(pattern + 512, 0, 64);
  pattern[512] = with_avx ? 7 : 3;
  if (with_avx) {
    asm volatile("xrstor64 [%0]" ::"r"(pattern), "a"(7), "d"(0) : "memory");
  } else {
    asm volatile("fxrstor64 [%0]" ::"r"(pattern) : "memory");
  }
}

#define IMAGE(name, avx, text, size, ...)                                             \
  memset((void*)DATA, 0xcc, 0x1000);                                                   \
  fill_registers(avx);                                                                 \
  run(CODE(text), (struct setup){.cpl = cpl, __VA_ARGS__});                            \
  put_image(name, size)

static void images(void) {
  say("-- images, CPL %d\n", (unsigned long)cpl);
  IMAGE("FNSTENV", false, "fnstenv [rsi]; mov qword ptr [rsi + 12], 0; mov qword ptr [rsi + 20], 0", 64);
  IMAGE("FNSTENV, 16 bits", false, ".byte 0x66; fnstenv [rsi]; mov qword ptr [rsi + 6], 0", 64);
  IMAGE("FNSAVE", false, "fnsave [rsi]; mov qword ptr [rsi + 12], 0; mov qword ptr [rsi + 20], 0", 128);
  IMAGE("FNSAVE, 16 bits", false, ".byte 0x66; fnsave [rsi]; mov qword ptr [rsi + 6], 0", 128);
  IMAGE("FXSAVE", false, "fxsave [rsi]; mov dword ptr [rsi + 28], 0", 512);
  IMAGE("FXSAVE64", false, "fxsave64 [rsi]; mov dword ptr [rsi + 28], 0", 512);
  IMAGE("FXSAVE that is not aligned", false, "fxsave [rsi + 8]", 512);
  IMAGE("FXRSTOR that is not aligned", false, "fxrstor [rsi + 8]", 512);
  IMAGE("FXRSTOR of reserved bits of MXCSR", false, "fxsave [rsi]; mov dword ptr [rsi + 24], 0x11f80; fxrstor [rsi]", 512);
  IMAGE("FXRSTOR of anything in the reserved parts", false,
        "fxsave [rsi]; mov qword ptr [rsi + 42], -1; mov qword ptr [rsi + 464], -1; fxrstor [rsi]; fxsave [rsi]; mov dword ptr [rsi + 28], 0",
        512);
  IMAGE("FXRSTOR, then what it leaves", false,
        "fxsave [rsi]; mov byte ptr [rsi + 4], 0x55; mov word ptr [rsi + 2], 0x3800; fninit; xorps xmm7, xmm7; fxrstor [rsi];"
        "fxsave [rsi]; mov dword ptr [rsi + 28], 0",
        512);
  IMAGE("FLDENV and FNSTENV", false, "fnstenv [rsi]; mov word ptr [rsi + 8], 0x1b72; fldenv [rsi]; fnstenv [rsi];"
        "mov qword ptr [rsi + 12], 0; mov qword ptr [rsi + 20], 0", 64);
  IMAGE("FRSTOR and FNSAVE", false, "fnsave [rsi]; mov word ptr [rsi + 4], 0x1800; frstor [rsi]; fnsave [rsi];"
        "mov qword ptr [rsi + 12], 0; mov qword ptr [rsi + 20], 0", 128);
  // The tag word is made from what the registers hold.
  IMAGE("tags of zero, NaN, infinity, denormal and empty", false,
        "fninit; fldz; fld1; fld1; fldz; fdivp; fldz; fldz; fdivp; fnstenv [rsi]; mov qword ptr [rsi + 12], 0; mov qword ptr [rsi + 20], 0",
        64);
  IMAGE("MMX sets all tags", false, "fninit; movq mm3, [rsi]; fnstenv [rsi]; emms; fnstenv [rsi + 32]; mov qword ptr [rsi + 12], 0;"
        "mov qword ptr [rsi + 20], 0; mov qword ptr [rsi + 44], 0; mov qword ptr [rsi + 52], 0", 64);
  IMAGE("MMX in an image", false, "fninit; mov rax, 0x1122334455667788; movq mm3, rax; fxsave [rsi]; mov dword ptr [rsi + 28], 0", 160);

  const unsigned long cr4 = read_cr4();
  write_cr4(cr4 | CR4_OSXSAVE);
  PRIVILEGED("xsetbv" ::"c"(0), "a"(7), "d"(0));
#define XSAVED(name, text, ...) IMAGE(name, true, text "; mov dword ptr [rsi + 28], 0", 832 + 64, __VA_ARGS__)
  for (unsigned components = 0; components < 8; ++components) {
    say("components %d, ", (unsigned long)components);
    XSAVED("XSAVE", "xor edx, edx; mov qword ptr [rsi + 512], 0; xsave [rsi]", .ax = components ? components : 0x100000000);
    say("components %d, ", (unsigned long)components);
    XSAVED("XSAVE64", "xor edx, edx; mov qword ptr [rsi + 512], 0; xsave64 [rsi]", .ax = components ? components : 0x100000000);
    say("components %d, ", (unsigned long)components);
    XSAVED("XSAVEOPT", "xor edx, edx; mov qword ptr [rsi + 512], 0; xsaveopt [rsi]", .ax = components ? components : 0x100000000);
    say("components %d, ", (unsigned long)components);
    XSAVED("XSAVEC", "xor edx, edx; xsavec [rsi]", .ax = components ? components : 0x100000000);
  }
  XSAVED("XSAVE keeps the other bits of XSTATE_BV", "xor edx, edx; mov qword ptr [rsi + 512], 5; mov eax, 2; xsave [rsi]");
  XSAVED("XSAVE that is not aligned", "xor edx, edx; mov eax, 7; xsave [rsi + 32]");
  XSAVED("XSAVE with LOCK", "xor edx, edx; mov eax, 7; .byte 0xf0; xsave [rsi]");
  XSAVED("XRSTOR that is not aligned", "xor edx, edx; mov eax, 7; xrstor [rsi + 32]");
  XSAVED("VZEROALL, XSAVE", "vzeroall; xor edx, edx; mov eax, 4; mov qword ptr [rsi + 512], 0; xsave [rsi]; and qword ptr [rsi + 512], 3");
  for (unsigned requested = 0; requested < 8; ++requested) {
    for (unsigned present = 0; present < 8; ++present) {
      say("requested %d, present %d, ", (unsigned long)requested, (unsigned long)present);
      memset((void*)DATA, 0xcc, 0x1000);
      fill_registers(true);
      run(CODE("xor edx, edx; mov qword ptr [rsi + 512], 0; mov eax, 7; xsave [rsi]; xor eax, eax; lea rdi, [rsi + 520];"
               "mov ecx, 56; rep stosb; fninit; vzeroall; mov dword ptr [rsi + 0xe00], 0x1f80; ldmxcsr [rsi + 0xe00];"
               "sub ebx, 0x100; mov [rsi + 512], rbx; mov eax, ebp; xrstor [rsi]; mov edi, esi; add rsi, 0x400; mov rax, 7; fxsave [rsi];"
               "vextractf128 [rsi + 512], ymm0, 1; mov eax, [rsi + 24]; mov edx, [rsi]; mov ecx, [rsi + 4]"),
          (struct setup){.cpl = cpl, .bx = 0x100 + present, .bp = requested ? requested : 0x100000000});
      const uint8_t* const now = (const uint8_t*)DATA + 0x400;
      say("XRSTOR: ");
      put_outcome("");
      say(" fcw and fsw %x tags %x mxcsr %x st0 ", caught.state.dx, caught.state.cx & 0xff, caught.state.ax);
      put_hex(now + 32, 10);
      say(" xmm0 ");
      put_hex(now + 160, 16);
      say(" ymm0 ");
      put_hex(now + 512, 16);
      say("\n");
    }
  }
#define BAD(name, text)                                                                                                \
  XSAVED(name, "xor edx, edx; mov qword ptr [rsi + 512], 0; mov eax, 7; xsave [rsi]; xor eax, eax; lea rdi, [rsi + 520];" \
               "mov ecx, 56; rep stosb; mov eax, 7;" text "; xrstor [rsi]; ud2")
  BAD("XRSTOR with a component that does not exist", "mov byte ptr [rsi + 519], 0x40");
  BAD("XRSTOR with a component that is not enabled", "mov byte ptr [rsi + 513], 2");
  BAD("XRSTOR with XCOMP_BV bits", "mov byte ptr [rsi + 520], 1");
  BAD("XRSTOR with a reserved byte at 16", "mov byte ptr [rsi + 528], 1");
  BAD("XRSTOR with a reserved byte at 24", "mov byte ptr [rsi + 536], 1");
  BAD("XRSTOR with a reserved byte at 63", "mov byte ptr [rsi + 575], 1");
  BAD("XRSTOR with a reserved bit of MXCSR", "mov dword ptr [rsi + 24], 0x11f80");
  BAD("XRSTOR with a reserved bit of MXCSR, of x87 only", "mov dword ptr [rsi + 24], 0x11f80; mov eax, 1");
  BAD("XRSTOR with a reserved bit of MXCSR, of AVX only", "mov dword ptr [rsi + 24], 0x11f80; mov eax, 4");
  BAD("XRSTOR with a reserved bit of MXCSR, SSE not present", "mov dword ptr [rsi + 24], 0x11f80; mov byte ptr [rsi + 512], 5");
  BAD("XRSTOR, compacted", "mov byte ptr [rsi + 520], 7; mov byte ptr [rsi + 527], 0x80");
  BAD("XRSTOR, compacted, of what is not in it", "mov byte ptr [rsi + 520], 3; mov byte ptr [rsi + 527], 0x80");
  BAD("XRSTOR, compacted, with a reserved byte at 16", "mov byte ptr [rsi + 520], 7; mov byte ptr [rsi + 527], 0x80; mov byte ptr [rsi + 528], 1");
  // The optimizations may leave out what has not changed since XRSTOR from the same place: what matters is that nothing is lost.
  XSAVED("XRSTOR, XSAVEOPT", "xor edx, edx; mov eax, 7; mov qword ptr [rsi + 512], 0; mov qword ptr [rsi + 520], 0; lea rdi, [rsi + 520];"
         "xor eax, eax; mov ecx, 56; rep stosb; mov eax, 7; xsave [rsi]; xrstor [rsi]; pcmpeqb xmm3, xmm3; xsaveopt [rsi]; mov qword ptr [rsi + 512], 0");
#ifndef NATIVE
  XSAVED("XSAVE of components that are not enabled", "mov edx, -1; mov eax, -1; mov qword ptr [rsi + 512], 0; xsave [rsi]");
  PRIVILEGED("xsetbv" ::"c"(0), "a"(3), "d"(0));
#define WITHOUT_AVX(name, text) IMAGE(name, false, text "; mov dword ptr [rsi + 28], 0", 832 + 64)
  WITHOUT_AVX("XRSTOR of AVX that is not enabled", "xor eax, eax; lea rdi, [rsi + 512]; mov ecx, 64; rep stosb; xor edx, edx; mov eax, 3;"
              "xsave [rsi]; mov byte ptr [rsi + 512], 7; xrstor [rsi]");
  WITHOUT_AVX("XSAVE with AVX disabled", "xor edx, edx; mov eax, 7; mov qword ptr [rsi + 512], 0; xsave [rsi]");
  PRIVILEGED("xsetbv" ::"c"(0), "a"(1), "d"(0));
  WITHOUT_AVX("XSAVE with x87 only", "xor edx, edx; mov eax, 7; mov qword ptr [rsi + 512], 0; xsave [rsi]");
  PRIVILEGED("xsetbv" ::"c"(0), "a"(7), "d"(0));
#endif
  write_cr4(cr4);
}

void guest_main(void) {
  default_gates();
  const uint32_t features = cpuid(1, 0).ecx;
  if (!(features >> 28 & 1)) say("no AVX\n");
  for (cpl = FIRST_CPL; cpl <= 3; cpl += 3) {
    x87_exceptions();
    transcendentals();
    sse_exceptions();
    if (FIRST_CPL == 0) controls();
    images();
  }
  finish();
}
