// Argument checks that every implementation of CmlrAttention makes.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace cmlr {

inline void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument("CmlrAttention: " + message);
}

inline void require_stride(int64_t stride, int64_t item, const char* name) {
  require(stride == 0 || stride == item, std::string(name) + " batch stride is " +
                                             std::to_string(stride) + ", expected 0 or " +
                                             std::to_string(item));
}

// Params: cmlr::AttentionParams or cmlr::cuda::AttentionParams.
template <class Params>
void require_valid(const Params& p) {
  require(p.batch > 0 && p.num_queries > 0 && p.num_tokens > 0 && p.dim > 0,
          "batch " + std::to_string(p.batch) + ", queries " + std::to_string(p.num_queries) +
              ", tokens " + std::to_string(p.num_tokens) + " and dim " + std::to_string(p.dim) +
              " must all be positive");
  require(p.num_heads > 0 && p.dim % p.num_heads == 0,
          std::to_string(p.num_heads) + " heads do not divide dim " + std::to_string(p.dim));
  require(p.query && p.key && p.value && p.out, "query, key, value and out must not be null");
  require_stride(p.query_batch_stride, p.num_queries * p.dim, "query");
  require_stride(p.key_batch_stride, p.num_tokens * p.dim, "key");
  require_stride(p.value_batch_stride, p.num_tokens * p.dim, "value");
}

}  // namespace cmlr
