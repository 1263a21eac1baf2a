#include "emulation/ptx/counts.h"

#include <cstdio>
#include <map>
#include <set>
#include <sstream>

namespace emulation::ptx {
namespace {

struct Access {
  uint32_t address;
  size_t bytes;
};
struct WarpAccesses {
  std::vector<Access> of_lane[32];
};
std::map<std::pair<int, unsigned>, WarpAccesses> recorded;  // by site and warp

struct Wavefronts {
  int requests = 0, needed = 0, least = 0;
};

// The passes one request takes: 32 lanes of 4 bytes go together, 16 of 8, and 8 of 16.
void add_request(const WarpAccesses& warp, size_t turn, Wavefronts& total) {
  ++total.requests;
  const size_t bytes = warp.of_lane[0][turn].bytes, together = 32 / std::max<size_t>(1, bytes / 4);
  for (size_t first = 0; first < 32; first += together) {
    std::set<uint32_t> words;  // a word read by several lanes is sent once
    for (size_t lane = first; lane < first + together; ++lane)
      for (size_t i = 0; i < bytes / 4; ++i)
        words.insert(warp.of_lane[lane][turn].address / 4 + static_cast<uint32_t>(i));
    int in_bank[32] = {}, most = 0;
    for (const uint32_t word : words) most = std::max(most, ++in_bank[word % 32]);
    total.needed += most;
    total.least += static_cast<int>((words.size() + 31) / 32);
  }
}

// Requests that all 32 lanes take part in; single lanes cannot conflict.
std::map<int, Wavefronts> wavefronts_by_site() {
  std::map<int, Wavefronts> sites;
  for (const auto& [place, warp] : recorded) {
    size_t turns = warp.of_lane[0].size();
    for (const auto& accesses : warp.of_lane) turns = std::min(turns, accesses.size());
    for (size_t turn = 0; turn < turns; ++turn) add_request(warp, turn, sites[place.first]);
  }
  return sites;
}

std::map<std::string, double> warp_instructions(const Kernel& kernel) {
  std::map<std::string, double> count;
  for (size_t block = 0; block < kernel.opcodes.size(); ++block) {
    std::istringstream opcodes(kernel.opcodes[block]);
    for (std::string opcode; opcodes >> opcode;)
      count[opcode] += static_cast<double>(kernel.executed[block]) / 32;
  }
  return count;
}

}  // namespace

void record_access(int site, uint32_t address, size_t bytes) {
  const uint3& block = current->block;
  if (!options.count_instructions || block.x || block.y || block.z) return;
  recorded[{site, current->warp}].of_lane[current->lane].push_back({address, bytes});
}

void start_counting(const Kernel& kernel) {
  std::fill(kernel.executed, kernel.executed + kernel.opcodes.size(), 0);
  recorded.clear();
}

void print_counts(const Kernel& kernel, size_t shared_bytes) {
  std::fprintf(stderr, "{\"kernel\": \"%s\", \"shared_bytes\": %zu, \"instructions\": {",
               kernel.name.c_str(), shared_bytes);
  const char* separator = "";
  for (const auto& [opcode, count] : warp_instructions(kernel)) {
    std::fprintf(stderr, "%s\"%s\": %.2f", separator, opcode.c_str(), count);
    separator = ", ";
  }
  std::fprintf(stderr, "}, \"shared\": [");
  separator = "";
  for (const auto& [site, w] : wavefronts_by_site()) {
    std::fprintf(
        stderr, "%s{\"access\": \"%s\", \"requests\": %d, \"wavefronts\": %d, \"least\": %d}",
        separator, kernel.sites[static_cast<size_t>(site)].c_str(), w.requests, w.needed, w.least);
    separator = ", ";
  }
  std::fprintf(stderr, "]}\n");
}

}  // namespace emulation::ptx
