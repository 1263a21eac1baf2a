// CUDA's names for device code, as plain C++ on the emulated GPU. Only what the kernels use.
#pragma once

#include <cmath>

#include "emulation/machine.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

#define threadIdx (emulation::current->index)
#define blockIdx (emulation::current->block)

// The call site of a collective, filled in by default arguments.
#define EMULATION_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATION_SITE) {
  emulation::sync_block(0, 0, {"__syncthreads", file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATION_SITE) {
  emulation::sync_warp(mask, {"__syncwarp", file, line});
}

inline float __shfl_xor_sync(unsigned mask, float value, int lane_mask, EMULATION_SITE) {
  const unsigned from = emulation::current->lane ^ static_cast<unsigned>(lane_mask);
  if (!(mask >> from & 1))
    emulation::fail("%s:%d: shuffle reads lane %u, not in mask %08x", file, line, from, mask);
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto* all = emulation::meet(mask, {{bits}}, nullptr, {"__shfl_xor_sync", file, line});
  bits = static_cast<uint32_t>(all[from].word[0]);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
inline T __ldg(const T* address) {
  return *address;
}
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
// Each rounded by itself: what passes through memory is never fused with what follows.
inline float __fmul_rn(float a, float b) {
  float product = a * b;
  __asm__("" : "+m"(product));
  return product;
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
template <class T>
inline T min(T a, T b) {
  return b < a ? b : a;
}
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
