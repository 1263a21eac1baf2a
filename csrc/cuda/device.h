// The only header a kernel includes: CUDA under nvcc and NVRTC, the emulation under g++. All inline
// assembly of the kernels is here, each wrapper with an emulated body in emulation/tensor_core.h.
#pragma once

#if defined(__CUDACC_RTC__)
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using int64_t = long long;
#else
#include <cstdint>
#endif

#if defined(__CUDACC__)
#define CMLR_SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#define CMLR_LAUNCH(kernel, grid, block, shared_bytes, stream, argument) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(argument)
#else
#include "emulation/tensor_core.h"
#define CMLR_SHARED_MEMORY(name) unsigned char* name = emulation::current->shared
#define CMLR_LAUNCH(kernel, grid, block, shared_bytes, stream, argument) \
  emulation::launch(kernel, grid, block, shared_bytes, stream, argument)
#endif

namespace cmlr::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

#if defined(__CUDACC__)

// 2^x, within 2 units in the last place; subnormal results are 0.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two halves in a word, each rounded to nearest even.
__device__ __forceinline__ uint32_t pack_halves(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// c += a b for one 16x16x8 step; fragments as in the PTX ISA.
__device__ __forceinline__ void mma_m16n8k16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Four transposed 8x8 matrices of halves; lane 8 m + i gives the address of row i of matrix m.
__device__ __forceinline__ void load_matrices_transposed(uint32_t out[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// Two neighbouring floats of shared memory, never split: that would make lanes meet in a bank.
__device__ __forceinline__ void store_pair(float* to, float first, float second) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(shared_address(to)), "f"(first), "f"(second)
               : "memory");
}

// 16 bytes from global to shared memory, or zeros where not `valid`; done at the wait.
__device__ __forceinline__ void copy_async_16(void* to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_async_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kGroupsInFlight>
__device__ __forceinline__ void wait_async_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsInFlight) : "memory");
}

#else

inline float fast_exp2(float x) { return std::exp2(x); }
using emulation::commit_async_copies;
using emulation::copy_async_16;
using emulation::mma_m16n8k16;
using emulation::pack_halves;
using emulation::wait_async_copies;
inline void store_pair(float* to, float first, float second) {
  *reinterpret_cast<float2*>(to) = {first, second};
}
inline void load_matrices_transposed(uint32_t out[4], const void* row, EMULATION_SITE) {
  emulation::load_matrices<true>(out, row, file, line);
}

#endif

}  // namespace cmlr::cuda
