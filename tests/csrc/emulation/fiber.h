// A stack of its own and a switch to it, known to AddressSanitizer and ThreadSanitizer.
// Define EMULATION_ASAN or EMULATION_TSAN when linking with that sanitizer; this file and
// machine.cpp themselves are compiled without.
#pragma once

#include <cstddef>

namespace emulation {

class Fiber {
 public:
  explicit Fiber(bool is_main);  // the main fiber uses the thread's own stack
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch to this fiber calls `entry`, which never returns.
  void restart(void (*entry)());
  // Leaves this fiber for `to`; returns when something switches back.
  void switch_to(Fiber& to, bool never_returns);
  // First thing in `entry`: ends the switch that came here.
  void arrived();

 private:
  static constexpr size_t kStackBytes = 128 * 1024;
  char* stack_ = nullptr;
  void* stack_pointer_ = nullptr;
  const void* stack_bottom_ = nullptr;
  size_t stack_size_ = 0;
  void* asan_fake_stack_ = nullptr;
  void* tsan_fiber_ = nullptr;
};

}  // namespace emulation
