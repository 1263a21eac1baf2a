// The reference: written to be read, and compared with by everything faster.
#include "cpu/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace cmlr::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// One query's slice of one head, and the slices of the keys and values it meets.
struct HeadView {
  const float* query;
  const float* key;    // first token; the next one is `row` further
  const float* value;  // likewise
  float* out;
  int64_t width, row;
};

// Scores of all tokens; returns the largest, or NaN if any is NaN, so that it is not taken for a
// mask.
float score_tokens(const HeadView& head, const AttentionParams& p, std::vector<float>& scores) {
  float largest = kMinusInfinity;
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    const float* key = head.key + t * head.row;
    float dot = 0.0f;
    for (int64_t i = 0; i < head.width; ++i) dot += head.query[i] * key[i];
    scores[t] = p.scale * dot + (p.key_bias ? p.key_bias[t] : 0.0f);
    if (std::isnan(scores[t])) return scores[t];
    largest = std::max(largest, scores[t]);
  }
  return largest;
}

void attend(const HeadView& head, const AttentionParams& p, std::vector<float>& scores) {
  std::fill(head.out, head.out + head.width, 0.0f);
  const float largest = score_tokens(head, p, scores);
  if (largest == kMinusInfinity) return;  // every key is masked
  float sum = 0.0f;
  for (float& score : scores) {
    // Minus the largest: no exponent is above 0, so nothing overflows and the sum is at least 1.
    score = std::exp(score - largest);
    sum += score;
  }
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    // Divided first: a mean of values cannot overflow where their weighted sum would.
    const float weight = scores[t] / sum;
    const float* value = head.value + t * head.row;
    for (int64_t i = 0; i < head.width; ++i) head.out[i] += weight * value[i];
  }
}

}  // namespace

void attention(const AttentionParams& p) {
  const int64_t width = p.dim / p.num_heads;
  std::vector<float> scores(p.num_tokens);
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t l = 0; l < p.num_queries; ++l) {
      for (int64_t h = 0; h < p.num_heads; ++h) {
        const int64_t column = h * width;
        attend(
            {p.query + n * p.query_batch_stride + l * p.dim + column,
             p.key + n * p.key_batch_stride + column, p.value + n * p.value_batch_stride + column,
             p.out + (n * p.num_queries + l) * p.dim + column, width, p.dim},
            p, scores);
      }
    }
  }
}

}  // namespace cmlr::cpu
