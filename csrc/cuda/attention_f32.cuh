// CmlrAttention in float32, without tensor cores.
//
// Block: 16 queries of a head, four warps along the keys (attention_block.cuh). A warp works on
// chunks of 32 keys, one key a lane; the chunks of a warp are every fourth of the sequence.
//   Scores   a lane holds its key's columns in registers and meets the 16 queries, which sit in
//            shared memory and are read by all lanes at once: 64 multiply-adds for 16 broadcasts.
//   Values   a lane owns one column (two at width 64); the weights of 4 keys are broadcast at once.
// Keys and values reach the warp through a ring of two 2-KiB panels of its own, filled by cp.async
// while the other one is used: 32 keys x 16 columns of keys, or as many whole rows of values. Only
// the lanes of a warp wait for each other until the merge.
//
// Softmax: up to 256 keys a warp keeps all scores (one or two chunks) in registers and takes the
// largest once; beyond that the sums are rescaled when a new chunk has a larger score. Weights are
// divided by the number of tokens from the start, so that the sums cannot exceed the largest value.
//
// Shared memory: 24 KiB of rings, weights and, later, partial answers; 2 or 4 KiB of queries.
// Unverified on hardware.
#pragma once

#include "cuda/attention_block.cuh"

namespace cmlr::cuda {

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
template <int kWarps, class Region>
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

// After a barrier: every thread writes four neighbouring columns of a query, one to four times.
template <int kWidth, int kWarps, class T, class Region>
__device__ __forceinline__ void merge_partials(const AttentionArguments& a, const Region* regions,
                                               float unit) {
  T* out = static_cast<T*>(a.out) + blockIdx.z * a.out_batch_stride + blockIdx.y * kWidth;
#pragma unroll
  for (int i = threadIdx.x; i < kQueriesPerBlock * kWidth / 4; i += 32 * kWarps) {
    const int query = i / (kWidth / 4), column = i % (kWidth / 4) * 4;
    const int row = blockIdx.x * kQueriesPerBlock + query;
    if (row >= a.num_queries) break;
    float factor[kWarps], mean[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (merge_factors<kWarps>(regions, query, unit, factor)) {
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

template <int kWidth, int kChunks>  // kChunks: of a step, whose scores are in registers together
struct F32Warp {
  static constexpr int kWarps = 4;
  static constexpr int kKeys = 32;  // of a chunk
  static constexpr int kPanelFloats = 512;
  static constexpr int kPanels = kKeys * kWidth / kPanelFloats;  // of a chunk's keys, or values
  static constexpr int kPanelRows = kPanelFloats / kWidth;       // of values
  static constexpr int kColumns = kWidth / 32;                   // of a lane
  static constexpr int kStepPanels = 2 * kChunks * kPanels;

  struct Working {
    float ring[2][kPanelFloats];
    float weights[kQueriesPerBlock][kKeys];
  };
  union Region {  // of shared memory, one for each warp
    Working working;
    Partial<kWidth> partial;
  };
  static constexpr int kSharedBytes =
      kWarps * sizeof(Region) + kQueriesPerBlock * kWidth * sizeof(float);

  const AttentionArguments& a;
  Region& region;
  const float* queries;  // (16, width) in shared memory
  const float *key, *value;
  int lane, warp;
  float score[kChunks][kQueriesPerBlock];
  float sum[kQueriesPerBlock][kColumns];
  float largest[kQueriesPerBlock], weight[kQueriesPerBlock];  // weight: of this lane's keys

  __device__ __forceinline__ F32Warp(const AttentionArguments& arguments, unsigned char* shared)
      : a(arguments),
        region(reinterpret_cast<Region*>(shared)[threadIdx.x / 32]),
        queries(reinterpret_cast<float*>(shared + kWarps * sizeof(Region))),
        key(head_slice<float>(a.key, a.key_batch_stride, kWidth)),
        value(head_slice<float>(a.value, a.value_batch_stride, kWidth)),
        lane(threadIdx.x % 32),
        warp(threadIdx.x / 32) {
#pragma unroll
    for (int q = 0; q < kQueriesPerBlock; ++q) {
      largest[q] = minus_infinity();
      weight[q] = 0.0f;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sum[q][c] = 0.0f;
    }
  }

  __device__ __forceinline__ int first_key(int step, int chunk) const {
    return ((step * kChunks + chunk) * kWarps + warp) * kKeys;
  }

  __device__ __forceinline__ float* panel_at(int n) const { return region.working.ring[n % 2]; }

  // Panels follow each other as they are used: a step's keys, then its values.
  __device__ __forceinline__ void copy_panel(int n) {
    const int of_step = n % kStepPanels, panel = of_step % kPanels;
    const int first = first_key(n / kStepPanels, of_step / kPanels % kChunks);
    float* to = panel_at(n);
    const bool is_value = of_step >= kChunks * kPanels;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int piece = i * 32 + lane;
      if (is_value) {
        const int row = first + panel * kPanelRows + piece / (kWidth / 4);
        copy_row_piece(to + piece * 4, value, row, piece % (kWidth / 4) * 4);
      } else {  // four pieces a row, XORed with the row: lanes read their own rows without
                // conflicts
        const int row = piece / 4, part = piece % 4;
        copy_row_piece(to + row * 16 + (part ^ (row / 2 % 4)) * 4, key, first + row,
                       panel * 16 + part * 4);
      }
    }
    commit_async_copies();
  }

  __device__ __forceinline__ void copy_row_piece(float* to, const float* from, int row,
                                                 int column) {
    const int inside = min(row, a.num_tokens - 1);
    copy_async_16(to, from + static_cast<int64_t>(inside) * a.row + column, row < a.num_tokens);
  }

  // Panel n is there for all lanes, and the next one on its way.
  __device__ __forceinline__ const float* take_panel(int n) {
    copy_panel(n + 1);
    wait_async_copies<1>();
    __syncwarp();
    return panel_at(n);
  }

  __device__ __forceinline__ void score_panel(const float* panel, int index, float (&to)[16]) {
    float4 mine[4];
#pragma unroll
    for (int part = 0; part < 4; ++part)
      mine[part] =
          *reinterpret_cast<const float4*>(panel + lane * 16 + (part ^ (lane / 2 % 4)) * 4);
#pragma unroll
    for (int q = 0; q < kQueriesPerBlock; ++q)
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const float4 x =
            *reinterpret_cast<const float4*>(queries + q * kWidth + index * 16 + part * 4);
        to[q] += x.x * mine[part].x;
        to[q] += x.y * mine[part].y;
        to[q] += x.z * mine[part].z;
        to[q] += x.w * mine[part].w;
      }
  }

  __device__ __forceinline__ void score_step(int step) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int q = 0; q < kQueriesPerBlock; ++q) score[chunk][q] = 0.0f;
#pragma unroll 1
      for (int panel = 0; panel < kPanels; ++panel) {
        score_panel(take_panel(step * kStepPanels + chunk * kPanels + panel), panel, score[chunk]);
        __syncwarp();
      }
      const int token = first_key(step, chunk) + lane;
      const bool exists = token < a.num_tokens;
      const float bias = exists && a.key_bias ? __ldg(a.key_bias + token) : 0.0f;
#pragma unroll
      for (int q = 0; q < kQueriesPerBlock; ++q)
        score[chunk][q] = exists ? a.scale * score[chunk][q] + bias : minus_infinity();
    }
  }

