// What `resize_area` does to one row, once for every instruction set that it pays for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cmlr {

// Which source pixels lie under an output pixel, along one axis: `taps` in a row from `first`, and
// their weights, 0 where fewer lie under it.
struct Axis {
  int64_t taps = 0;
  std::vector<int64_t> first;
  std::vector<float> weight;  // (outputs, taps)
};

constexpr int64_t kGroup = 4;     // output pixels at a time
constexpr int64_t kWindow = 64;   // source bytes that one shuffle chooses from
constexpr int64_t kMostTaps = 4;  // of a group: kGroup * 4 channels * kMostTaps bytes are chosen

// The same for groups of output pixels, whose bytes one shuffle takes out of a window of the source
// row: byte 16 * tap + 4 * pixel + channel. Empty where windows are too small for it.
struct Groups {
  std::vector<int64_t> first_byte;
  std::vector<uint64_t> readable;  // a bit for every byte of the window that is under the group
  std::vector<uint8_t> index;      // (groups, kWindow)
  std::vector<float> weight;       // (groups, taps, 16)
};

struct Columns {
  int64_t source_width = 0, width = 0;
  Axis axis;
  Groups groups;

  // Floats of a row while it is worked on: four a pixel, in whole groups.
  int64_t row_floats() const { return (width + kGroup - 1) / kGroup * kGroup * 4; }
};

struct RowOps {
  const char* name;
  // uint8 (source_width, 3) -> float (width, 4), the fourth of a pixel never written out. `widened`
  // has room for 3 * source_width + 1 floats.
  void (*shrink)(const uint8_t* source, const Columns& columns, float* widened, float* shrunk);
  // sum = or += shrunk * weight
  void (*add)(const float* shrunk, float weight, bool first, int64_t count, float* sum);
  // Rounds half to even; the first channel becomes that of index `first`, 0 or 2.
  void (*write)(const float* sum, int64_t width, int first, uint8_t* out);
};

// Of this machine, the best first; the last runs anywhere. The same numbers whichever is taken.
const std::vector<RowOps>& row_ops();

}  // namespace cmlr
