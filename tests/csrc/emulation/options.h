// How the emulated GPU runs what is launched; no name of CUDA's, so that its own headers may be
// there.
#pragma once

namespace emulation {

// Order in which threads that could run do so.
enum class Schedule { kForward, kReverse, kRandom };
enum class Landing { kLate, kAtOnce, kRandom };
struct Options {
  Schedule schedule = Schedule::kForward;
  Landing copies = Landing::kLate;
  unsigned seed = 1;                // of kRandom
  const void* stream = nullptr;     // that every launch must be on; null: any
  bool only_last_block = false;     // of the grid: what it reaches is what is furthest away
  bool count_instructions = false;  // of translated PTX
};
extern Options options;

}  // namespace emulation