  // Turns scores into weights and rescales what was summed before.
  __device__ __forceinline__ void weigh() {
#pragma unroll
    for (int q = 0; q < kQueriesPerBlock; ++q) {
      float now = largest[q];
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) now = fmaxf(now, score[chunk][q]);
#pragma unroll
      for (int lanes = 16; lanes > 0; lanes /= 2)
        now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, lanes));
      const float reference = finite_reference(now);
      if (kChunks == 1) rescale(q, fast_exp2((largest[q] - reference) * kLog2E));
      largest[q] = now;
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        score[chunk][q] = fast_exp2((score[chunk][q] - reference) * kLog2E - a.log2_tokens);
        weight[q] += score[chunk][q];
      }
    }
  }

  __device__ __forceinline__ void rescale(int q, float factor) {
    weight[q] *= factor;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sum[q][c] *= factor;
  }

  __device__ __forceinline__ void add_panel(const float* panel, int index) {
#pragma unroll 2
    for (int row = 0; row < kPanelRows; row += 4) {
      float mine[4][kColumns];
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < kColumns; ++c) mine[r][c] = panel[(row + r) * kWidth + c * 32 + lane];
#pragma unroll
      for (int q = 0; q < kQueriesPerBlock; ++q) {
        const float4 w =
            *reinterpret_cast<const float4*>(&region.working.weights[q][index * kPanelRows + row]);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          sum[q][c] += w.x * mine[0][c];
          sum[q][c] += w.y * mine[1][c];
          sum[q][c] += w.z * mine[2][c];
          sum[q][c] += w.w * mine[3][c];
        }
      }
    }
  }

  __device__ __forceinline__ void add_step(int step) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int q = 0; q < kQueriesPerBlock; ++q) region.working.weights[q][lane] = score[chunk][q];
