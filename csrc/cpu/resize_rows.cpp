// x86-64 alone promises SSE2, so the loops are compiled again for what most machines have, and the
// step that costs most, shrinking along a row, is written out for AVX-512 with byte shuffles: a
// source row of 640 pixels to 224 takes a third of the instructions of the plain loop there.
// Arm64 always has NEON, and compilers use it for the plain loops: every product, sum and widening
// but those of a loop's rest is of four floats.
// The machine is asked by hand: `target_clones` and `__builtin_cpu_supports` need a run-time
// library that not every compiler brings.
#include "cpu/resize_rows.h"

#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define CMLR_X86 1
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace cmlr {
namespace {

using Floats4 = float __attribute__((vector_size(16)));

// Added to a float in [0, 2^22] it leaves the nearest integer, half to even, in the low bits.
constexpr float kRounder = 12582912.0f;

// Bytes, about a row. Windows overlap, so that the processor itself does not see where they lead: a
// frame that lies in memory took 1.7 times as long without it. Fetching never faults.
constexpr int64_t kAhead = 2048;

namespace plain {
#define CMLR_TARGET
#include "cpu/resize_rows_loops.h"
#undef CMLR_TARGET
}  // namespace plain

#ifdef CMLR_X86
namespace avx2 {
#define CMLR_TARGET __attribute__((target("avx2")))
#include "cpu/resize_rows_loops.h"
#undef CMLR_TARGET
}  // namespace avx2

namespace avx512 {
#define CMLR_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")))
#include "cpu/resize_rows_loops.h"

CMLR_TARGET inline __m512 widen(__m128i bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

template <int kTaps>
CMLR_TARGET void shrink_groups(const uint8_t* source, const Groups& groups, float* shrunk) {
  const float* weight = groups.weight.data();
  const uint8_t* index = groups.index.data();
  for (size_t g = 0; g < groups.first_byte.size();
       ++g, weight += 16 * kTaps, index += kWindow, shrunk += 16) {
    const __m512i window =
        _mm512_maskz_loadu_epi8(groups.readable[g], source + groups.first_byte[g]);
    _mm_prefetch(reinterpret_cast<const char*>(source + groups.first_byte[g] + kAhead),
                 _MM_HINT_T0);
    const __m512i bytes = _mm512_permutexvar_epi8(_mm512_loadu_si512(index), window);
    __m512 sum = _mm512_mul_ps(widen(_mm512_castsi512_si128(bytes)), _mm512_loadu_ps(weight));
    if constexpr (kTaps > 1)
      sum = _mm512_add_ps(sum, _mm512_mul_ps(widen(_mm512_extracti32x4_epi32(bytes, 1)),
                                             _mm512_loadu_ps(weight + 16)));
    if constexpr (kTaps > 2)
      sum = _mm512_add_ps(sum, _mm512_mul_ps(widen(_mm512_extracti32x4_epi32(bytes, 2)),
                                             _mm512_loadu_ps(weight + 32)));
    if constexpr (kTaps > 3)
      sum = _mm512_add_ps(sum, _mm512_mul_ps(widen(_mm512_extracti32x4_epi32(bytes, 3)),
                                             _mm512_loadu_ps(weight + 48)));
    _mm512_storeu_ps(shrunk, sum);
  }
}

CMLR_TARGET void shrink_shuffled(const uint8_t* source, const Columns& columns, float* widened,
                                 float* shrunk) {
  const Groups& groups = columns.groups;
  if (groups.first_byte.empty()) return shrink(source, columns, widened, shrunk);
  switch (columns.axis.taps) {
    case 1:
      return shrink_groups<1>(source, groups, shrunk);
    case 2:
      return shrink_groups<2>(source, groups, shrunk);
    case 3:
      return shrink_groups<3>(source, groups, shrunk);
    default:
      return shrink_groups<4>(source, groups, shrunk);
  }
}

CMLR_TARGET void write_shuffled(const float* sum, int64_t width, int first, uint8_t* out) {
  const __m128i order = first == 0
                            ? _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0)
                            : _mm_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, 0, 0, 0, 0);
  for (int64_t x = 0; x < width; x += kGroup, out += 3 * kGroup) {
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_loadu_ps(sum + 4 * x)));
    const int64_t left = width - x < kGroup ? width - x : kGroup;
    const __mmask16 written = static_cast<__mmask16>((1u << 3 * left) - 1);
    _mm_mask_storeu_epi8(out, written, _mm_shuffle_epi8(bytes, order));
  }
}
#undef CMLR_TARGET
}  // namespace avx512

// Which of them processor and operating system offer: the latter has to save the registers.
void ask_machine(bool& has_avx2, bool& has_avx512) {
  unsigned a, b, c, d, b7, c7;
  has_avx2 = has_avx512 = false;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
  unsigned saved, high;
  __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d) || (saved & 0x6) != 0x6) return;
  has_avx2 = b7 & bit_AVX2;
  const unsigned wanted = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
  has_avx512 =
      has_avx2 && (saved & 0xe6) == 0xe6 && (b7 & wanted) == wanted && (c7 & bit_AVX512VBMI);
}
#endif

std::vector<RowOps> find_row_ops() {
  std::vector<RowOps> found;
#ifdef CMLR_X86
  bool has_avx2, has_avx512;
  ask_machine(has_avx2, has_avx512);
  if (has_avx512)
    found.push_back({"avx512", avx512::shrink_shuffled, avx512::add, avx512::write_shuffled});
  if (has_avx2) found.push_back({"avx2", avx2::shrink, avx2::add, avx2::write});
#endif
  found.push_back({"plain", plain::shrink, plain::add, plain::write});
  return found;
}

}  // namespace

const std::vector<RowOps>& row_ops() {
  static const std::vector<RowOps> found = find_row_ops();
  return found;
}

}  // namespace cmlr
