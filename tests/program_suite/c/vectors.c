// Vector instructions that compilers emit: SSE to AVX2, FMA, BMI, AES, PCLMUL, SHA, F16C, with operands in memory, aligned
// and not.
#include "checksum.h"

#include <immintrin.h>

static _Alignas(64) unsigned char data[4096 + 64], result[64];

static void refill(void) {
  for (unsigned i = 0; i < sizeof(data); i += 8) {
    const uint64_t value = next_random();
    memcpy(data + i, &value, 8);
  }
}
// Floats whose sums are finite.
static void refill_floats(void) {
  for (unsigned i = 0; i < sizeof(data); i += 4) {
    const float value = (float)(int32_t)next_random() / 65536.0f;
    memcpy(data + i, &value, 4);
  }
}

#define A128 _mm_loadu_si128((const __m128i*)(data + i))
#define B128 _mm_load_si128((const __m128i*)(data + (i + 1024) % 4096 / 16 * 16))
#define A256 _mm256_loadu_si256((const __m256i*)(data + i))
#define B256 _mm256_load_si256((const __m256i*)(data + (i + 1024) % 4096 / 32 * 32))
// 64-bit operands of general registers: 64-bit code only.
#ifdef __x86_64__
#define CRC32 _mm_crc32_u64(U64, V64)
#define BEXTR _bextr_u64(U64, (unsigned)(i % 60), 9)
#define BLS _blsr_u64(U64) ^ _blsi_u64(V64) ^ _blsmsk_u64(U64) ^ _tzcnt_u64(V64)
#define PEXT _pext_u64(U64, V64)
#define PDEP _pdep_u64(U64, V64)
#define BZHI _bzhi_u64(U64, (unsigned)(V64 & 127))
#define POPCNT _mm_popcnt_u64(U64)
#define LZCNT _lzcnt_u64(U64)
#else
#define U32 ((uint32_t)U64)
#define V32 ((uint32_t)V64)
#define CRC32 _mm_crc32_u32(U32, V32)
#define BEXTR _bextr_u32(U32, (unsigned)(i % 30), 9)
#define BLS _blsr_u32(U32) ^ _blsi_u32(V32) ^ _blsmsk_u32(U32) ^ _tzcnt_u32(V32)
#define PEXT _pext_u32(U32, V32)
#define PDEP _pdep_u32(U32, V32)
#define BZHI _bzhi_u32(U32, (unsigned)(V32 & 63))
#define POPCNT _mm_popcnt_u32(U32)
#define LZCNT _lzcnt_u32(U32)
#endif
#define EACH(target_name, name, store, value)                     \
  __attribute__((target(target_name))) static void name(void) {   \
    for (unsigned i = 0; i < 4000; i += 7) {                      \
      store(result, value);                                       \
      add_bytes(result, sizeof(result));                          \
    }                                                             \
    report(#name);                                                \
  }
#define STORE128(to, value) _mm_storeu_si128((__m128i*)(to), value)
#define STORE256(to, value) _mm256_storeu_si256((__m256i*)(to), value)
#define STOREPS(to, value) _mm_storeu_ps((float*)(to), value)
#define STOREPD(to, value) _mm_storeu_pd((double*)(to), value)
#define STOREPS256(to, value) _mm256_storeu_ps((float*)(to), value)
#define STORE64(to, value) *(uint64_t*)(to) = (uint64_t)(value)
#define U64 (*(const uint64_t*)(data + i))
#define V64 (*(const uint64_t*)(data + (i + 512) % 4096))
#define PSA _mm_loadu_ps((const float*)(data + i / 4 * 4))
#define PSB _mm_load_ps((const float*)(data + (i + 1024) % 4096 / 16 * 16))
#define PDA _mm_cvtps_pd(PSA)

EACH("sse2", paddb, STORE128, _mm_add_epi8(A128, B128))
EACH("sse2", paddsw, STORE128, _mm_adds_epi16(A128, B128))
EACH("sse2", psubusb, STORE128, _mm_subs_epu8(A128, B128))
EACH("sse2", pmaddwd, STORE128, _mm_madd_epi16(A128, B128))
EACH("sse2", pmuludq, STORE128, _mm_mul_epu32(A128, B128))
EACH("sse2", psadbw, STORE128, _mm_sad_epu8(A128, B128))
EACH("sse2", packssdw, STORE128, _mm_packs_epi32(A128, B128))
EACH("sse2", punpcklbw, STORE128, _mm_unpacklo_epi8(A128, B128))
EACH("sse2", pshufd, STORE128, _mm_shuffle_epi32(A128, 0x1b))
EACH("sse2", psllq, STORE128, _mm_sll_epi64(A128, _mm_cvtsi32_si128((int)(i % 70))))
EACH("sse2", pcmpgtw, STORE128, _mm_cmpgt_epi16(A128, B128))
EACH("sse2", pmovmskb, STORE64, _mm_movemask_epi8(A128))
EACH("sse2", cvttpd2dq, STORE128, _mm_cvttpd_epi32(PDA))
EACH("sse2", cvtps2dq, STORE128, _mm_cvtps_epi32(PSA))
EACH("sse2", divps, STOREPS, _mm_div_ps(PSA, PSB))
EACH("sse2", sqrtpd, STOREPD, _mm_sqrt_pd(_mm_mul_pd(PDA, PDA)))
EACH("sse2", cmpltps, STOREPS, _mm_cmplt_ps(PSA, PSB))
EACH("sse2", minps, STOREPS, _mm_min_ps(PSA, PSB))
EACH("sse2", shufps, STOREPS, _mm_shuffle_ps(PSA, PSB, 0x4e))
EACH("sse3", haddps, STOREPS, _mm_hadd_ps(PSA, PSB))
EACH("sse3", addsubpd, STOREPD, _mm_addsub_pd(PDA, PDA))
EACH("ssse3", pshufb, STORE128, _mm_shuffle_epi8(A128, B128))
EACH("ssse3", pmulhrsw, STORE128, _mm_mulhrs_epi16(A128, B128))
EACH("ssse3", palignr, STORE128, _mm_alignr_epi8(A128, B128, 5))
EACH("ssse3", psignb, STORE128, _mm_sign_epi8(A128, B128))
EACH("sse4.1", pmulld, STORE128, _mm_mullo_epi32(A128, B128))
EACH("sse4.1", pblendvb, STORE128, _mm_blendv_epi8(A128, B128, _mm_add_epi8(A128, B128)))
EACH("sse4.1", mpsadbw, STORE128, _mm_mpsadbw_epu8(A128, B128, 5))
EACH("sse4.1", phminposuw, STORE128, _mm_minpos_epu16(A128))
EACH("sse4.1", roundps, STOREPS, _mm_round_ps(PSA, _MM_FROUND_TO_NEG_INF))
EACH("sse4.1", dpps, STOREPS, _mm_dp_ps(PSA, PSB, 0xb5))
EACH("sse4.1", ptest, STORE64, _mm_testz_si128(A128, B128) | _mm_testc_si128(A128, B128) << 1)
EACH("sse4.2", pcmpistrm, STORE128, _mm_cmpistrm(A128, B128, 0x4c))
EACH("sse4.2", pcmpestri, STORE64, _mm_cmpestri(A128, (int)(i % 17), B128, (int)(i % 13), 0x0c))
EACH("sse4.2", crc32, STORE64, CRC32 + _mm_crc32_u8((unsigned)U64, (unsigned char)V64))
EACH("popcnt", popcnt, STORE64, POPCNT)
EACH("aes", aesenc, STORE128, _mm_aesenc_si128(A128, B128))
EACH("aes", aesdeclast, STORE128, _mm_aesdeclast_si128(A128, B128))
EACH("aes", aeskeygen, STORE128, _mm_aeskeygenassist_si128(A128, 0x1b))
EACH("pclmul", pclmulqdq, STORE128, _mm_clmulepi64_si128(A128, B128, 0x01))
EACH("sha", sha256rnds2, STORE128, _mm_sha256rnds2_epu32(A128, B128, A128))
EACH("sha", sha1rnds4, STORE128, _mm_sha1rnds4_epu32(A128, B128, 2))
EACH("avx", vpermilps, STOREPS256, _mm256_permutevar_ps(_mm256_loadu_ps((const float*)(data + i)), A256))
EACH("avx", vblendvps, STOREPS256, _mm256_blendv_ps(_mm256_castsi256_ps(A256), _mm256_castsi256_ps(B256), _mm256_castsi256_ps(A256)))
EACH("avx", vmaskmovps, STOREPS256, _mm256_maskload_ps((const float*)(data + i), B256))
EACH("avx2", vpaddd, STORE256, _mm256_add_epi32(A256, B256))
EACH("avx2", vpshufb, STORE256, _mm256_shuffle_epi8(A256, B256))
EACH("avx2", vpermd, STORE256, _mm256_permutevar8x32_epi32(A256, B256))
EACH("avx2", vpsllvd, STORE256, _mm256_sllv_epi32(A256, _mm256_and_si256(B256, _mm256_set1_epi32(63))))
EACH("avx2", vpmovzxbw, STORE256, _mm256_cvtepu8_epi16(A128))
EACH("avx2", vpbroadcastq, STORE256, _mm256_broadcastq_epi64(A128))
EACH("avx2", vperm2i128, STORE256, _mm256_permute2x128_si256(A256, B256, 0x31))
EACH("avx2", vpgatherdd, STORE256, _mm256_i32gather_epi32((const int*)data, _mm256_and_si256(A256, _mm256_set1_epi32(1023)), 4))
EACH("avx2", vpgatherqq, STORE256, _mm256_mask_i64gather_epi64(B256, (const long long*)data, _mm256_and_si256(A256, _mm256_set1_epi64x(511)), B256, 8))
EACH("bmi", andn, STORE64, ~U64 & V64)
EACH("bmi", bextr, STORE64, BEXTR)
EACH("bmi", blsr, STORE64, BLS)
EACH("bmi2", pext, STORE64, PEXT)
EACH("bmi2", pdep, STORE64, PDEP)
EACH("bmi2", bzhi, STORE64, BZHI)
EACH("bmi2", shifts, STORE64, (U64 << (V64 & 63)) ^ (U64 >> (V64 >> 8 & 63)) ^ (uint64_t)((int64_t)U64 >> (V64 >> 16 & 63)))
EACH("lzcnt", lzcnt, STORE64, LZCNT)
EACH("movbe", movbe, STORE64, __builtin_bswap64(U64) ^ __builtin_bswap32((uint32_t)V64))
EACH("f16c", vcvtps2ph, STORE128, _mm_cvtps_ph(PSA, 0))
EACH("f16c", vcvtph2ps, STOREPS, _mm_cvtph_ps(_mm_and_si128(A128, _mm_set1_epi16((short)0xbbff))))
EACH("fma", vfmadd, STOREPS, _mm_fmadd_ps(PSA, PSB, PSA))
EACH("fma", vfnmsub, STOREPD, _mm_fnmsub_pd(PDA, PDA, PDA))

__attribute__((target("adx"))) static void adx(void) {
  for (unsigned i = 0; i < 4000; i += 7) {
#ifdef __x86_64__
    unsigned long long low, high;
    unsigned char carry = _addcarryx_u64(0, U64, V64, &low);
    carry = _addcarryx_u64(carry, V64, ~U64, &high);
#else
    unsigned low, high;
    unsigned char carry = _addcarryx_u32(0, U32, V32, &low);
    carry = _addcarryx_u32(carry, V32, ~U32, &high);
#endif
    add_u64(low), add_u64(high), add_u64(carry);
  }
  report("adx");
}

int main(void) {
  refill();
  paddb(), paddsw(), psubusb(), pmaddwd(), pmuludq(), psadbw(), packssdw(), punpcklbw(), pshufd(), psllq(), pcmpgtw(), pmovmskb();
  pshufb(), pmulhrsw(), palignr(), psignb(), pmulld(), pblendvb(), mpsadbw(), phminposuw(), ptest(), pcmpistrm(), pcmpestri();
  crc32(), popcnt(), aesenc(), aesdeclast(), aeskeygen(), pclmulqdq();
  if (__builtin_cpu_supports("avx2")) {
    vpermilps(), vblendvps(), vmaskmovps(), vpaddd(), vpshufb(), vpermd(), vpsllvd(), vpmovzxbw(), vpbroadcastq(), vperm2i128();
    vpgatherdd(), vpgatherqq();
  }
  if (__builtin_cpu_supports("bmi2")) andn(), bextr(), blsr(), pext(), pdep(), bzhi(), shifts(), lzcnt(), movbe();
  if (__builtin_cpu_supports("sha")) sha256rnds2(), sha1rnds4();
  if (__builtin_cpu_supports("adx")) adx();
  refill_floats();
  cvttpd2dq(), cvtps2dq(), divps(), sqrtpd(), cmpltps(), minps(), shufps(), haddps(), addsubpd(), roundps(), dpps();
  if (__builtin_cpu_supports("fma")) vfmadd(), vfnmsub(), vcvtps2ph(), vcvtph2ps();
  return 0;
}
