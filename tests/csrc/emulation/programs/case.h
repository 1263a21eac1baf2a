// A case of CmlrAttention, as emulated_gpu.py writes it to a program's standard input.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

struct Case {
  int64_t is_half, batch, num_queries, num_tokens, dim, num_heads;
  int64_t query_batch, key_batch, value_batch;  // 1, or batch
  int64_t has_bias;
  double scale;
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<void, Free>;

inline Buffer allocate(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, bytes) != 0) std::abort();
  std::memset(memory, 0xff, bytes);
  return Buffer(memory);
}

inline Buffer read_buffer(size_t bytes) {
  Buffer buffer = allocate(bytes);
  if (std::fread(buffer.get(), 1, bytes, stdin) != bytes) {
    std::fprintf(stderr, "the input ends early\n");
    std::exit(2);
  }
  return buffer;
}
