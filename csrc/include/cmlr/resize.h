// Shrinking a picture by area means: what a frame goes through on its way into the network.
//
//   out[y, x, c] = round(sum over the source pixels under (y, x) of source[., ., c] * overlap)
//
// rounded half to even. The sums are taken in float32, along a row first and then down the rows,
// which is the order of OpenCV's INTER_AREA: both give the same bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cmlr {

struct ResizeAreaParams {
  const uint8_t* source;  // (source_height, source_width, 3), rows `source_stride` bytes apart
  uint8_t* out;           // (height, width, 3), contiguous; must not overlap `source`
  int64_t source_height, source_width, source_stride;
  int64_t height, width;
  bool swap_channels;  // write the third channel first: BGR to RGB and back
  // One of `resize_instruction_sets`; null for the best. The bytes are the same.
  const char* instruction_set = nullptr;
};

// Runs in the calling thread; tables and rows of the last sizes seen stay allocated in it.
//
// Throws std::invalid_argument if a size is not positive, the picture would grow in a direction, or
// a pointer is null, or this machine lacks the instruction set; the message says which.
void resize_area(const ResizeAreaParams& params);

// That `resize_area` has loops for and this machine has, the fastest first.
std::vector<std::string> resize_instruction_sets();

}  // namespace cmlr
