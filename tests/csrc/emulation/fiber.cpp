#include "emulation/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
#ifdef EMULATION_TSAN
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
#endif
#ifdef EMULATION_ASAN
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** from_bottom, size_t* from_size);
#endif
// Pushes the callee-saved registers, stores the stack pointer in *save, and pops those at `load`.
void emulation_switch_stack(void** save, void* load);
}

#if defined(__x86_64__)
asm(R"(
  .text
  .globl emulation_switch_stack
  .type emulation_switch_stack,@function
emulation_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulation_switch_stack,.-emulation_switch_stack
)");
#elif defined(__aarch64__)
asm(R"(
  .text
  .globl emulation_switch_stack
  .type emulation_switch_stack,%function
emulation_switch_stack:
  sub sp,sp,#160
  stp x19,x20,[sp,#0]
  stp x21,x22,[sp,#16]
  stp x23,x24,[sp,#32]
  stp x25,x26,[sp,#48]
  stp x27,x28,[sp,#64]
  stp x29,x30,[sp,#80]
  stp d8,d9,[sp,#96]
  stp d10,d11,[sp,#112]
  stp d12,d13,[sp,#128]
  stp d14,d15,[sp,#144]
  mov x9,sp
  str x9,[x0]
  mov sp,x1
  ldp x19,x20,[sp,#0]
  ldp x21,x22,[sp,#16]
  ldp x23,x24,[sp,#32]
  ldp x25,x26,[sp,#48]
  ldp x27,x28,[sp,#64]
  ldp x29,x30,[sp,#80]
  ldp d8,d9,[sp,#96]
  ldp d10,d11,[sp,#112]
  ldp d12,d13,[sp,#128]
  ldp d14,d15,[sp,#144]
  add sp,sp,#160
  ret
)");
#else
#error "the emulation needs a context switch for this processor: add one above"
#endif

namespace emulation {
namespace {

constexpr size_t kGuardBytes = 4096;

// Fresh pages: a sanitizer forgets what the last CUDA thread did on them.
void map_stack(char* at, size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  if (mmap(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) {
    std::perror("emulation: mapping a stack");
    std::abort();
  }
}

}  // namespace

Fiber::Fiber(bool is_main) {
#ifdef EMULATION_TSAN
  if (is_main) tsan_fiber_ = __tsan_get_current_fiber();
#endif
  if (is_main) {
    pthread_attr_t attributes;
    pthread_getattr_np(pthread_self(), &attributes);
    void* bottom = nullptr;
    pthread_attr_getstack(&attributes, &bottom, &stack_size_);
    pthread_attr_destroy(&attributes);
    stack_bottom_ = bottom;
    return;
  }
  stack_ = static_cast<char*>(
      mmap(nullptr, kStackBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (stack_ == MAP_FAILED) {
    std::perror("emulation: reserving a stack");
    std::abort();
  }
  map_stack(stack_ + kGuardBytes, kStackBytes - kGuardBytes);
  stack_bottom_ = stack_;
  stack_size_ = kStackBytes;
}

Fiber::~Fiber() {
  if (stack_) munmap(stack_, kStackBytes);
}

void Fiber::restart(void (*entry)()) {
#ifdef EMULATION_TSAN
  map_stack(stack_ + kGuardBytes, kStackBytes - kGuardBytes);
  if (tsan_fiber_) __tsan_destroy_fiber(tsan_fiber_);
  tsan_fiber_ = __tsan_create_fiber(0);  // a clock of its own in every block
#endif
  asan_fake_stack_ = nullptr;
  auto* top = reinterpret_cast<void**>(stack_ + kStackBytes);
#if defined(__x86_64__)
  *--top = nullptr;  // where `entry` would return to
  *--top = reinterpret_cast<void*>(entry);
  top -= 6;
  std::memset(top, 0, 6 * sizeof *top);
#else
  top -= 20;
  std::memset(top, 0, 20 * sizeof *top);
  top[11] = reinterpret_cast<void*>(entry);  // the link register
#endif
  stack_pointer_ = top;
}

// Flag 1: the switch itself orders nothing, or no race between CUDA threads would ever be seen.
void Fiber::switch_to(Fiber& to, [[maybe_unused]] bool never_returns) {
#ifdef EMULATION_TSAN
  __tsan_switch_to_fiber(to.tsan_fiber_, 1);
#endif
#ifdef EMULATION_ASAN
  __sanitizer_start_switch_fiber(never_returns ? nullptr : &asan_fake_stack_, to.stack_bottom_,
                                 to.stack_size_);
#endif
  emulation_switch_stack(&stack_pointer_, to.stack_pointer_);
  arrived();
}

void Fiber::arrived() {
#ifdef EMULATION_ASAN
  __sanitizer_finish_switch_fiber(asan_fake_stack_, nullptr, nullptr);
#endif
}

}  // namespace emulation
