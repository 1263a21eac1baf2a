// Resize, colour conversion and normalisation of one frame in one pass.
//
// A thread makes one pixel of the result: it walks over the pixels of the frame that lie under it
// and adds them up, each with the share of its area. A block is 128 neighbouring pixels of a row,
// so that a warp reads a run of each row of the frame, and every byte of the frame is fetched from
// memory about once. No shared memory: what neighbours share is in the L1 cache.
//
// Bound by memory: a frame of 1920 x 1080 is 6.2 MB as BGR and 3.1 MB as NV12.
// Unverified on hardware.
#pragma once

#include "cuda/device.h"

namespace cmlr::cuda {

constexpr int kFrameThreads = 128;

struct FrameArguments {
  const unsigned char *pixels, *chroma;
  void* out;
  int64_t row, chroma_row;  // bytes
  int height, width, out_height, out_width;
  int red;                      // 0 or 2: where red is in a packed pixel
  float scale_y, scale_x;       // frame pixels for each pixel of the result
  double inverse_y, inverse_x;  // and the other way, as only enlarging wants it
  float factor[3], shift[3];    // of the normalised result, R G B
};

// The frame's pixels under one pixel of the result, along one axis.
struct Taps {
  int first, count;
  float before, inside, behind;  // weights: of the first, of those between, of the last

  __device__ __forceinline__ float weight(int i) const {
    return i == 0 ? before : i == count - 1 ? behind : inside;
  }
};

// Shrinking: shares of the covered length; a sliver of less than 1/1000 is left out.
__device__ __forceinline__ Taps area_taps(int index, float scale, int size) {
  const float from = index * scale, to = from + scale;
  const float cell = fminf(scale, size - from);
  const int last_whole = min(static_cast<int>(to), size - 1);
  const int first_whole = min(static_cast<int>(ceilf(from)), last_whole);
  const float head = first_whole - from, tail = fminf(fminf(to - last_whole, 1.0f), cell);
  const bool has_head = head > 1e-3f, has_tail = tail > 1e-3f;
  const float inside = 1.0f / cell;
  Taps taps;
  taps.first = first_whole - has_head;
  taps.count = last_whole - first_whole + has_head + has_tail;
  taps.inside = inside;
  taps.before = has_head ? head * inside : taps.count == 1 && has_tail ? tail * inside : inside;
  taps.behind = has_tail ? tail * inside : inside;
  return taps;
}

// Enlarging: between two neighbours, by how far the pixel reaches into the second. In double, and
// with the scale as the inverse of the inverse, as OpenCV has it: where the frame's pixels end on
// the result's, the last bit decides which two neighbours those are.
__device__ __forceinline__ Taps linear_taps(int index, double inverse, int size) {
  Taps taps;
  taps.first = min(static_cast<int>(index * (1.0 / inverse)), size - 1);
  const float reach = static_cast<float>((index + 1) - (taps.first + 1) * inverse);
  const bool inside = reach > 0.0f && taps.first + 1 < size;
  taps.behind = inside ? reach - floorf(reach) : 0.0f;
  taps.count = inside ? 2 : 1;
  taps.before = 1.0f - taps.behind;
  taps.inside = 0.0f;
  return taps;
}

struct Packed {  // BGR or RGB
  static __device__ __forceinline__ void add(const FrameArguments& a, int y, int x, float weight,
                                             float (&sum)[3]) {
    const unsigned char* pixel = a.pixels + y * a.row + x * 3;
    sum[0] += weight * pixel[a.red];
    sum[1] += weight * pixel[1];
    sum[2] += weight * pixel[2 - a.red];
  }
};

__device__ __forceinline__ float clamp_to_byte(float x) { return fminf(fmaxf(x, 0.0f), 255.0f); }

struct Nv12 {
  static __device__ __forceinline__ void add(const FrameArguments& a, int y, int x, float weight,
                                             float (&sum)[3]) {
    const unsigned char* pair = a.chroma + (y / 2) * a.chroma_row + x / 2 * 2;
    const float luma = (255.0f / 219.0f) * fmaxf(a.pixels[y * a.row + x] - 16.0f, 0.0f);
    const float u = pair[0] - 128.0f, v = pair[1] - 128.0f;
    // BT.601: 0.299 R + 0.587 G + 0.114 B, differences in 224 steps.
    sum[0] += weight * clamp_to_byte(luma + 1.596027f * v);
    sum[1] += weight * clamp_to_byte(luma - 0.391762f * u - 0.812968f * v);
    sum[2] += weight * clamp_to_byte(luma + 2.017232f * u);
  }
};

template <class Source, bool kNormalized>
__global__ void __launch_bounds__(kFrameThreads) resize_frame_kernel(FrameArguments a) {
  const int x = blockIdx.x * kFrameThreads + threadIdx.x, y = blockIdx.y;
  if (x >= a.out_width) return;
  const bool shrinks = a.out_width <= a.width && a.out_height <= a.height;
  const Taps rows =
      shrinks ? area_taps(y, a.scale_y, a.height) : linear_taps(y, a.inverse_y, a.height);
  const Taps columns =
      shrinks ? area_taps(x, a.scale_x, a.width) : linear_taps(x, a.inverse_x, a.width);
  float sum[3] = {0.0f, 0.0f, 0.0f};
  for (int i = 0; i < rows.count; ++i)
    for (int j = 0; j < columns.count; ++j)
      Source::add(a, rows.first + i, columns.first + j, rows.weight(i) * columns.weight(j), sum);
  const int64_t pixel = static_cast<int64_t>(y) * a.out_width + x;
  const int64_t plane = static_cast<int64_t>(a.out_height) * a.out_width;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    if (kNormalized)
      static_cast<float*>(a.out)[c * plane + pixel] = sum[c] * a.factor[c] + a.shift[c];
    else
      static_cast<unsigned char*>(a.out)[pixel * 3 + c] =
          static_cast<unsigned char>(clamp_to_byte(sum[c] + 0.5f));
  }
}

}  // namespace cmlr::cuda
