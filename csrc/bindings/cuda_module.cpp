// pybind11 bindings of the CUDA operators: device addresses in, launches out. No memory, no copies.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "cmlr/attention_cuda.h"
#include "cmlr/frame_cuda.h"

namespace py = pybind11;

namespace {

constexpr int64_t kLargestSize = int64_t{1} << 30;  // so that products of two fit

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT: an address of the device
}

using Batches = std::array<int64_t, 3>;  // of query, key, value: 1 or the largest of them

int64_t batch_of(const Batches& batches) {
  const int64_t largest = *std::max_element(batches.begin(), batches.end());
  for (const int64_t batch : batches)
    if (batch != 1 && batch != largest)
      throw py::value_error("the batches of query, key and value are " +
                            std::to_string(batches[0]) + ", " + std::to_string(batches[1]) +
                            " and " + std::to_string(batches[2]) +
                            ", expected 1 or the largest of them");
  return largest;
}

void attention(const std::string& element, std::uintptr_t query, std::uintptr_t key,
               std::uintptr_t value, std::uintptr_t key_bias, std::uintptr_t out,
               const Batches& batches, int64_t queries, int64_t tokens, int64_t dim,
               int64_t num_heads, float scale, std::uintptr_t stream) {
  if (element != "float32" && element != "float16")
    throw py::value_error("element is '" + element + "', expected float32 or float16");
  const auto stride = [](int64_t batch, int64_t item) { return batch == 1 ? 0 : item; };
  for (const int64_t size : {queries, tokens, dim})
    if (size <= 0 || size > kLargestSize)
      throw py::value_error("a size is " + std::to_string(size) + ", expected 1 to 2^30");
  const cmlr::cuda::AttentionParams params{
      element == "float16" ? cmlr::cuda::Element::kFloat16 : cmlr::cuda::Element::kFloat32,
      pointer<void>(query),
      pointer<void>(key),
      pointer<void>(value),
      pointer<float>(key_bias),
      pointer<void>(out),
      batch_of(batches),
      queries,
      tokens,
      dim,
      num_heads,
      scale,
      stride(batches[0], queries * dim),
      stride(batches[1], tokens * dim),
      stride(batches[2], tokens * dim)};
  cmlr::cuda::attention(params, pointer<CUstream_st>(stream));
}

using Rows = std::array<int64_t, 2>;                  // bytes: of pixels, of chroma
using Channels = std::array<float, 3>;                // R G B
using Normalization = std::pair<Channels, Channels>;  // mean, std

void resize_frame(const std::string& format, std::uintptr_t pixels, std::uintptr_t chroma,
                  const std::array<int64_t, 2>& size_hw, std::uintptr_t out,
                  const std::array<int64_t, 2>& out_hw, std::uintptr_t stream,
                  const std::optional<Rows>& row_bytes,
                  const std::optional<Normalization>& mean_std) {
  using cmlr::cuda::PixelFormat;
  if (format != "bgr" && format != "rgb" && format != "nv12")
    throw py::value_error("format is '" + format + "', expected bgr, rgb or nv12");
  cmlr::cuda::FrameParams params{};
  params.format = format == "bgr"   ? PixelFormat::kBgr
                  : format == "rgb" ? PixelFormat::kRgb
                                    : PixelFormat::kNv12;
  params.pixels = pointer<uint8_t>(pixels);
  params.chroma = pointer<uint8_t>(chroma);
  params.height = size_hw[0];
  params.width = size_hw[1];
  const bool sane = params.width > 0 && params.width <= kLargestSize;  // else refused by name
  const int64_t packed = sane ? params.width * (format == "nv12" ? 1 : 3) : 0;
  params.row = row_bytes ? (*row_bytes)[0] : packed;
  params.chroma_row = row_bytes ? (*row_bytes)[1] : params.width;
  params.out = pointer<void>(out);
  params.out_height = out_hw[0];
  params.out_width = out_hw[1];
  params.normalized = mean_std.has_value();
  if (mean_std) {
    std::copy(mean_std->first.begin(), mean_std->first.end(), params.mean);
    std::copy(mean_std->second.begin(), mean_std->second.end(), params.std);
  }
  cmlr::cuda::resize_frame(params, pointer<CUstream_st>(stream));
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "The CUDA operators of cmlr_edge, on device addresses. Unverified on hardware.";
  m.def("attention", &attention, py::kw_only(), py::arg("element"), py::arg("query"),
        py::arg("key"), py::arg("value"), py::arg("key_bias"), py::arg("out"), py::arg("batches"),
        py::arg("queries"), py::arg("tokens"), py::arg("dim"), py::arg("num_heads"),
        py::arg("scale"), py::arg("stream"),
        "Enqueue CmlrAttention on packed (batch, rows, dim) tensors; key_bias may be 0.");
  m.def("resize_frame", &resize_frame, py::kw_only(), py::arg("format"), py::arg("pixels"),
        py::arg("chroma"), py::arg("size_hw"), py::arg("out"), py::arg("out_hw"), py::arg("stream"),
        py::arg("row_bytes") = py::none(), py::arg("mean_std") = py::none(),
        "Enqueue the frame kernel: uint8 (*out_hw, 3), RGB, or with mean_std float32 (3, *out_hw). "
        "row_bytes: from one row to the next, of pixels and of chroma; None: rows are packed.");
}
