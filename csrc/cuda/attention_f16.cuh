// CmlrAttention in float16 on tensor cores, accumulated in float32.
//
// Block: 16 queries of a head, and as few warps along the keys (attention_block.cuh) as their
// scores fit into registers: one for up to 64 keys, which writes the answer as it is, two for up to
// 128, otherwise four. A warp works on chunks of 16 keys; those of a warp are every fourth of the
// sequence where there are four warps, and so on.
//   Scores   no element of K is used twice in a block, so keys go from global memory straight into
//            registers, 16 bytes a lane. That hands a lane eight neighbouring columns where the mma
//            wants pairs eight apart: a sum does not care about the order of its terms, so queries
//            are taken in the same order and nothing is shuffled.
//   Values   have to be transposed: cp.async into the warp's own shared memory (pieces of 16 bytes
//            XORed with the row), and from there by ldmatrix.trans.
//   Weights  are halves between 0 and 1. Their sum comes from one more mma, with a matrix of ones:
//            exactly what the values are weighted with, and no shuffles.
//
// Softmax: up to 256 keys in one pass, the scores of one to four chunks in registers. Beyond that
// two chunks a step, rescaled when a larger score comes; while one step is computed, the next
// step's keys are on their way to registers and its values to the other one of two stages.
//
// Merge: warps but the first leave their partial answers in shared memory, in the order of their
// fragments, so that no lane meets another in a bank; the first takes them in and writes.
//
// Shared memory: up to 64 keys of values a warp, 16 KiB a block at width 32 and 32 KiB at 64, later
// taken by the partial answers. One block barrier, or none. Scores are in powers of two.
// Unverified on hardware.
#pragma once

#include "cuda/attention_block.cuh"

namespace cmlr::cuda {

// Warps that a multiprocessor must be able to hold, which bounds a thread's registers.
constexpr int kResidentWarps = 12;

// kChunks: of a step, whose scores are in registers together. kStages: 1 if there is only one step.
template <int kWidth, int kWarps, int kChunks, int kStages>
struct F16Warp {
  static constexpr int kKeys = 16;             // of a chunk
  static constexpr int kBlocks = kWidth / 32;  // of columns that one 16-byte load a lane covers
  static constexpr int kPieces = kWidth / 8;   // of 16 bytes in a row of values

  struct Partial {  // of the lanes of a warp
    float4 sums[kWidth / 8][32];
    float4 largest_and_weights[32];  // two and two
  };
  union Region {  // of shared memory, one for each warp
    uint16_t values[kStages * kChunks][kKeys * kWidth];
    Partial partial;
  };
  static constexpr int kSharedBytes = kWarps * sizeof(Region);

  const AttentionArguments& a;
  Region& region;
  const uint16_t *key, *value;
  int lane, warp, group, quad;  // of the fragments: lane = 4 group + quad
  int row_bytes;
  uint32_t query[kWidth / 16][4];
  uint4 keys[kChunks][2][kBlocks];  // of the step: 16 keys as two groups of eight
  float score[kChunks][2][4];
  float sum[kWidth / 8][4];
  float weight[4];  // in 0 and 2: of queries `group` and `group` + 8
  float largest[2];

  __device__ __forceinline__ F16Warp(const AttentionArguments& arguments, unsigned char* shared)
      : a(arguments),
        region(reinterpret_cast<Region*>(shared)[threadIdx.x / 32]),
        key(head_slice<uint16_t>(a.key, a.key_batch_stride, kWidth)),
        value(head_slice<uint16_t>(a.value, a.value_batch_stride, kWidth)),
        lane(threadIdx.x % 32),
        warp(threadIdx.x / 32),
        group(lane / 4),
        quad(lane % 4),
        row_bytes(a.row * static_cast<int>(sizeof(uint16_t))) {
#pragma unroll
    for (int i = 0; i < 4; ++i) weight[i] = 0.0f;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[n][i] = 0.0f;
    largest[0] = largest[1] = minus_infinity();
  }

  __device__ __forceinline__ int first_key(int step, int chunk) const {
    return ((step * kChunks + chunk) * kWarps + warp) * kKeys;
  }
  __device__ __forceinline__ uint16_t* values(int step, int chunk) const {
    return region.values[step % kStages * kChunks + chunk];
  }

  // Rows behind the last become zeros; nothing is read at their addresses.
  __device__ __forceinline__ void copy_values(int step) {
    constexpr int kRows = 32 / kPieces;  // that the lanes copy at once
    const int piece = lane % kPieces, first = first_key(step, 0) + lane / kPieces;
    const uint16_t* from = row_at(value + piece * 8, first, row_bytes);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk)
#pragma unroll
      for (int i = 0; i < kKeys / kRows; ++i) {
        const int row = i * kRows + lane / kPieces, skipped = chunk * kWarps * kKeys + i * kRows;
        copy_async_16(values(step, chunk) + row * kWidth + swizzled(row, piece) * 8,
                      row_at(from, skipped, row_bytes), first + skipped < a.num_tokens);
      }
    commit_async_copies();
  }

