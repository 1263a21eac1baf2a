// A source row is shrunk once, and added to the one or two output rows it lies under.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "cmlr/resize.h"
#include "cpu/resize_rows.h"

namespace cmlr {
namespace {

constexpr double kSliver = 1e-3;  // of a source pixel: what is less is not looked at

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

Groups groups_of(const Axis& axis) {
  const int64_t outputs = axis.first.size();
  Groups groups;
  if (axis.taps > kMostTaps) return groups;
  for (int64_t begin = 0; begin < outputs; begin += kGroup) {
    const int64_t end = std::min(begin + kGroup, outputs);
    const int64_t first = axis.first[begin];
    const int64_t bytes = 3 * (axis.first[end - 1] + axis.taps - first);
    if (bytes > kWindow) return {};
    groups.first_byte.push_back(3 * first);
    groups.readable.push_back(bytes == kWindow ? ~uint64_t{0} : (uint64_t{1} << bytes) - 1);
    std::vector<uint8_t> index(kWindow, 0);
    std::vector<float> weight(16 * axis.taps, 0.0f);
    for (int64_t x = begin; x < end; ++x)
      for (int64_t tap = 0; tap < axis.taps; ++tap)
        for (int64_t channel = 0; channel < 3; ++channel) {
          const int64_t lane = 16 * tap + 4 * (x - begin) + channel;
          index[lane] = static_cast<uint8_t>(3 * (axis.first[x] - first + tap) + channel);
          weight[lane] = axis.weight[x * axis.taps + tap];
        }
    groups.index.insert(groups.index.end(), index.begin(), index.end());
    groups.weight.insert(groups.weight.end(), weight.begin(), weight.end());
  }
  return groups;
}

struct Workspace {
  int64_t source_height = 0, height = 0;
  Axis rows;
  Columns columns;
  std::vector<float> widened, shrunk, sum;

  void prepare(const ResizeAreaParams& p) {
    if (p.source_height == source_height && p.source_width == columns.source_width &&
        p.height == height && p.width == columns.width)
      return;
    rows = axis_of(p.source_height, p.height);
    columns = {p.source_width, p.width, axis_of(p.source_width, p.width), {}};
    columns.groups = groups_of(columns.axis);
    widened.resize(3 * p.source_width + 1);
    shrunk.resize(columns.row_floats());
    sum.resize(columns.row_floats());
    source_height = p.source_height, height = p.height;
  }
};

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument("resize_area: " + message);
}

std::string size_of(int64_t height, int64_t width) {
  return std::to_string(height) + " x " + std::to_string(width);
}

const RowOps& ops_of(const char* instruction_set) {
  std::string known;
  for (const RowOps& ops : row_ops()) {
    if (!instruction_set || std::string(instruction_set) == ops.name) return ops;
    known += std::string(known.empty() ? "" : ", ") + ops.name;
  }
  throw std::invalid_argument(std::string("resize_area: no instruction set ") + instruction_set +
                              " here, there are " + known);
}

}  // namespace

void resize_area(const ResizeAreaParams& p) {
  require(p.source && p.out, "source and out must not be null");
  require(p.height > 0 && p.width > 0 && p.height <= p.source_height && p.width <= p.source_width,
          "cannot shrink " + size_of(p.source_height, p.source_width) + " pixels to " +
              size_of(p.height, p.width));
  const RowOps& ops = ops_of(p.instruction_set);
  thread_local Workspace work;
  work.prepare(p);
  const int64_t floats = work.columns.row_floats();
  int64_t shrunk_row = -1;  // the source row that work.shrunk is of: two cells can share it
  for (int64_t y = 0; y < p.height; ++y) {
    bool first = true;
    for (int64_t k = 0; k < work.rows.taps; ++k) {
      const float weight = work.rows.weight[y * work.rows.taps + k];
      if (weight == 0.0f) continue;
      const int64_t source_row = work.rows.first[y] + k;
      if (source_row != shrunk_row) {
        ops.shrink(p.source + source_row * p.source_stride, work.columns, work.widened.data(),
                   work.shrunk.data());
        shrunk_row = source_row;
      }
      ops.add(work.shrunk.data(), weight, first, floats, work.sum.data());
      first = false;
    }
    ops.write(work.sum.data(), p.width, p.swap_channels ? 2 : 0, p.out + y * p.width * 3);
  }
}

std::vector<std::string> resize_instruction_sets() {
  std::vector<std::string> names;
  for (const RowOps& ops : row_ops()) names.push_back(ops.name);
  return names;
}

}  // namespace cmlr
