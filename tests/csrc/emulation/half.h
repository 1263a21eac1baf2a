// IEEE half precision in software: round to nearest even, as the device converts.
#pragma once

#include <cstdint>
#include <cstring>

namespace emulation {

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline uint16_t half_from_float(float value) {
  const uint32_t bits = bits_as<uint32_t>(value), sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x47800000u)  // 65536 and above, infinity, NaN
    return static_cast<uint16_t>(sign | (magnitude > 0x7f800000u ? 0x7fffu : 0x7c00u));
  if (magnitude < 0x38800000u) {  // subnormal in half: let an addition round at the right bit
    const float shifted = bits_as<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_as<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1;  // ties to even
  return static_cast<uint16_t>(sign | (magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

inline float float_from_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u,
                 mantissa = half & 1023u;
  if (exponent == 31) return bits_as<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return bits_as<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return bits_as<float>(sign | bits_as<uint32_t>(magnitude));
}

inline uint32_t pack_halves(float low, float high) {
  return half_from_float(low) | static_cast<uint32_t>(half_from_float(high)) << 16;
}

}  // namespace emulation
