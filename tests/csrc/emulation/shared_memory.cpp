#include "emulation/shared_memory.h"

#include <cstdlib>
#include <cstring>

#include "emulation/machine.h"

extern "C" {
#ifdef EMULATION_ASAN
void __asan_poison_memory_region(const volatile void* begin, size_t bytes);
void __asan_unpoison_memory_region(const volatile void* begin, size_t bytes);
#else
static void __asan_poison_memory_region(const volatile void*, size_t) {}
static void __asan_unpoison_memory_region(const volatile void*, size_t) {}
#endif
}

namespace emulation {
namespace {

constexpr size_t kAlignment = 128, kGuardBytes = 128;
constexpr unsigned char kGuard = 0xa5;

}  // namespace

void SharedMemory::Free::operator()(unsigned char* memory) const {
  __asan_unpoison_memory_region(memory + guard_begin, kGuardBytes);
  std::free(memory);
}

void SharedMemory::renew() {
#ifdef EMULATION_TSAN
  if (memory_) used_.push_back(std::move(memory_));
#endif
  if (!memory_) {
    const size_t rounded = (bytes_ + kGuardBytes + kAlignment - 1) / kAlignment * kAlignment;
    memory_ = std::unique_ptr<unsigned char, Free>(
        static_cast<unsigned char*>(std::aligned_alloc(kAlignment, rounded)), Free{bytes_});
    if (!memory_) fail("no memory for %zu bytes of shared memory", bytes_);
    std::memset(begin() + bytes_, kGuard, kGuardBytes);
    __asan_poison_memory_region(begin() + bytes_, kGuardBytes);
  }
  std::memset(begin(), 0xff, bytes_);  // NaN as float, as half and as double
}

void SharedMemory::check_guard() const {
  __asan_unpoison_memory_region(memory_.get() + bytes_, kGuardBytes);
  for (size_t i = 0; i < kGuardBytes; ++i)
    if (memory_.get()[bytes_ + i] != kGuard)
      fail("a block wrote %zu bytes behind its %zu bytes of shared memory", i, bytes_);
  __asan_poison_memory_region(memory_.get() + bytes_, kGuardBytes);
}

}  // namespace emulation
