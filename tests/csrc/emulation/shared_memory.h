// A block's dynamic shared memory: NaN at first, with a guard behind it.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace emulation {

class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes) : bytes_(bytes) {}
  unsigned char* begin() { return memory_.get(); }
  size_t size() const { return bytes_; }

  void renew();              // for the next block
  void check_guard() const;  // aborts if the block wrote behind the end

 private:
  struct Free {
    size_t guard_begin;
    void operator()(unsigned char* memory) const;
  };
  size_t bytes_;
  std::unique_ptr<unsigned char, Free> memory_{nullptr, Free{0}};
  // Under ThreadSanitizer every block gets its own, or two blocks would seem to race.
  std::vector<std::unique_ptr<unsigned char, Free>> used_;
};

}  // namespace emulation
