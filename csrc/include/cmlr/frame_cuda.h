// From a camera's frame to the model's input on the GPU: what cmlr_edge.preprocess does on the CPU.
#pragma once

#include <cstdint>

#include "cmlr/attention_cuda.h"

namespace cmlr::cuda {

enum class PixelFormat { kBgr, kRgb, kNv12 };  // NV12: BT.601, video range, as OpenCV takes it

// Device memory owned by the caller. Row strides count bytes.
struct FrameParams {
  PixelFormat format;
  const uint8_t* pixels;    // (height, width, 3); of NV12 the luma (height, width)
  const uint8_t* chroma;    // of NV12 (height / 2, width / 2, 2), U before V; else null
  int64_t row, chroma_row;  // at least width * 3, or width
  int64_t height, width;    // even for NV12
  void* out;                // RGB: uint8 (out_height, out_width, 3), or what follows
  bool normalized;          // float32 (3, out_height, out_width), (x / 255 - mean) / std
  int64_t out_height, out_width;
  float mean[3], std[3];  // R G B, of pixels scaled to [0, 1]
};

// Enqueues the kernel on `stream` and returns; the memory must live until it has run. Resizes by
// area as OpenCV's INTER_AREA does, which enlarges linearly: bytes of BGR and RGB are those of
// cmlr_edge.preprocess, where rounding does not depend on the last bit; of NV12 they are within one
// grey level.
//
// Throws std::invalid_argument for a size that is not positive or above 2^14, a stride shorter than
// a row, a null pointer or an odd NV12 frame, and std::runtime_error if CUDA cannot launch.
void resize_frame(const FrameParams& params, Stream stream);

}  // namespace cmlr::cuda