  // Eight rows at the same piece, as ldmatrix reads them, cover all 32 banks.
  static __device__ __forceinline__ int swizzled(int row, int piece) {
    return piece ^ (row / (8 / kPieces) % kPieces);
  }

  // Rows behind the last repeat it: they are masked, or not written, later.
  template <int kRows>
  __device__ __forceinline__ void load_rows(uint4 (&to)[kRows][kBlocks], const uint16_t* from,
                                            int first, int rows) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = min(first + i * 8 + group, rows - 1);
      const uint16_t* mine = row_at(from + quad * 8, row, row_bytes);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b)
        to[i][b] = __ldg(reinterpret_cast<const uint4*>(mine + b * 32));
    }
  }

  __device__ __forceinline__ void load_queries() {
    uint4 rows[2][kBlocks];
    load_rows(rows, head_slice<uint16_t>(a.query, a.query_batch_stride, kWidth),
              blockIdx.x * kQueriesPerBlock, a.num_queries);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const uint32_t first[4] = {rows[0][b].x, rows[1][b].x, rows[0][b].y, rows[1][b].y};
      const uint32_t second[4] = {rows[0][b].z, rows[1][b].z, rows[0][b].w, rows[1][b].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        query[2 * b][i] = first[i];
        query[2 * b + 1][i] = second[i];
      }
    }
  }

  __device__ __forceinline__ void load_keys(int step) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk)
      load_rows(keys[chunk], key, first_key(step, chunk), a.num_tokens);
  }

  // Added to the scores of the lane's keys: their bias, or minus infinity behind the last.
  __device__ __forceinline__ void key_offsets(float (&offset)[2][2], int first,
                                              bool may_end) const {
    const int token = first + quad * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) offset[i / 2][i % 2] = 0.0f;
    if (a.key_bias) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int mine = min(token + i / 2 * 8 + i % 2, a.num_tokens - 1);
        offset[i / 2][i % 2] = __ldg(a.key_bias + mine) * kLog2E;
      }
    }
    if (may_end) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (token + i / 2 * 8 + i % 2 >= a.num_tokens) offset[i / 2][i % 2] = minus_infinity();
    }
  }

  __device__ __forceinline__ void score_chunk(int step, int chunk) {
    // The kernel for the fewest keys takes even fewer; others are launched with full chunks before.
    const bool may_end = kStages > 1 || chunk == kChunks - 1 || kWarps * kChunks == 2;
    float offset[2][2];
    key_offsets(offset, first_key(step, chunk), may_end);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      float (&s)[4] = score[chunk][n];
      s[0] = s[1] = s[2] = s[3] = 0.0f;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const uint4 k = keys[chunk][n][b];
        const uint32_t first[2] = {k.x, k.y}, second[2] = {k.z, k.w};
        mma_m16n8k16(s, query[2 * b], first);
        mma_m16n8k16(s, query[2 * b + 1], second);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) s[i] = s[i] * (a.scale * kLog2E) + offset[n][i % 2];
    }
  }

  __device__ __forceinline__ void score_step(int step) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) score_chunk(step, chunk);
  }

  // The new largest scores of the lane's two queries, shared by the four lanes that hold a row.
  __device__ __forceinline__ void find_largest(float (&now)[2]) const {
    now[0] = largest[0];
    now[1] = largest[1];
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) now[i / 2] = fmaxf(now[i / 2], score[chunk][n][i]);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      now[h] = fmaxf(now[h], __shfl_xor_sync(kAllLanes, now[h], 1));
      now[h] = fmaxf(now[h], __shfl_xor_sync(kAllLanes, now[h], 2));
    }
  }

  // Turns scores into weights and rescales what was summed before.
  __device__ __forceinline__ void weigh() {
    float now[2];
    find_largest(now);
    const float reference[2] = {finite_reference(now[0]), finite_reference(now[1])};
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          score[chunk][n][i] = fast_exp2(score[chunk][n][i] - reference[i / 2]);
    }
    if (kStages > 1)
      rescale(fast_exp2(largest[0] - reference[0]), fast_exp2(largest[1] - reference[1]));
    largest[0] = now[0];
    largest[1] = now[1];
  }

  __device__ __forceinline__ void add_chunk(const uint16_t* rows, const float (&s)[2][4]) {
    const uint32_t weights[4] = {pack_halves(s[0][0], s[0][1]), pack_halves(s[0][2], s[0][3]),
                                 pack_halves(s[1][0], s[1][1]), pack_halves(s[1][2], s[1][3])};
    const uint32_t ones[2] = {0x3c003c00u, 0x3c003c00u};
    mma_m16n8k16(weight, weights, ones);
    const int row = lane % 16;
#pragma unroll
    for (int n = 0; n < kWidth / 16; ++n) {  // 16 columns at a time
      uint32_t v[4];
      load_matrices_transposed(v, rows + row * kWidth + swizzled(row, 2 * n + lane / 16) * 8);
      mma_m16n8k16(sum[2 * n], weights, v);
      mma_m16n8k16(sum[2 * n + 1], weights, v + 2);
    }
  }

  __device__ __forceinline__ void add_step(int step) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) add_chunk(values(step, chunk), score[chunk]);
  }

  __device__ __forceinline__ void leave_partial() {
    Partial& to = region.partial;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n)
      to.sums[n][lane] = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
    to.largest_and_weights[lane] = make_float4(largest[0], largest[1], weight[0], weight[2]);
  }

  // The first warp's, whose region is the first.
  __device__ __forceinline__ void take_in_partials() {
    const Region* regions = &region;
    float4 other[kWarps];
    float now[2] = {largest[0], largest[1]};
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      other[w] = regions[w].partial.largest_and_weights[lane];
      now[0] = fmaxf(now[0], other[w].x);
      now[1] = fmaxf(now[1], other[w].y);
    }
    const float reference[2] = {finite_reference(now[0]), finite_reference(now[1])};
    rescale(fast_exp2(largest[0] - reference[0]), fast_exp2(largest[1] - reference[1]));
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const float first = fast_exp2(other[w].x - reference[0]);
      const float second = fast_exp2(other[w].y - reference[1]);
      weight[0] += first * other[w].z;
      weight[2] += second * other[w].w;
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        const float4 x = regions[w].partial.sums[n][lane];
        sum[n][0] += first * x.x;
        sum[n][1] += first * x.y;
        sum[n][2] += second * x.z;
        sum[n][3] += second * x.w;
      }
    }
  }

  // Brings what was summed so far to new largest scores, of queries `group` and `group` + 8.
  __device__ __forceinline__ void rescale(float first, float second) {
    const float factor[2] = {first, second};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weight[i] *= factor[i / 2];
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) sum[n][i] *= factor[i / 2];
    }
  }

  // Zeros where every key is masked.
  __device__ __forceinline__ void write_answer() {
    uint16_t* out = static_cast<uint16_t*>(a.out) + blockIdx.z * a.out_batch_stride +
                    blockIdx.y * kWidth + quad * 2;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = blockIdx.x * kQueriesPerBlock + group + 8 * h;
      if (row >= a.num_queries) break;
      const float total = weight[2 * h], inverse = 1.0f / total;
      uint32_t* mine = reinterpret_cast<uint32_t*>(row_at(out, row, row_bytes));
      if (total == 0.0f) {
#pragma unroll
        for (int n = 0; n < kWidth / 8; ++n) mine[n * 4] = 0u;
      } else {
#pragma unroll
        for (int n = 0; n < kWidth / 8; ++n)
          mine[n * 4] = pack_halves(sum[n][2 * h] * inverse, sum[n][2 * h + 1] * inverse);
      }
    }
  }
};

