// What the attention kernels share: their arguments, and how the warps of a block bring their
// shares together.
//
// A block answers 16 queries of one head of one batch item. Its warps take turns along the keys,
// and each leaves a partial answer in its own region of shared memory: for every query the largest
// score, the sum of weights, and the weighted sum of values, all relative to that largest score.
// After one barrier the block rescales the partial answers to a common largest score.
#pragma once

#include "cuda/device.h"

namespace cmlr::cuda {

constexpr int kQueriesPerBlock = 16;
constexpr float kLog2E = 1.4426950408889634f;

struct AttentionArguments {
  const void *query, *key, *value;  // rows of `row` elements, 16-byte aligned
  const float* key_bias;            // may be null
  void* out;
  int64_t query_batch_stride, key_batch_stride, value_batch_stride, out_batch_stride;  // elements
  int num_queries, num_tokens, row;
  float scale;
  float log2_tokens;
};

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// The score that weights are taken relative to: finite even where every key so far is masked.
__device__ __forceinline__ float finite_reference(float largest) {
  return largest == minus_infinity() ? 0.0f : largest;
}

// A warp's first element of a tensor: this block's batch item and head.
template <class T>
__device__ __forceinline__ const T* head_slice(const void* tensor, int64_t batch_stride,
                                               int width) {
  return static_cast<const T*>(tensor) + blockIdx.z * batch_stride + blockIdx.y * width;
}

template <class T>
struct ByteOf {
  using Type = char;
};
template <class T>
struct ByteOf<const T> {
  using Type = const char;
};

// Bytes, so that the address is one multiply-add.
template <class T>
__device__ __forceinline__ T* row_at(T* first, int row, int row_bytes) {
  using Byte = typename ByteOf<T>::Type;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first) +
                              static_cast<int64_t>(row) * row_bytes);
}

}  // namespace cmlr::cuda
