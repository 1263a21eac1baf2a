// CmlrAttention on the GPU: the operator of cmlr/attention.h for device memory.
#pragma once

#include <cstdint>

struct CUstream_st;  // CUDA's own name behind cudaStream_t

namespace cmlr::cuda {

using Stream = CUstream_st*;  // a cudaStream_t; null: the default stream

enum class Element { kFloat32, kFloat16 };

// As cmlr::AttentionParams, with device pointers to elements of the given type, aligned to 16
// bytes. The bias is float32 for both types, aligned to 4 bytes.
struct AttentionParams {
  Element element;
  const void* query;      // (batch | 1, num_queries, dim)
  const void* key;        // (batch | 1, num_tokens, dim)
  const void* value;      // (batch | 1, num_tokens, dim)
  const float* key_bias;  // (num_tokens); may be null
  void* out;              // (batch, num_queries, dim)
  int64_t batch, num_queries, num_tokens, dim;
  int64_t num_heads;  // head width dim / num_heads: 32 or 64
  float scale;
  int64_t query_batch_stride, key_batch_stride, value_batch_stride;  // elements; 0, or rows * dim
};

// Enqueues the kernel on `stream` and returns; the memory must live until it has run. Keeps what
// cmlr::attention promises of masks, huge values and NaN; in float16, scores must stay
// below 2.3e38. float32 agrees with it within 1e-5 and float16 within 2e-3 on data of unit
// variance.
//
// Throws std::invalid_argument for what cmlr::attention refuses, for other head widths and for
// misaligned pointers, and std::runtime_error if CUDA cannot launch.
void attention(const AttentionParams& params, Stream stream);

}  // namespace cmlr::cuda
