// Launches CmlrAttention on the GPU: checks, choice of kernel, grid. nvcc compiles it for the
// device; any C++ compiler compiles it for the emulation.
//
// Grid: blocks of 16 queries x heads x batch. Up to 256 keys are taken in one pass over the scores;
// in float32 one chunk a warp already covers 128, so a single step of the looping kernel is that.
// In float16 fewer keys take fewer warps: what a warp does besides its products, and merging what
// warps found, is most of the work where each has but one chunk.
#include <climits>
#include <cmath>
#include <string>

#include "attention_checks.h"
#include "cmlr/attention_cuda.h"
#include "cuda/attention_f16.cuh"
#include "cuda/attention_f32.cuh"

namespace cmlr::cuda {
namespace {

AttentionArguments arguments_of(const AttentionParams& p) {
  return {p.query,
          p.key,
          p.value,
          p.key_bias,
          p.out,
          p.query_batch_stride,
          p.key_batch_stride,
          p.value_batch_stride,
          p.num_queries * p.dim,
          static_cast<int>(p.num_queries),
          static_cast<int>(p.num_tokens),
          static_cast<int>(p.dim),
          p.scale,
          std::log2(static_cast<float>(p.num_tokens))};
}

template <class Kernel>
void launch(Kernel kernel, int warps, int shared_bytes, const AttentionParams& p, Stream stream) {
  const auto blocks = (p.num_queries + kQueriesPerBlock - 1) / kQueriesPerBlock;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(p.num_heads),
                  static_cast<unsigned>(p.batch));
  CMLR_LAUNCH(kernel, grid, dim3(static_cast<unsigned>(32 * warps)), shared_bytes, stream,
              arguments_of(p));
#if defined(__CUDACC__)
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("CmlrAttention: the launch failed: ") +
                             cudaGetErrorString(error));
#endif
}

template <int kWidth, int kWarps, int kChunks, int kStages = 1>
void launch_f16(const AttentionParams& p, Stream stream) {
  constexpr int kSharedBytes = F16Warp<kWidth, kWarps, kChunks, kStages>::kSharedBytes;
  launch(attention_f16_kernel<kWidth, kWarps, kChunks, kStages>, kWarps, kSharedBytes, p, stream);
}

template <int kWidth, int kChunks>
void launch_f32(const AttentionParams& p, Stream stream) {
  using Warp = F32Warp<kWidth, kChunks>;
  launch(attention_f32_kernel<kWidth, kChunks>, Warp::kWarps, Warp::kSharedBytes, p, stream);
}

template <int kWidth>
void launch_width(const AttentionParams& p, Stream stream) {
  const int64_t keys = p.num_tokens;
  if (p.element == Element::kFloat32)
    return keys > 128 && keys <= 256 ? launch_f32<kWidth, 2>(p, stream)
                                     : launch_f32<kWidth, 1>(p, stream);
  if (keys <= 32) return launch_f16<kWidth, 1, 2>(p, stream);
  if (keys <= 48) return launch_f16<kWidth, 1, 3>(p, stream);
  if (keys <= 64) return launch_f16<kWidth, 1, 4>(p, stream);
  if (keys <= 96) return launch_f16<kWidth, 2, 3>(p, stream);
  if (keys <= 128) return launch_f16<kWidth, 2, 4>(p, stream);
  if (keys <= 192) return launch_f16<kWidth, 4, 3>(p, stream);
  if (keys <= 256) return launch_f16<kWidth, 4, 4>(p, stream);
  launch_f16<kWidth, 4, 2, 2>(p, stream);
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

void require_supported(const AttentionParams& p) {
  const int64_t width = p.dim / p.num_heads;
  require(width == 32 || width == 64, "the CUDA kernels take head widths 32 and 64, got " +
                                          std::to_string(width) +
                                          ": use the CPU operator, or change dim or num_heads");
  require(aligned(p.query) && aligned(p.key) && aligned(p.value) && aligned(p.out),
          "query, key, value and out must be aligned to 16 bytes on the device");
  require(reinterpret_cast<uintptr_t>(p.key_bias) % sizeof(float) == 0,
          "key_bias must be aligned to 4 bytes on the device");
  require(
      p.batch <= 65535 && p.num_heads <= 65535 && p.num_queries <= INT_MAX / 2 &&
          p.num_tokens <= INT_MAX / 2 && p.dim <= INT_MAX / 2,
      "a size exceeds what a grid can hold: batch and heads up to 65535, rows and dim up to 2^30");
}

}  // namespace

void attention(const AttentionParams& p, Stream stream) {
  require_valid(p);
  require_supported(p);
  if (p.dim / p.num_heads == 32)
    launch_width<32>(p, stream);
  else
    launch_width<64>(p, stream);
}

}  // namespace cmlr::cuda
