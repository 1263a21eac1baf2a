// Counts what a launch of translated PTX executed: warp instructions, and wavefronts of shared
// memory, that is passes over its 32 banks.
#pragma once

#include "emulation/ptx/ptx_machine.h"

namespace emulation::ptx {

void start_counting(const Kernel& kernel);
// One line of JSON on standard error: {"kernel", "shared_bytes", "instructions": {opcode: warp
// instructions}, "shared": [{"access", "requests", "wavefronts", "least"}]}; the last of the first
// block only.
void print_counts(const Kernel& kernel, size_t shared_bytes);

}  // namespace emulation::ptx
