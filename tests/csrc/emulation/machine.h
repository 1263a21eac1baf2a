// The emulated GPU as device code sees it. Every CUDA thread is a fiber; a fiber runs until it
// waits for others, so the schedule alone decides who sees what, and a missing barrier shows.
//
// Shared memory starts as NaN in every block. A cp.async may write its destination at any moment
// between its issue and the wait for it: as late as that, at once, or at random.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "emulation/options.h"
#include "emulation/types.h"

namespace emulation {

struct Thread {
  uint3 index, block;
  dim3 block_size, grid_size;
  unsigned lane, warp;
  unsigned char* shared;  // the block's dynamic shared memory
  size_t shared_bytes;
};
extern Thread* current;  // the running CUDA thread

struct Site {  // a collective operation and where the kernel calls it
  const char *what, *file;
  int line;
};

struct Deposit {  // what a lane brings to a collective, and what it may read of the others
  uint64_t word[5];
};

// Waits until all lanes of `mask` have come to the same site, then returns the deposits of the 32
// lanes. `complete`, if any, is run once on them before anyone reads. Orders no memory accesses.
const Deposit* meet(unsigned mask, const Deposit& mine, void (*complete)(Deposit*), Site site);
void sync_warp(unsigned mask, Site site);
// `count` 0: all threads of the block.
void sync_block(unsigned barrier, unsigned count, Site site);

// The running thread's asynchronous copies of 16 bytes; `from` null: zeros.
struct AsyncCopy {
  void* to;
  const void* from;
};
void push_async_copy(AsyncCopy copy);
void commit_async_copies();
// Takes the oldest copy that is in none of the newest `groups_in_flight` groups; false: none left.
// It may have landed before.
bool pop_async_copy(unsigned groups_in_flight, AsyncCopy* copy, bool* has_landed);
// Marks a copy that is still on its way and lands now, before it must; false: none does.
bool pick_early_copy(AsyncCopy* copy);

// Says what is wrong and where, and aborts.
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void*), void* argument);

// Set where a translation of nvcc's PTX is linked in: runs that instead of the kernel's source.
using PtxLaunch = void (*)(const void* kernel, const unsigned char* parameters, size_t size,
                           dim3 grid, dim3 block, size_t shared_bytes);
extern PtxLaunch ptx_launch;

template <class Parameters>
void launch(void (*kernel)(Parameters), dim3 grid, dim3 block, size_t shared_bytes,
            const void* stream, const Parameters& parameters) {
  if (options.stream && stream != options.stream)
    fail("launched on the stream %p, the caller's is %p", stream, options.stream);
  if (ptx_launch) {
    unsigned char bytes[sizeof(Parameters)];
    std::memcpy(bytes, &parameters, sizeof bytes);
    ptx_launch(reinterpret_cast<const void*>(kernel), bytes, sizeof bytes, grid, block,
               shared_bytes);
    return;
  }
  auto body = [&] { kernel(parameters); };
  run_grid(grid, block, shared_bytes, [](void* f) { (*static_cast<decltype(body)*>(f))(); }, &body);
}

}  // namespace emulation
