// Emulated bodies of the PTX instructions that cuda/device.h wraps.
#pragma once

#include "emulation/cuda_names.h"
#include "emulation/half.h"

namespace emulation {

// Replaces every lane's fragments of A, B and C by its fragment of A B + C.
void multiply_fragments(Deposit* lanes);

// mma.sync.m16n8k16 of halves, accumulated in float.
inline void mma_m16n8k16(float c[4], const uint32_t a[4], const uint32_t b[2], EMULATION_SITE) {
  Deposit mine;
  const auto pair = [](uint64_t low, uint64_t high) { return low | high << 32; };
  mine.word[0] = pair(a[0], a[1]);
  mine.word[1] = pair(a[2], a[3]);
  mine.word[2] = pair(b[0], b[1]);
  std::memcpy(&mine.word[3], c, 4 * sizeof(float));
  const Deposit* all = meet(0xffffffffu, mine, multiply_fragments, {"mma.m16n8k16", file, line});
  std::memcpy(c, &all[current->lane].word[3], 4 * sizeof(float));
}

// ldmatrix.x4: lane 8 m + i names row i of matrix m; every row is eight halves.
template <bool kTransposed>
inline void load_matrices(uint32_t out[4], const void* row, EMULATION_SITE) {
  const auto address = reinterpret_cast<uintptr_t>(row);
  if (address % 16) fail("%s:%d: ldmatrix row address is not 16-byte aligned", file, line);
  const Deposit* all = meet(0xffffffffu, {{address}}, nullptr,
                            {kTransposed ? "ldmatrix.trans" : "ldmatrix", file, line});
  const unsigned group = current->lane / 4, pair = current->lane % 4 * 2;
  for (unsigned m = 0; m < 4; ++m) {
    const auto half = [&](unsigned r, unsigned column) -> uint32_t {
      return reinterpret_cast<const uint16_t*>(all[8 * m + r].word[0])[column];
    };
    out[m] = kTransposed ? half(pair, group) | half(pair + 1, group) << 16
                         : half(group, pair) | half(group, pair + 1) << 16;
  }
}

inline void land(const AsyncCopy& copy) {
  const auto* from = static_cast<const uint4*>(copy.from);
  *static_cast<uint4*>(copy.to) = from ? *from : uint4{0, 0, 0, 0};
}
inline void land_early_copies() {
  AsyncCopy copy;
  while (pick_early_copy(&copy)) land(copy);
}

// The destination is NaN until the copy lands, which is anywhere between here and the wait.
inline void copy_async_16(void* to, const void* from, bool valid, EMULATION_SITE) {
  const auto misaligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 != 0; };
  if (misaligned(to) || (valid && misaligned(from)))
    fail("%s:%d: cp.async address is not 16-byte aligned", file, line);
  *static_cast<uint4*>(to) = {~0u, ~0u, ~0u, ~0u};
  push_async_copy({to, valid ? from : nullptr});
  land_early_copies();
}

template <unsigned kGroupsInFlight>
inline void wait_async_copies() {
  AsyncCopy copy;
  bool has_landed = false;
  while (pop_async_copy(kGroupsInFlight, &copy, &has_landed))
    if (!has_landed) land(copy);
  land_early_copies();
}

}  // namespace emulation