#pragma unroll 1
      for (int panel = 0; panel < kPanels; ++panel) {
        add_panel(take_panel(step * kStepPanels + (kChunks + chunk) * kPanels + panel), panel);
        __syncwarp();  // before the panel, or the weights, are written again
      }
    }
  }

  __device__ __forceinline__ void store_partial() {
#pragma unroll
    for (int q = 0; q < kQueriesPerBlock; ++q) {
#pragma unroll
      for (int lanes = 16; lanes > 0; lanes /= 2)
        weight[q] += __shfl_xor_sync(kAllLanes, weight[q], lanes);
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        region.partial.sums[Partial<kWidth>::index(q, c * 32 + lane)] = sum[q][c];
      if (lane == 0) region.partial.largest_and_weight[q] = make_float2(largest[q], weight[q]);
    }
  }
};

// The block's queries, zeros behind the last; all threads.
template <int kWidth, int kThreads>
__device__ __forceinline__ void copy_queries(const AttentionArguments& a, float* to) {
  const float* from = head_slice<float>(a.query, a.query_batch_stride, kWidth);
#pragma unroll
  for (int i = threadIdx.x; i < kQueriesPerBlock * kWidth / 4; i += kThreads) {
    const int row = blockIdx.x * kQueriesPerBlock + i / (kWidth / 4);
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (row < a.num_queries)
      x = *reinterpret_cast<const float4*>(from + static_cast<int64_t>(row) * a.row +
                                           i % (kWidth / 4) * 4);
    reinterpret_cast<float4*>(to)[i] = x;
  }
}

template <int kWidth, int kChunks>
__global__ void __launch_bounds__(32 * F32Warp<kWidth, kChunks>::kWarps)
    attention_f32_kernel(AttentionArguments a) {
  CMLR_SHARED_MEMORY(shared);
  using Warp = F32Warp<kWidth, kChunks>;
  Warp warp(a, shared);
  warp.copy_panel(0);
  copy_queries<kWidth, 32 * Warp::kWarps>(a, const_cast<float*>(warp.queries));
  __syncthreads();

  constexpr int kStepKeys = Warp::kWarps * kChunks * Warp::kKeys;
  const int steps = kChunks == 1 ? (a.num_tokens + kStepKeys - 1) / kStepKeys : 1;
  for (int step = 0; step < steps; ++step) {
    warp.score_step(step);
    warp.weigh();
    warp.add_step(step);
  }
  wait_async_copies<0>();  // the panel behind the last one: zeros, but on their way to the ring
  __syncwarp();
  warp.store_partial();
  __syncthreads();
  merge_partials<kWidth, Warp::kWarps, float>(
      a, reinterpret_cast<const typename Warp::Region*>(shared), kLog2E);
}

}  // namespace cmlr::cuda
