// Included once for each instruction set, with CMLR_TARGET and a namespace around it: no include
// guard. A pixel is a vector of four floats, the fourth of them the neighbour's first channel; the
// other loops are plain, for compilers to vectorise.

// kTaps: known to the compiler, which then unrolls; 0 for any number.
template <int kTaps>
CMLR_TARGET void shrink_taps(const float* row, const Columns& columns, float* shrunk) {
  const int64_t taps = kTaps ? kTaps : columns.axis.taps;
  const int64_t* first = columns.axis.first.data();
  const float* weight = columns.axis.weight.data();
  for (int64_t x = 0; x < columns.width; ++x, weight += taps) {
    const float* pixel = row + 3 * first[x];
    Floats4 values;
    std::memcpy(&values, pixel, sizeof values);
    Floats4 sum = values * weight[0];
    for (int64_t k = 1; k < taps; ++k) {
      std::memcpy(&values, pixel + 3 * k, sizeof values);
      sum += values * weight[k];
    }
    std::memcpy(shrunk + 4 * x, &sum, sizeof sum);
  }
}

CMLR_TARGET void shrink(const uint8_t* source, const Columns& columns, float* widened,
                        float* shrunk) {
  for (int64_t i = 0; i < 3 * columns.source_width; ++i) widened[i] = source[i];
  switch (columns.axis.taps) {
    case 2:
      return shrink_taps<2>(widened, columns, shrunk);
    case 3:
      return shrink_taps<3>(widened, columns, shrunk);
    case 4:
      return shrink_taps<4>(widened, columns, shrunk);
    default:
      return shrink_taps<0>(widened, columns, shrunk);
  }
}

CMLR_TARGET void add(const float* __restrict shrunk, float weight, bool first, int64_t count,
                     float* __restrict sum) {
  if (first)
    for (int64_t i = 0; i < count; ++i) sum[i] = shrunk[i] * weight;
  else
    for (int64_t i = 0; i < count; ++i) sum[i] += shrunk[i] * weight;
}

[[maybe_unused]] CMLR_TARGET void write(const float* sum, int64_t width, int first, uint8_t* out) {
  for (int64_t x = 0; x < width; ++x, out += 3) {
    Floats4 rounded;
    std::memcpy(&rounded, sum + 4 * x, sizeof rounded);
    rounded += kRounder;
    uint8_t bytes[sizeof rounded];
    std::memcpy(bytes, &rounded, sizeof rounded);
    out[first] = bytes[0], out[1] = bytes[4], out[2 - first] = bytes[8];
  }
}
