// What the attention kernels share: their arguments, and how the four warps of a block bring their
// shares together.
//
// A block answers 16 queries of one head of one batch item. Its warps take turns along the keys,
// and each leaves a partial answer in its own region of shared memory: for every query the largest
// score, the sum of weights, and the weighted sum of values, all relative to that largest score.
// After one barrier the block rescales the four partial answers to a common largest score.
#pragma once

#include "cuda/device.h"

namespace cmlr::cuda {

constexpr int kQueriesPerBlock = 16;
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
// Blocks that a multiprocessor must be able to hold, which bounds a thread's registers.
constexpr int kResidentBlocks = 3;
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

// Bytes, so that the address is one multiply-add.
template <class T>
__device__ __forceinline__ const T* row_at(const T* first, int row, int row_bytes) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) +
                                    static_cast<int64_t>(row) * row_bytes);
}

// A partial answer in shared memory. Groups of eight columns are XORed with the row, so that
// neither writing fragments nor reading rows makes lanes meet in a bank.
template <int kWidth>
struct Partial {
  float sums[kQueriesPerBlock * kWidth];
  float2 largest_and_weight[kQueriesPerBlock];

  static __device__ __forceinline__ int index(int query, int column) {
    const int group = (column / 8) ^ (query % 4);
    return query * kWidth + group * 8 + column % 8;
  }
};

// Factors that bring the four partial answers of a query to one scale and divide by the total
// weight. `unit`: what to multiply scores by to get powers of two.
// Returns whether there is any weight.
template <class Region>
__device__ __forceinline__ bool merge_factors(const Region* regions, int query, float unit,
                                              float (&factor)[kWarps]) {
  float2 part[kWarps];
  float largest = minus_infinity();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    part[w] = regions[w].partial.largest_and_weight[query];
    largest = fmaxf(largest, part[w].x);
  }
  const float reference = finite_reference(largest);
  float total = 0.0f;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    factor[w] = fast_exp2((part[w].x - reference) * unit);
    total += factor[w] * part[w].y;
  }
  const float inverse = 1.0f / total;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) factor[w] *= inverse;
  return total != 0.0f;
}

__device__ __forceinline__ void store_four(float* to, const float (&x)[4]) {
  *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]);
}
__device__ __forceinline__ void store_four(uint16_t* to, const float (&x)[4]) {
  *reinterpret_cast<uint2*>(to) = make_uint2(pack_halves(x[0], x[1]), pack_halves(x[2], x[3]));
}

// After a barrier: every thread writes four neighbouring columns of a query, once or twice.
template <int kWidth, class T, class Region>
__device__ __forceinline__ void merge_partials(const AttentionArguments& a, const Region* regions,
                                               float unit) {
  T* out = static_cast<T*>(a.out) + blockIdx.z * a.out_batch_stride + blockIdx.y * kWidth;
#pragma unroll
  for (int i = threadIdx.x; i < kQueriesPerBlock * kWidth / 4; i += kThreads) {
    const int query = i / (kWidth / 4), column = i % (kWidth / 4) * 4;
    const int row = blockIdx.x * kQueriesPerBlock + query;
    if (row >= a.num_queries) break;
    float factor[kWarps], mean[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (merge_factors(regions, query, unit, factor)) {
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const float4 sum = *reinterpret_cast<const float4*>(
            &regions[w].partial.sums[Partial<kWidth>::index(query, column)]);
        mean[0] += factor[w] * sum.x;
        mean[1] += factor[w] * sum.y;
        mean[2] += factor[w] * sum.z;
        mean[3] += factor[w] * sum.w;
      }
    }
    store_four(out + static_cast<int64_t>(row) * a.row + column, mean);
  }
}

}  // namespace cmlr::cuda
