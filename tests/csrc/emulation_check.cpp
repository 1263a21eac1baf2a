// Small kernels that are right, or wrong in one known way: what the emulation must say of each.
//
//   emulation_check NAME
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "cuda/device.h"

namespace {

using namespace cmlr::cuda;

struct Nothing {};
struct Output {
  float* out;
};
constexpr int kThreads = 64;

template <class Parameters>
void launch(void (*kernel)(Parameters), Parameters p, unsigned blocks = 1, unsigned threads = 64,
            size_t shared_bytes = 256) {
  CMLR_LAUNCH(kernel, dim3(blocks), dim3(threads), shared_bytes, nullptr, p);
}

// --- The fragment layout, stated independently: CUTLASS, mma_traits_sm80.hpp, as strides over
// (thread, value) into the column-major index of A (16 x 16), B (8 x 16) and C (16 x 8).
int a_index(int t0, int t1, int reg, int half) {
  return t0 * 32 + t1 + half * 16 + reg % 2 * 8 + reg / 2 * 128;
}
int b_index(int t0, int t1, int reg, int half) { return t0 * 16 + t1 + half * 8 + reg * 64; }
int c_index(int t0, int t1, int reg) { return t0 * 32 + t1 + reg % 2 * 16 + reg / 2 * 8; }

struct Matrices {
  float a[256], b[128], c[128], product[128];
};

void mma_kernel(Matrices* m) {
  const int t0 = threadIdx.x % 4, t1 = threadIdx.x / 4;
  uint32_t a[4], b[2];
  float c[4];
  for (int r = 0; r < 4; ++r)
    a[r] = pack_halves(m->a[a_index(t0, t1, r, 0)], m->a[a_index(t0, t1, r, 1)]);
  for (int r = 0; r < 2; ++r)
    b[r] = pack_halves(m->b[b_index(t0, t1, r, 0)], m->b[b_index(t0, t1, r, 1)]);
  for (int r = 0; r < 4; ++r) c[r] = m->c[c_index(t0, t1, r)];
  mma_m16n8k16(c, a, b);
  for (int r = 0; r < 4; ++r) m->product[c_index(t0, t1, r)] = c[r];
}

int check_mma() {
  std::mt19937 random(3);
  std::uniform_int_distribution<int> digit(-8, 8);  // so that every sum is exact
  Matrices m;
  for (float& x : m.a) x = static_cast<float>(digit(random));
  for (float& x : m.b) x = static_cast<float>(digit(random));
  for (float& x : m.c) x = static_cast<float>(digit(random));
  launch(mma_kernel, &m, 1, 32);
  int wrong = 0;
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      float expected = m.c[column * 16 + row];
      for (int k = 0; k < 16; ++k) expected += m.a[k * 16 + row] * m.b[k * 8 + column];
      wrong += m.product[column * 16 + row] != expected;
    }
  return wrong;
}

// Rows of halves numbered 0.. in shared memory: lane (g, q) of ldmatrix.trans must get column g of
// rows 2 q and 2 q + 1, which is the B fragment of those rows.
void ldmatrix_kernel(Output p) {
  CMLR_SHARED_MEMORY(shared);
  auto* rows = reinterpret_cast<uint16_t*>(shared);  // 32 rows of 8
  for (int i = 0; i < 8; ++i)
    rows[threadIdx.x * 8 + i] = emulation::half_from_float(float(threadIdx.x * 8 + i));
  __syncwarp();
  uint32_t out[4];
  load_matrices_transposed(out, rows + threadIdx.x * 8);
  for (int m = 0; m < 4; ++m) {
    p.out[threadIdx.x * 8 + 2 * m] = emulation::float_from_half(static_cast<uint16_t>(out[m]));
    p.out[threadIdx.x * 8 + 2 * m + 1] =
        emulation::float_from_half(static_cast<uint16_t>(out[m] >> 16));
  }
}

