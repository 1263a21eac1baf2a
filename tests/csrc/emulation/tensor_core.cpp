// The tensor core's arithmetic. Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16".
// Compiled without sanitizers: the deposits belong to the machine, not to a CUDA thread.
#include "emulation/tensor_core.h"

namespace emulation {
namespace {

// A[row][k] is in lane (row % 8) * 4 + k % 8 / 2, register row / 8 + 2 * (k / 8), half k % 2.
void read_a(const Deposit* lanes, float a[16][16]) {
  for (int lane = 0; lane < 32; ++lane)
    for (int reg = 0; reg < 4; ++reg)
      for (int half = 0; half < 2; ++half) {
        const uint64_t bits = lanes[lane].word[reg / 2] >> (32 * (reg % 2) + 16 * half);
        const int row = lane / 4 + 8 * (reg % 2), k = lane % 4 * 2 + half + 8 * (reg / 2);
        a[row][k] = float_from_half(static_cast<uint16_t>(bits));
      }
}

// B[k][column] is in lane column * 4 + k % 8 / 2, register k / 8, half k % 2.
void read_b(const Deposit* lanes, float b[16][8]) {
  for (int lane = 0; lane < 32; ++lane)
    for (int reg = 0; reg < 2; ++reg)
      for (int half = 0; half < 2; ++half) {
        const uint64_t bits = lanes[lane].word[2] >> (32 * reg + 16 * half);
        b[lane % 4 * 2 + half + 8 * reg][lane / 4] = float_from_half(static_cast<uint16_t>(bits));
      }
}

}  // namespace

// C[row][column] is in lane (row % 8) * 4 + column / 2, register 2 * (row / 8) + column % 2.
void multiply_fragments(Deposit* lanes) {
  float a[16][16], b[16][8];
  read_a(lanes, a);
  read_b(lanes, b);
  for (int row = 0; row < 16; ++row) {
    float sum[8];
    for (int pair = 0; pair < 4; ++pair)
      std::memcpy(&sum[2 * pair], &lanes[row % 8 * 4 + pair].word[3 + row / 8], sizeof(float2));
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) sum[column] += a[row][k] * b[k][column];
    for (int pair = 0; pair < 4; ++pair)
      std::memcpy(&lanes[row % 8 * 4 + pair].word[3 + row / 8], &sum[2 * pair], sizeof(float2));
  }
}

}  // namespace emulation
