// What translated PTX runs on: bit-exact integer helpers, checked memory, and a registry by which
// a launch finds the translation of the kernel it names.
#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "emulation/tensor_core.h"

namespace emulation::ptx {

struct Kernel {
  std::string name;  // mangled, as in the PTX
  void (*body)();
  size_t parameter_bytes;
  unsigned max_threads;
  uint64_t* executed;                // by basic block, once for every CUDA thread
  std::vector<std::string> opcodes;  // by basic block, separated by spaces
  std::vector<std::string> sites;    // of memory accesses and collectives
};
bool register_kernels(std::vector<const Kernel*> kernels);  // always true

extern const unsigned char* parameters;  // of the running kernel

// For bank conflicts; ignored unless instructions are counted.
void record_access(int site, uint32_t address, size_t bytes);

// A register's bits as an instruction's type: the same size, or an integer narrowed or widened.
template <class To, class From>
To as(From from) {
  if constexpr (std::is_integral_v<To> && std::is_integral_v<From>)
    return static_cast<To>(from);
  else
    return bits_as<To>(from);
}

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T x[kCount];
};

template <class T, int kCount>
Vector<T, kCount> parameter(int offset) {
  Vector<T, kCount> value;
  std::memcpy(&value, parameters + offset, sizeof value);
  return value;
}

template <class T, int kCount>
Vector<T, kCount>* shared_memory(uint32_t address, int site) {
  constexpr size_t kBytes = sizeof(T) * kCount;
  if (address % kBytes != 0 || address + kBytes > current->shared_bytes)
    fail("access %d to %zu bytes at %#x: misaligned, or outside the %zu bytes of shared memory",
         site, kBytes, address, current->shared_bytes);
  record_access(site, address, kBytes);
  return reinterpret_cast<Vector<T, kCount>*>(current->shared + address);
}

template <class T, int kCount>
Vector<T, kCount>* global_memory(uint64_t address, int site) {
  if (address % (sizeof(T) * kCount) != 0) fail("access %d: misaligned global address", site);
  return reinterpret_cast<Vector<T, kCount>*>(address);
}

template <class T>
T shift_left(T value, uint32_t count) {
  return count >= 8 * sizeof(T) ? T(0) : static_cast<T>(value << count);
}

template <class T>
T shift_right(T value, uint32_t count) {
  if (count >= 8 * sizeof(T)) return value < T(0) ? static_cast<T>(-1) : T(0);
  return static_cast<T>(value >> count);
}

inline uint32_t insert_bits(uint32_t bits, uint32_t into, uint32_t position, uint32_t length) {
  const uint64_t ones = (uint64_t{1} << std::min(length & 255u, 32u)) - 1;
  const uint32_t mask = static_cast<uint32_t>(shift_left(ones, position & 255u));
  return (into & ~mask) | (shift_left(bits, position & 255u) & mask);
}

inline float shuffle_xor(uint32_t mask, float value, int distance, int clamp, const char* file,
                         int line) {
  if (clamp != 31) fail("%s:%d: shfl within segments of a warp is not known", file, line);
  return __shfl_xor_sync(mask, value, distance, file, line);
}

template <class T>
T reciprocal(T x) {
  return T(1) / x;
}

// The source size of a 16-byte cp.async, which the kernels use as a condition.
inline bool all_or_none(uint32_t bytes) {
  if (bytes != 0 && bytes != 16) fail("cp.async of %u bytes, expected 0 or 16", bytes);
  return bytes != 0;
}

}  // namespace emulation::ptx