int check_ldmatrix() {
  float out[32 * 8];
  launch(ldmatrix_kernel, Output{out}, 1, 32, 512);
  int wrong = 0;
  for (int lane = 0; lane < 32; ++lane)
    for (int m = 0; m < 4; ++m)
      for (int half = 0; half < 2; ++half) {
        const int row = 8 * m + lane % 4 * 2 + half, column = lane / 4;
        wrong += out[lane * 8 + 2 * m + half] != float(row * 8 + column);
      }
  return wrong;
}

// The compiler's own half type converts in hardware or in libgcc.
#if defined(__aarch64__)
using CompilerHalf = __fp16;  // GCC 12 has no _Float16 in C++ there
#else
using CompilerHalf = _Float16;
#endif

int check_half() {
  int wrong = 0;
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float ours = emulation::float_from_half(bits);
    const auto theirs = static_cast<float>(emulation::bits_as<CompilerHalf>(bits));
    wrong += std::isnan(theirs) ? !std::isnan(ours) : ours != theirs;
  }
  for (uint64_t i = 0; i < 1ull << 32; i += 977) {
    const float x = emulation::bits_as<float>(static_cast<uint32_t>(i));
    if (std::isnan(x)) continue;
    wrong +=
        emulation::half_from_float(x) != emulation::bits_as<uint16_t>(static_cast<CompilerHalf>(x));
  }
  return wrong;
}

void read_shared_kernel(Output p) {
  CMLR_SHARED_MEMORY(shared);
  p.out[threadIdx.x] = reinterpret_cast<float*>(shared)[threadIdx.x];
}

int check_shared_memory_is_nan() {
  float out[kThreads] = {};
  launch(read_shared_kernel, Output{out});
  int wrong = 0;
  for (float x : out) wrong += !std::isnan(x);
  return wrong;
}