template <int kWidth, int kWarps, int kChunks, int kStages>
__global__ void __launch_bounds__(32 * kWarps, kResidentWarps / kWarps)
    attention_f16_kernel(AttentionArguments a) {
  CMLR_SHARED_MEMORY(shared);
  using Warp = F16Warp<kWidth, kWarps, kChunks, kStages>;
  Warp warp(a, shared);
  warp.copy_values(0);
  warp.load_queries();
  warp.load_keys(0);

  constexpr int kStepKeys = kWarps * kChunks * Warp::kKeys;
  const int steps = kStages == 1 ? 1 : (a.num_tokens + kStepKeys - 1) / kStepKeys;
  for (int step = 0; step < steps; ++step) {
    if (kStages > 1) warp.copy_values(step + 1);
    warp.score_step(step);
    if (kStages > 1) warp.load_keys(step + 1);
    warp.weigh();
    wait_async_copies<kStages - 1>();
    __syncwarp();
    warp.add_step(step);
    __syncwarp();  // before the values are written again: by the next copy, or the partial answer
  }
  if (kWarps > 1) {
    wait_async_copies<0>();  // zeros behind the last step, on their way to where partials go
    __syncwarp();
    if (warp.warp > 0) warp.leave_partial();
    __syncthreads();
    if (warp.warp > 0) return;
    warp.take_in_partials();
  }
  warp.write_answer();
}

}  // namespace cmlr::cuda
