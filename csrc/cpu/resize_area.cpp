// A source row is widened to floats, shrunk once, and added to the one or two rows it lies under.
// While it is shrunk a pixel is a vector of four floats, the fourth of them the neighbour's first
// channel, which is never written; the other loops are plain, for compilers to vectorise.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "cmlr/resize.h"

// x86-64 alone promises SSE2; the loader takes the best of these that the machine has.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CMLR_VERSIONS __attribute__((target_clones("avx2", "sse4.1", "default")))
#else
#define CMLR_VERSIONS
#endif
// Into each of those versions; a function of its own would be compiled for SSE2.
#define CMLR_INLINE inline __attribute__((always_inline))

namespace cmlr {
namespace {

using Floats4 = float __attribute__((vector_size(16)));

constexpr double kSliver = 1e-3;  // of a source pixel: what is less is not looked at
// Added to a float in [0, 2^22] it leaves the nearest integer, half to even, in the low bits.
constexpr float kRounder = 12582912.0f;

// Which source pixels lie under an output pixel, along one axis: `taps` in a row from `first`, and
// their weights, 0 where fewer lie under it.
struct Axis {
  int64_t taps = 0;
  std::vector<int64_t> first;
  std::vector<float> weight;  // (outputs, taps)
};

struct Cell {
  int64_t first;
  std::vector<float> weight;
};

Cell cell_of(int64_t output, double scale, int64_t size) {
  const double begin = output * scale, end = begin + scale;
  const double width = std::min(scale, size - begin);
  int64_t last = std::min<int64_t>(static_cast<int64_t>(std::floor(end)), size - 1);
  int64_t whole = std::min<int64_t>(static_cast<int64_t>(std::ceil(begin)), last);
  Cell cell{whole, {}};
  if (whole - begin > kSliver) {
    cell.first = whole - 1;
    cell.weight.push_back(static_cast<float>((whole - begin) / width));
  }
  for (; whole < last; ++whole) cell.weight.push_back(static_cast<float>(1.0 / width));
  if (end - last > kSliver)
    cell.weight.push_back(static_cast<float>(std::min(std::min(end - last, 1.0), width) / width));
  return cell;
}

Axis axis_of(int64_t size, int64_t outputs) {
  const double scale = 1.0 / (static_cast<double>(outputs) / static_cast<double>(size));
  std::vector<Cell> cells;
  Axis axis;
  for (int64_t i = 0; i < outputs; ++i) {
    cells.push_back(cell_of(i, scale, size));
    axis.taps = std::max<int64_t>(axis.taps, cells.back().weight.size());
  }
  axis.weight.assign(outputs * axis.taps, 0.0f);
  for (int64_t i = 0; i < outputs; ++i) {
    // Moved back at the border: pixels before the cell then have weight 0, and add nothing.
    const int64_t first = std::min(cells[i].first, size - axis.taps);
    axis.first.push_back(first);
    std::copy(cells[i].weight.begin(), cells[i].weight.end(),
              axis.weight.begin() + i * axis.taps + (cells[i].first - first));
  }
  return axis;
}

struct Workspace {
  int64_t source_height = 0, source_width = 0, height = 0, width = 0;
  Axis rows, columns;
  std::vector<float> row;          // (source_width * 3), and one more to be read
  std::vector<float> shrunk, sum;  // (width * 4)

  void prepare(const ResizeAreaParams& p) {
    if (p.source_height == source_height && p.source_width == source_width && p.height == height &&
        p.width == width)
      return;
    rows = axis_of(p.source_height, p.height);
    columns = axis_of(p.source_width, p.width);
    row.resize(3 * p.source_width + 1);
    shrunk.resize(4 * p.width);
    sum.resize(4 * p.width);
    source_height = p.source_height, source_width = p.source_width;
    height = p.height, width = p.width;
  }
};

CMLR_INLINE Floats4 load_pixel(const float* pixel) {
  Floats4 values;
  std::memcpy(&values, pixel, sizeof values);
  return values;
}

// kTaps: known to the compiler, which then unrolls; 0 for any number.
template <int kTaps>
CMLR_INLINE void shrink(const float* row, const Axis& columns, int64_t width, float* shrunk) {
  const int64_t taps = kTaps ? kTaps : columns.taps;
  const int64_t* first = columns.first.data();
  const float* weight = columns.weight.data();
  for (int64_t x = 0; x < width; ++x, weight += taps) {
    const float* pixel = row + 3 * first[x];
    Floats4 sum = load_pixel(pixel) * weight[0];
    for (int64_t k = 1; k < taps; ++k) sum += load_pixel(pixel + 3 * k) * weight[k];
    std::memcpy(shrunk + 4 * x, &sum, sizeof sum);
  }
}

CMLR_VERSIONS void shrink_row(const uint8_t* source, const Axis& columns, int64_t source_width,
                              int64_t width, float* __restrict row, float* __restrict shrunk) {
  for (int64_t i = 0; i < 3 * source_width; ++i) row[i] = source[i];
  switch (columns.taps) {
    case 2:
      return shrink<2>(row, columns, width, shrunk);
    case 3:
      return shrink<3>(row, columns, width, shrunk);
    case 4:
      return shrink<4>(row, columns, width, shrunk);
    default:
      return shrink<0>(row, columns, width, shrunk);
  }
}

CMLR_VERSIONS void add_row(const float* __restrict shrunk, float weight, bool first, int64_t count,
                           float* __restrict sum) {
  if (first)
    for (int64_t i = 0; i < count; ++i) sum[i] = shrunk[i] * weight;
  else
    for (int64_t i = 0; i < count; ++i) sum[i] += shrunk[i] * weight;
}

CMLR_VERSIONS void write_row(const float* sum, int64_t width, int first, uint8_t* out) {
  for (int64_t x = 0; x < width; ++x, out += 3) {
    const Floats4 rounded = load_pixel(sum + 4 * x) + kRounder;
    uint8_t bytes[sizeof rounded];
    std::memcpy(bytes, &rounded, sizeof rounded);
    out[first] = bytes[0], out[1] = bytes[4], out[2 - first] = bytes[8];
  }
}

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument("resize_area: " + message);
}

std::string size_of(int64_t height, int64_t width) {
  return std::to_string(height) + " x " + std::to_string(width);
}

}  // namespace

void resize_area(const ResizeAreaParams& p) {
  require(p.source && p.out, "source and out must not be null");
  require(p.height > 0 && p.width > 0 && p.height <= p.source_height && p.width <= p.source_width,
          "cannot shrink " + size_of(p.source_height, p.source_width) + " pixels to " +
              size_of(p.height, p.width));
  thread_local Workspace work;
  work.prepare(p);
  int64_t shrunk_row = -1;  // the source row that work.shrunk is of: two cells can share it
  for (int64_t y = 0; y < p.height; ++y) {
    bool first = true;
    for (int64_t k = 0; k < work.rows.taps; ++k) {
      const float weight = work.rows.weight[y * work.rows.taps + k];
      if (weight == 0.0f) continue;
      const int64_t source_row = work.rows.first[y] + k;
      if (source_row != shrunk_row) {
        shrink_row(p.source + source_row * p.source_stride, work.columns, p.source_width, p.width,
                   work.row.data(), work.shrunk.data());
        shrunk_row = source_row;
      }
      add_row(work.shrunk.data(), weight, first, 4 * p.width, work.sum.data());
      first = false;
    }
    write_row(work.sum.data(), p.width, p.swap_channels ? 2 : 0, p.out + y * p.width * 3);
  }
}

}  // namespace cmlr
