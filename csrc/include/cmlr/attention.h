// The operator CmlrAttention: multi-head attention without its projections.
//
//   score[t]     = scale * (query[n, l, h] . key[n, t, h]) + key_bias[t]
//   out[n, l, h] = sum_t softmax(score)[t] * value[n, t, h]
//
// for every head h, a slice of head_width = dim / num_heads columns. This header is the contract
// that every implementation keeps: the CPU reference here, and kernels and adapters elsewhere.
#pragma once

#include <cstdint>

namespace cmlr {

// How the operator is called in a graph; cmlr_edge and export use the same names.
constexpr const char* kAttentionName = "CmlrAttention";
constexpr const char* kAttentionDomain = "cmlr";
constexpr const char* kAttentionVersion = "1";

// Row-major float32 tensors owned by the caller, which must not overlap `out`. Sizes and strides
// count elements, never bytes. A batch stride of 0 serves one item to the whole batch: constant
// queries, or constant confounder keys and values.
struct AttentionParams {
  const float* query;     // (batch | 1, num_queries, dim)
  const float* key;       // (batch | 1, num_tokens, dim)
  const float* value;     // (batch | 1, num_tokens, dim)
  const float* key_bias;  // (num_tokens), added to every scaled score; may be null
  float* out;             // (batch, num_queries, dim)
  int64_t batch, num_queries, num_tokens, dim;
  int64_t num_heads;  // divides dim
  float scale;
  int64_t query_batch_stride, key_batch_stride, value_batch_stride;  // 0, or rows * dim
};

// Runs the CPU reference in the calling thread.
//
// Finite inputs give finite outputs however large the scores and values, as long as no dot product
// and no score overflows float (3.4e38); the dot product is taken before `scale`. A key whose bias
// is -infinity gets weight 0; where every key has it, there is no distribution to speak of and the
// output row is zero. A NaN or +infinity in a score makes its output row NaN, a NaN in the value of
// any key too: a mask hides a key's weight, not its memory.
//
// Throws std::invalid_argument if a size is not positive, num_heads does not divide dim, or a
// required pointer is null; the message says which.
void attention(const AttentionParams& params);

}  // namespace cmlr
