// The scheduler: which fiber runs next, who waits for whom, and what counts as a mistake.
// Never compiled with a sanitizer: EMULATION_ASAN and EMULATION_TSAN tell it which one is linked.
#include "emulation/machine.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <vector>

#include "emulation/fiber.h"
#include "emulation/shared_memory.h"

extern "C" {
#ifdef EMULATION_TSAN
void __tsan_acquire(void* address);
void __tsan_release(void* address);
#else
static void __tsan_acquire(void*) {}
static void __tsan_release(void*) {}
#endif
}

namespace emulation {

Thread* current = nullptr;
Options options;
PtxLaunch ptx_launch = nullptr;

namespace {

constexpr unsigned kBarriers = 16;
constexpr size_t kMaxSharedBytes = 48 * 1024;  // what a launch may ask for without opting in

enum class State { kReady, kInWarpCollective, kAtBarrier, kExited };

struct CudaThread {
  Thread thread;
  Fiber fiber{false};
  State state = State::kReady;
  unsigned barrier = 0;
  Site waiting_at{};
  struct PendingCopy {
    AsyncCopy copy;
    unsigned group;
    bool has_landed;
  };
  std::vector<PendingCopy> copies;
  size_t first_copy = 0;
  unsigned copy_group = 0;
};

// One collective in progress. Two sets of deposits: a lane may start the next collective while a
// slower one still reads the results of this one.
struct Meeting {
  unsigned mask = 0, arrived = 0, parity = 0;
  Site site{};
  Deposit deposits[2][32];
  char clocks[2] = {};  // two for the same reason: what a lane did since is not ordered for others
};

struct Warp {
  unsigned ready = 0;  // bit s: the lane at place s of the order can run
  unsigned last_place = 31, alive = 0;
  unsigned lane_at[32], place_of[32];
  std::unique_ptr<Meeting> meetings[32];  // by the lowest lane of the mask
};

struct Barrier {
  unsigned arrived = 0, expected = 0, parity = 0;
  Site site{};
  char clocks[2] = {};
};

struct Machine {
  Fiber main{true};
  std::vector<std::unique_ptr<CudaThread>> threads;
  std::vector<Warp> warps;
  std::vector<unsigned> warp_order;
  Barrier barriers[kBarriers];
  unsigned num_threads = 0, live = 0, running = 0, warp_turn = 0, random = 1;
  bool in_main = true;
  char end_clock = 0;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
};
Machine* machine = nullptr;

unsigned next_random() {  // xorshift: the same schedule on every machine
  unsigned& r = machine->random;
  r ^= r << 13;
  r ^= r >> 17;
  r ^= r << 5;
  return r;
}

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.what, b.what) == 0 && std::strcmp(a.file, b.file) == 0;
}

[[noreturn]] void report_deadlock() {
  const uint3 block = machine->threads[0]->thread.block;
  std::fprintf(stderr, "emulation: DEADLOCK in block %u,%u,%u: no thread can run\n", block.x,
               block.y, block.z);
  for (unsigned i = 0; i < machine->num_threads; ++i) {
    const CudaThread& t = *machine->threads[i];
    if (t.state == State::kExited)
      std::fprintf(stderr, "  thread %u: exited\n", i);
    else
      std::fprintf(stderr, "  thread %u: waits in %s at %s:%d\n", i, t.waiting_at.what,
                   t.waiting_at.file, t.waiting_at.line);
  }
  std::abort();
}

// The next thread to run, or -1 when all have exited.
int pick() {
  Machine& m = *machine;
  if (options.schedule == Schedule::kRandom && next_random() % 8 == 0)
    m.warp_turn = next_random() % m.warps.size();
  for (size_t tried = 0; tried <= m.warps.size(); ++tried) {
    Warp& warp = m.warps[m.warp_order[m.warp_turn]];
    if (warp.ready) {
      const unsigned later = warp.last_place >= 31 ? 0 : warp.ready & ~0u << (warp.last_place + 1);
      warp.last_place = static_cast<unsigned>(__builtin_ctz(later ? later : warp.ready));
      return static_cast<int>(m.warp_order[m.warp_turn] * 32 + warp.lane_at[warp.last_place]);
    }
    m.warp_turn = (m.warp_turn + 1) % m.warps.size();
  }
  if (m.live) report_deadlock();
  return -1;
}

void run_next(bool exiting) {
  Machine& m = *machine;
  const int next = pick();
  if (next >= 0 && !m.in_main && !exiting && static_cast<unsigned>(next) == m.running) return;
  Fiber& from = m.in_main ? m.main : m.threads[m.running]->fiber;
  m.in_main = next < 0;
  if (!m.in_main) m.running = static_cast<unsigned>(next);
  current = m.in_main ? nullptr : &m.threads[m.running]->thread;
  from.switch_to(m.in_main ? m.main : m.threads[m.running]->fiber, exiting);
}

