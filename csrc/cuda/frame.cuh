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
  double inverse_y, inverse_x;  // pixels of the result for each of the frame, for enlarging
  int whole;      // both sides shrink by whole numbers: so many pixels become one; else 0
  int halves_up;  // and it is by 2 and 2, where OpenCV rounds halves up, elsewhere to even
  float factor[3], shift[3];  // of the normalised result, R G B
};

// The frame's pixels under one pixel of the result, along one axis.
struct Taps {
  int first, count;
  float before, inside, behind;  // weights: of the first, of those between, of the last

  __device__ __forceinline__ float weight(int i) const {
    return i == 0 ? before : i == count - 1 ? behind : inside;
  }
};

// Shrinking: shares of the covered length; a sliver of less than 1/1000 is left out. In integers
// to the division: the weights are then OpenCV's to the last bit.
__device__ __forceinline__ Taps area_taps(int index, int size, int out) {
  const int from = index * size, to = from + size;  // in parts of a pixel, out of them to each
  const int first_whole = (from + out - 1) / out, last_whole = min(to / out, size);
  const int head = first_whole * out - from, tail = to - last_whole * out;
  const bool has_head = head * 1000LL > out, has_tail = tail * 1000LL > out;
  const float length = static_cast<float>(size);
  Taps taps;
  taps.first = first_whole - has_head;
  taps.count = last_whole - first_whole + has_head + has_tail;
  taps.inside = out / length;
  taps.behind = has_tail ? tail / length : taps.inside;
  taps.before = has_head ? head / length : taps.count == 1 ? taps.behind : taps.inside;
  return taps;
}

// Shrinking by a whole number: all weigh the same, and are divided at the end.
__device__ __forceinline__ Taps whole_taps(int index, int size, int out) {
  const int count = size / out;
  return {index * count, count, 1.0f, 1.0f, 1.0f};
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

struct Packed {                         // BGR or RGB
  static constexpr bool kBytes = true;  // what `at` gives are whole numbers

  static __device__ __forceinline__ void at(const FrameArguments& a, int y, int x,
                                            float (&color)[3]) {
    const unsigned char* pixel = a.pixels + y * a.row + x * 3;
    color[0] = pixel[a.red];
    color[1] = pixel[1];
    color[2] = pixel[2 - a.red];
  }
};

__device__ __forceinline__ float clamp_to_byte(float x) { return fminf(fmaxf(x, 0.0f), 255.0f); }

struct Nv12 {
  static constexpr bool kBytes = false;

  static __device__ __forceinline__ void at(const FrameArguments& a, int y, int x,
                                            float (&color)[3]) {
    const unsigned char* pair = a.chroma + (y / 2) * a.chroma_row + x / 2 * 2;
    const float luma = (255.0f / 219.0f) * fmaxf(a.pixels[y * a.row + x] - 16.0f, 0.0f);
    const float u = pair[0] - 128.0f, v = pair[1] - 128.0f;
    // BT.601: 0.299 R + 0.587 G + 0.114 B, differences in 224 steps.
    color[0] = clamp_to_byte(luma + 1.596027f * v);
    color[1] = clamp_to_byte(luma - 0.391762f * u - 0.812968f * v);
    color[2] = clamp_to_byte(luma + 2.017232f * u);
  }
};

// The weighted sum, along each row first and then down the rows, every product and sum rounded by
// itself: OpenCV's order, whose last bits decide how a pixel near a half is rounded.
template <class Source>
__device__ __forceinline__ void add_up(const FrameArguments& a, const Taps& rows,
                                       const Taps& columns, float (&sum)[3]) {
  for (int i = 0; i < rows.count; ++i) {
    float line[3] = {0.0f, 0.0f, 0.0f};
    for (int j = 0; j < columns.count; ++j) {
      float color[3];
      Source::at(a, rows.first + i, columns.first + j, color);
#pragma unroll
      for (int c = 0; c < 3; ++c)
        line[c] = __fadd_rn(line[c], __fmul_rn(color[c], columns.weight(j)));
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) sum[c] = __fadd_rn(sum[c], __fmul_rn(line[c], rows.weight(i)));
  }
}

// Enlarging bytes as OpenCV does, in fixed point: weights of 11 bits, and digits cut off twice.
__device__ __forceinline__ int in_steps(float weight) { return __float2int_rn(weight * 2048.0f); }

template <class Source>
__device__ __forceinline__ void interpolate(const FrameArguments& a, const Taps& rows,
                                            const Taps& columns, float (&sum)[3]) {
  int total[3] = {0, 0, 0};
  for (int i = 0; i < rows.count; ++i) {
    int line[3] = {0, 0, 0};
    for (int j = 0; j < columns.count; ++j) {
      float color[3];
      Source::at(a, rows.first + i, columns.first + j, color);
#pragma unroll
      for (int c = 0; c < 3; ++c)
        line[c] += static_cast<int>(color[c]) * in_steps(columns.weight(j));
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) total[c] += (line[c] >> 4) * in_steps(rows.weight(i)) >> 16;
  }
#pragma unroll
  for (int c = 0; c < 3; ++c) sum[c] = static_cast<float>((total[c] + 2) >> 2);
}

template <class Source, bool kNormalized>
__global__ void __launch_bounds__(kFrameThreads) resize_frame_kernel(FrameArguments a) {
  const int x = blockIdx.x * kFrameThreads + threadIdx.x, y = blockIdx.y;
  if (x >= a.out_width) return;
  float sum[3] = {0.0f, 0.0f, 0.0f};
  if (a.whole) {
    add_up<Source>(a, whole_taps(y, a.height, a.out_height), whole_taps(x, a.width, a.out_width),
                   sum);
#pragma unroll
    for (int c = 0; c < 3; ++c) sum[c] = sum[c] * (1.0f / a.whole);
  } else if (a.out_width <= a.width && a.out_height <= a.height) {
    add_up<Source>(a, area_taps(y, a.height, a.out_height), area_taps(x, a.width, a.out_width),
                   sum);
  } else {
    const Taps rows = linear_taps(y, a.inverse_y, a.height);
    const Taps columns = linear_taps(x, a.inverse_x, a.width);
    if (Source::kBytes && !kNormalized)
      interpolate<Source>(a, rows, columns, sum);
    else
      add_up<Source>(a, rows, columns, sum);
  }
  const int64_t pixel = static_cast<int64_t>(y) * a.out_width + x;
  const int64_t plane = static_cast<int64_t>(a.out_height) * a.out_width;
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    if (kNormalized) {
      static_cast<float*>(a.out)[c * plane + pixel] = sum[c] * a.factor[c] + a.shift[c];
    } else {
      const int rounded = a.halves_up ? static_cast<int>(sum[c] + 0.5f) : __float2int_rn(sum[c]);
      static_cast<unsigned char*>(a.out)[pixel * 3 + c] =
          static_cast<unsigned char>(min(rounded, 255));
    }
  }
}

}  // namespace cmlr::cuda
