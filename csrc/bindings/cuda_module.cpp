// pybind11 bindings of the CUDA operators: device addresses in, launches out. No memory, no copies.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "cmlr/attention_cuda.h"
#include "cmlr/frame_cuda.h"

namespace py = pybind11;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT: an address of the device
}

using Batches = std::array<int64_t, 3>;  // of query, key, value: 1 or the largest of them

void attention(const std::string& element, std::uintptr_t query, std::uintptr_t key,
               std::uintptr_t value, std::uintptr_t key_bias, std::uintptr_t out,
               const Batches& batches, int64_t queries, int64_t tokens, int64_t dim,
               int64_t num_heads, float scale, std::uintptr_t stream) {
  if (element != "float32" && element != "float16")
    throw py::value_error("element is '" + element + "', expected float32 or float16");
  const auto stride = [](int64_t batch, int64_t item) { return batch == 1 ? 0 : item; };
  const cmlr::cuda::AttentionParams params{
      element == "float16" ? cmlr::cuda::Element::kFloat16 : cmlr::cuda::Element::kFloat32,
      pointer<void>(query),
      pointer<void>(key),
      pointer<void>(value),
      pointer<float>(key_bias),
      pointer<void>(out),
      std::max({batches[0], batches[1], batches[2]}),
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

void resize_frame(const std::string& format, std::uintptr_t pixels, std::uintptr_t chroma,
                  const std::array<int64_t, 2>& size_hw, std::uintptr_t out,
                  const std::array<int64_t, 2>& out_hw, std::uintptr_t stream) {
  using cmlr::cuda::PixelFormat;
  if (format != "bgr" && format != "rgb" && format != "nv12")
    throw py::value_error("format is '" + format + "', expected bgr, rgb or nv12");
  cmlr::cuda::FrameParams params{};
  params.format = format == "bgr"   ? PixelFormat::kBgr
                  : format == "rgb" ? PixelFormat::kRgb
                                    : PixelFormat::kNv12;
  params.pixels = pointer<uint8_t>(pixels);
  params.chroma = pointer<uint8_t>(chroma);
  params.row = size_hw[1] * (format == "nv12" ? 1 : 3);
  params.chroma_row = size_hw[1];
  params.height = size_hw[0];
  params.width = size_hw[1];
  params.out = pointer<void>(out);
  params.out_height = out_hw[0];
  params.out_width = out_hw[1];
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
        "Enqueue the frame kernel on packed rows: uint8 (*out_hw, 3), RGB.");
}