void thread_entry() {
  Machine& m = *machine;
  CudaThread& me = *m.threads[m.running];
  me.fiber.arrived();
  m.body(m.argument);
  if (me.first_copy < me.copies.size())
    fail("thread exits with %zu cp.async still in flight", me.copies.size() - me.first_copy);
  __tsan_release(&m.end_clock);  // the end of a kernel shows the host everything
  me.state = State::kExited;
  --m.live;
  Warp& warp = m.warps[me.thread.warp];
  warp.ready &= ~(1u << warp.place_of[me.thread.lane]);
  warp.alive &= ~(1u << me.thread.lane);
  run_next(true);
  std::abort();  // nothing switches back to a thread that has exited
}

void wait_in(State state, Site site) {
  CudaThread& me = *machine->threads[machine->running];
  me.state = state;
  me.waiting_at = site;
  Warp& warp = machine->warps[me.thread.warp];
  warp.ready &= ~(1u << warp.place_of[me.thread.lane]);
  run_next(false);
}

void wake(CudaThread& thread) {
  thread.state = State::kReady;
  Warp& warp = machine->warps[thread.thread.warp];
  warp.ready |= 1u << warp.place_of[thread.thread.lane];
}

void yield_if_random() {
  if (options.schedule == Schedule::kRandom) run_next(false);
}

Meeting& join(unsigned mask, Site site) {
  Warp& warp = machine->warps[current->warp];
  if (!(mask >> current->lane & 1))
    fail("%s:%d: %s by lane %u, not in its mask %08x", site.file, site.line, site.what,
         current->lane, mask);
  if (mask & ~warp.alive)
    fail("%s:%d: the mask %08x of %s names lanes that exited or never were (alive: %08x)",
         site.file, site.line, mask, site.what, warp.alive);
  Meeting& meeting = *warp.meetings[__builtin_ctz(mask)];
  if (!meeting.arrived) {
    meeting.mask = mask;
    meeting.site = site;
  } else if (meeting.mask != mask || !same_site(meeting.site, site)) {
    fail("divergent warp: lane %u in %s at %s:%d mask %08x, others in %s at %s:%d mask %08x",
         current->lane, site.what, site.file, site.line, mask, meeting.site.what, meeting.site.file,
         meeting.site.line, meeting.mask);
  }
  return meeting;
}

void order_threads() {
  Machine& m = *machine;
  const auto arrange = [](unsigned* begin, unsigned* end) {
    std::iota(begin, end, 0u);
    if (options.schedule == Schedule::kReverse) std::reverse(begin, end);
    if (options.schedule == Schedule::kRandom)
      for (auto i = end - begin; i > 1; --i) std::swap(begin[i - 1], begin[next_random() % i]);
  };
  m.warp_order.resize(m.warps.size());
  arrange(m.warp_order.data(), m.warp_order.data() + m.warp_order.size());
  m.warp_turn = 0;
  for (Warp& warp : m.warps) {
    arrange(warp.lane_at, warp.lane_at + 32);
    for (unsigned place = 0; place < 32; ++place) warp.place_of[warp.lane_at[place]] = place;
  }
}

void start_block(dim3 grid, dim3 block, uint3 index, SharedMemory& shared) {
  Machine& m = *machine;
  order_threads();
  for (Barrier& barrier : m.barriers) barrier.arrived = 0;
  for (Warp& warp : m.warps) {
    warp.ready = warp.alive = 0;
    warp.last_place = 31;
    for (auto& meeting : warp.meetings) meeting->arrived = 0;
  }
  m.live = m.num_threads;
  for (unsigned i = 0; i < m.num_threads; ++i) {
    CudaThread& t = *m.threads[i];
    const uint3 thread{i % block.x, i / block.x % block.y, i / block.x / block.y};
    t.thread = {thread, index, block, grid, i % 32, i / 32, shared.begin(), shared.size()};
    t.copies.clear();
    t.first_copy = t.copy_group = 0;
    m.warps[i / 32].alive |= 1u << i % 32;
    t.fiber.restart(thread_entry);
    wake(t);
  }
}

void check_launch(dim3 grid, dim3 block, size_t shared_bytes) {
  const size_t threads = static_cast<size_t>(block.x) * block.y * block.z;
  if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || !threads ||
      threads > 1024)
    fail("invalid launch: grid %u,%u,%u of blocks %u,%u,%u", grid.x, grid.y, grid.z, block.x,
         block.y, block.z);
  if (shared_bytes > kMaxSharedBytes)
    fail("a block asks for %zu bytes of shared memory, more than %zu", shared_bytes,
         kMaxSharedBytes);
}

}  // namespace

