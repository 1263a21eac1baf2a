#include "emulation/ptx/ptx_machine.h"

#include <dlfcn.h>

#include <map>

#include "emulation/ptx/counts.h"

namespace emulation::ptx {

const unsigned char* parameters = nullptr;

namespace {

std::map<std::string, const Kernel*>& registry() {
  static std::map<std::string, const Kernel*> kernels;
  return kernels;
}

const Kernel& find(const void* host_kernel) {
  Dl_info info;  // needs the program's symbols: link with -rdynamic
  if (!dladdr(host_kernel, &info) || !info.dli_sname) fail("the kernel has no visible symbol");
  const auto found = registry().find(info.dli_sname);
  if (found == registry().end()) fail("no translated PTX for %s", info.dli_sname);
  return *found->second;
}

void launch_translated(const void* host_kernel, const unsigned char* bytes, size_t size, dim3 grid,
                       dim3 block, size_t shared_bytes) {
  const Kernel& kernel = find(host_kernel);
  if (size != kernel.parameter_bytes)
    fail("%s takes %zu bytes of parameters, the host passes %zu", kernel.name.c_str(),
         kernel.parameter_bytes, size);
  if (block.x * block.y * block.z > kernel.max_threads)
    fail("%s is bounded to %u threads", kernel.name.c_str(), kernel.max_threads);
  parameters = bytes;
  start_counting(kernel);
  run_grid(
      grid, block, shared_bytes, [](void* body) { (*static_cast<void (**)()>(body))(); },
      const_cast<void (**)()>(&kernel.body));
  if (options.count_instructions) print_counts(kernel, shared_bytes);
}

}  // namespace

bool register_kernels(std::vector<const Kernel*> kernels) {
  for (const Kernel* kernel : kernels) registry()[kernel->name] = kernel;
  ptx_launch = launch_translated;
  return true;
}

}  // namespace emulation::ptx