// A copy is there after the wait for its group, and not before.
void copy_kernel(Output p) {
  CMLR_SHARED_MEMORY(shared);
  alignas(16) static const float source[2][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  auto* to = reinterpret_cast<float*>(shared);
  for (int i = 0; i < 2; ++i) {
    copy_async_16(to + 4 * i, source[i], true);
    commit_async_copies();
  }
  p.out[0] = to[0];
  wait_async_copies<1>();
  p.out[1] = to[0];
  p.out[2] = to[4];
  wait_async_copies<0>();
  p.out[3] = to[4];
}

int check_copy() {
  float out[4];
  launch(copy_kernel, Output{out}, 1, 1);
  return !(std::isnan(out[0]) && out[1] == 1.0f && std::isnan(out[2]) && out[3] == 5.0f);
}

// Where copies land at once, they are there without a wait; at random, some are.
int check_copy_at_once() {
  float out[4];
  emulation::options.copies = emulation::Landing::kAtOnce;
  launch(copy_kernel, Output{out}, 1, 1);
  return !(out[0] == 1.0f && out[1] == 1.0f && out[2] == 5.0f && out[3] == 5.0f);
}
int check_copy_at_random() {
  int early = 0, wrong = 0;
  emulation::options.copies = emulation::Landing::kRandom;
  for (emulation::options.seed = 1; emulation::options.seed <= 64; ++emulation::options.seed) {
    float out[4];
    launch(copy_kernel, Output{out}, 1, 1);
    early += out[0] == 1.0f;
    wrong += !(out[1] == 1.0f && out[3] == 5.0f && (std::isnan(out[0]) || out[0] == 1.0f));
  }
  return wrong || early == 0 || early == 64;
}

// --- Mistakes; each aborts with a message.
void divergent_barrier(Nothing) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
void missing_barrier_partner(Nothing) {
  if (threadIdx.x > 0) __syncthreads();
}
void divergent_collective(Nothing) {
  if (threadIdx.x % 2)
    __syncwarp();
  else
    __shfl_xor_sync(kAllLanes, 1.0f, 2);
}
void exited_lane(Nothing) {
  if (threadIdx.x % 32 == 3) return;
  __syncwarp();
}
void unfinished_copy(Nothing) {
  CMLR_SHARED_MEMORY(shared);
  copy_async_16(shared, nullptr, false);
}
void misaligned_matrix(Nothing) {
  CMLR_SHARED_MEMORY(shared);
  uint32_t out[4];
  load_matrices_transposed(out, shared + 8);
}
void past_the_end(Nothing) {
  CMLR_SHARED_MEMORY(shared);
  shared[256 + threadIdx.x] = 0;
}

// --- Races, for ThreadSanitizer.
void neighbours(Output p, bool synchronised) {
  CMLR_SHARED_MEMORY(shared);
  auto* values = reinterpret_cast<float*>(shared);
  values[threadIdx.x] = 1.0f;
  if (synchronised)
    __syncwarp();
  else
    __shfl_xor_sync(kAllLanes, 1.0f, 1);  // makes lanes meet, but orders no memory
  p.out[blockIdx.x * kThreads + threadIdx.x] = values[threadIdx.x ^ 1];
}
void racing_lanes(Output p) { neighbours(p, false); }
void ordered_lanes(Output p) { neighbours(p, true); }
// A lane that left a barrier early must not write what others, still behind it, will read.
void next_round(Output p, void (*synchronise)()) {
  CMLR_SHARED_MEMORY(shared);
  auto* values = reinterpret_cast<float*>(shared);
  values[threadIdx.x] = 1.0f;
  synchronise();
  p.out[threadIdx.x] = values[threadIdx.x ^ 1];
  values[threadIdx.x] = 2.0f;
  synchronise();
}
void racing_rounds_of_a_warp(Output p) {
  next_round(p, [] { __syncwarp(); });
}
void racing_rounds_of_a_block(Output p) {
  next_round(p, [] { __syncthreads(); });
}
void racing_blocks(Output p) { p.out[0] = static_cast<float>(threadIdx.x); }
void ordered_threads(Output p) {
  CMLR_SHARED_MEMORY(shared);
  auto* values = reinterpret_cast<float*>(shared);
  values[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) p.out[blockIdx.x] = values[0] + values[kThreads - 1];
}

int run_check(const std::string& name) {
  float out[4 * kThreads] = {};
  const auto is = [&](const char* other) { return name == other; };
  if (is("mma")) return check_mma();
  if (is("ldmatrix")) return check_ldmatrix();
  if (is("half")) return check_half();
  if (is("shared_memory_is_nan")) return check_shared_memory_is_nan();
  if (is("copy")) return check_copy();
  if (is("copy_at_once")) return check_copy_at_once();
  if (is("copy_at_random")) return check_copy_at_random();
  if (is("another_stream")) {
    emulation::options.stream = out;
    launch(past_the_end, {});
  }
  if (is("divergent_barrier")) launch(divergent_barrier, {});
  if (is("missing_barrier_partner")) launch(missing_barrier_partner, {});
  if (is("divergent_collective")) launch(divergent_collective, {});
  if (is("exited_lane")) launch(exited_lane, {});
  if (is("unfinished_copy")) launch(unfinished_copy, {});
  if (is("misaligned_matrix")) launch(misaligned_matrix, {});
  if (is("past_the_end")) launch(past_the_end, {});
  if (is("racing_lanes")) launch(racing_lanes, {out}, 4);
  if (is("ordered_lanes")) launch(ordered_lanes, {out}, 4);
  if (is("racing_rounds_of_a_warp")) launch(racing_rounds_of_a_warp, {out});
  if (is("racing_rounds_of_a_block")) launch(racing_rounds_of_a_block, {out});
  if (is("racing_blocks")) launch(racing_blocks, {out}, 2, 1);
  if (is("ordered_threads")) launch(ordered_threads, {out}, 4);
  if (is("ordered_launches")) {
    launch(racing_blocks, {out}, 1, 1);
    launch(racing_blocks, {out}, 1, 1);
  }
  return 0;
}

}  // namespace

int main(int, char** arguments) {
  const int wrong = run_check(arguments[1]);
  if (wrong) std::printf("%s: %d wrong\n", arguments[1], wrong);
  return wrong != 0;
}