void fail(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "emulation: ");
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  if (current)
    std::fprintf(stderr, "  [block %u,%u,%u thread %u,%u,%u]", current->block.x, current->block.y,
                 current->block.z, current->index.x, current->index.y, current->index.z);
  std::fprintf(stderr, "\n");
  std::abort();
}

const Deposit* meet(unsigned mask, const Deposit& mine, void (*complete)(Deposit*), Site site) {
  Meeting& meeting = join(mask, site);
  Deposit* deposits = meeting.deposits[meeting.parity];
  deposits[current->lane] = mine;
  meeting.arrived |= 1u << current->lane;
  if (meeting.arrived != mask) {
    wait_in(State::kInWarpCollective, site);
    return deposits;
  }
  if (complete) complete(deposits);
  meeting.arrived = 0;
  meeting.parity ^= 1;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && lane != current->lane)
      wake(*machine->threads[current->warp * 32 + lane]);
  yield_if_random();
  return deposits;
}

void sync_warp(unsigned mask, Site site) {
  Meeting& meeting = join(mask, site);
  char* clock = &meeting.clocks[meeting.parity];
  __tsan_release(clock);
  meet(mask, {}, nullptr, site);
  __tsan_acquire(clock);
}

void sync_block(unsigned id, unsigned count, Site site) {
  if (id >= kBarriers) fail("%s:%d: there is no barrier %u", site.file, site.line, id);
  Barrier& barrier = machine->barriers[id];
  const unsigned expected = count ? count : machine->num_threads;
  char* clock = &barrier.clocks[barrier.parity];
  __tsan_release(clock);
  if (!barrier.arrived) {
    barrier.expected = expected;
    barrier.site = site;
  } else if (barrier.expected != expected || !same_site(barrier.site, site)) {
    fail("divergent block: this thread in %s at %s:%d, others in %s at %s:%d", site.what, site.file,
         site.line, barrier.site.what, barrier.site.file, barrier.site.line);
  }
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    barrier.parity ^= 1;
    for (unsigned i = 0; i < machine->num_threads; ++i) {
      CudaThread& other = *machine->threads[i];
      if (other.state == State::kAtBarrier && other.barrier == id) wake(other);
    }
    yield_if_random();
  } else {
    machine->threads[machine->running]->barrier = id;
    wait_in(State::kAtBarrier, site);
  }
  __tsan_acquire(clock);
}

void push_async_copy(AsyncCopy copy) {
  CudaThread& me = *machine->threads[machine->running];
  me.copies.push_back({copy, me.copy_group, false});
}

void commit_async_copies() { ++machine->threads[machine->running]->copy_group; }

bool pick_early_copy(AsyncCopy* copy) {
  if (options.copies == Landing::kLate) return false;
  CudaThread& me = *machine->threads[machine->running];
  const size_t waiting = me.copies.size() - me.first_copy;
  if (!waiting) return false;
  const bool random = options.copies == Landing::kRandom;
  auto& picked = random ? me.copies[me.first_copy + next_random() % waiting] : me.copies.back();
  if (picked.has_landed || (random && next_random() % 4 == 0)) return false;
  picked.has_landed = true;
  *copy = picked.copy;
  return true;
}

bool pop_async_copy(unsigned groups_in_flight, AsyncCopy* copy, bool* has_landed) {
  CudaThread& me = *machine->threads[machine->running];
  if (me.first_copy == me.copies.size()) return false;
  const auto& oldest = me.copies[me.first_copy];
  if (oldest.group + groups_in_flight >= me.copy_group) return false;
  *copy = oldest.copy;
  *has_landed = oldest.has_landed;
  if (++me.first_copy == me.copies.size()) {
    me.copies.clear();
    me.first_copy = 0;
  }
  return true;
}

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void*), void* argument) {
  check_launch(grid, block, shared_bytes);
  static Machine the_machine;
  machine = &the_machine;
  Machine& m = *machine;
  m.body = body;
  m.argument = argument;
  m.random = options.seed * 2654435761u + 12345u;
  m.num_threads = block.x * block.y * block.z;
  while (m.threads.size() < m.num_threads) m.threads.push_back(std::make_unique<CudaThread>());
  m.warps.resize((m.num_threads + 31) / 32);
  for (Warp& warp : m.warps)
    for (auto& meeting : warp.meetings)
      if (!meeting) meeting = std::make_unique<Meeting>();
  SharedMemory shared(shared_bytes);
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        const bool last = x + 1 == grid.x && y + 1 == grid.y && z + 1 == grid.z;
        if (options.only_last_block && !last) continue;
        shared.renew();
        start_block(grid, block, {x, y, z}, shared);
        run_next(false);
        shared.check_guard();
      }
  __tsan_acquire(&m.end_clock);
}

}  // namespace emulation
