// pybind11 bindings: shapes and NumPy views only. No arithmetic here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "cmlr/attention.h"
#include "cmlr/resize.h"
#include "loss_log.h"

namespace py = pybind11;
using Array = py::array_t<float, py::array::c_style>;

namespace {

std::string shape_of(const py::array& array) { return py::str(array.attr("shape")); }

// Another dtype or layout is an error that says so, never a silent copy.
Array float_array(const py::array& array, const char* name) {
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  if (!py::isinstance<Array>(array) || address % alignof(float) != 0)
    throw py::type_error(std::string(name) + " should be aligned C-contiguous float32, got " +
                         std::string(py::str(array.dtype())) + " of shape " + shape_of(array) +
                         " and strides " + std::string(py::str(array.attr("strides"))) +
                         ": pass numpy.ascontiguousarray(x, numpy.float32)");
  return py::reinterpret_borrow<Array>(array);
}

void require_rank(const Array& array, int rank, const char* name, const char* wanted) {
  if (array.ndim() != rank)
    throw py::value_error(std::string(name) + " should be " + wanted + ", got " + shape_of(array));
}

int64_t batch_of(const Array& query, const Array& key, const Array& value) {
  const int64_t batch = std::max({query.shape(0), key.shape(0), value.shape(0)});
  for (const Array* array : {&query, &key, &value})
    if (array->shape(0) != batch && array->shape(0) != 1)
      throw py::value_error("every batch should be 1 or " + std::to_string(batch) + ", got " +
                            shape_of(query) + ", " + shape_of(key) + ", " + shape_of(value));
  return batch;
}

int64_t batch_stride(const Array& array) {
  return array.shape(0) == 1 ? 0 : array.shape(1) * array.shape(2);
}

void require_shapes(const Array& query, const Array& key, const Array& value) {
  require_rank(query, 3, "query", "(N, L, D)");
  require_rank(key, 3, "key", "(N, T, D)");
  require_rank(value, 3, "value", "(N, T, D)");
  if (key.shape(2) != query.shape(2) || value.shape(2) != query.shape(2) ||
      key.shape(1) != value.shape(1))
    throw py::value_error("query (N, L, D), key (N, T, D) and value (N, T, D) disagree: got " +
                          shape_of(query) + ", " + shape_of(key) + ", " + shape_of(value));
}

Array attention(const py::array& any_query, const py::array& any_key, const py::array& any_value,
                int64_t num_heads, float scale, const std::optional<py::array>& any_bias) {
  const Array query = float_array(any_query, "query"), key = float_array(any_key, "key"),
              value = float_array(any_value, "value");
  std::optional<Array> key_bias;
  if (any_bias) key_bias = float_array(*any_bias, "key_bias");
  require_shapes(query, key, value);
  if (key_bias && (key_bias->ndim() != 1 || key_bias->shape(0) != key.shape(1)))
    throw py::value_error("key_bias should be (" + std::to_string(key.shape(1)) + ",), got " +
                          shape_of(*key_bias));
  const int64_t batch = batch_of(query, key, value);
  Array out({batch, static_cast<int64_t>(query.shape(1)), static_cast<int64_t>(query.shape(2))});
  const cmlr::AttentionParams params{query.data(),
                                     key.data(),
                                     value.data(),
                                     key_bias ? key_bias->data() : nullptr,
                                     out.mutable_data(),
                                     batch,
                                     query.shape(1),
                                     key.shape(1),
                                     query.shape(2),
                                     num_heads,
                                     scale,
                                     batch_stride(query),
                                     batch_stride(key),
                                     batch_stride(value)};
  {
    py::gil_scoped_release release;
    cmlr::attention(params);
  }
  return out;
}

using Pixels = py::array_t<uint8_t>;

// (H, W, 3); rows may lie apart, as in a cut-out, pixels and channels not.
void require_pixels(const py::array& array, const char* name) {
  if (!py::isinstance<Pixels>(array) || array.ndim() != 3 || array.shape(2) != 3 ||
      array.strides(2) != 1 || array.strides(1) != 3)
    throw py::type_error(std::string(name) +
                         " should be uint8 (H, W, 3) with pixels in a row, got " +
                         std::string(py::str(array.dtype())) + " of shape " + shape_of(array) +
                         " and strides " + std::string(py::str(array.attr("strides"))));
}

void resize_area(const py::array& source, py::array out, bool swap_channels,
                 const std::optional<std::string>& instruction_set) {
  require_pixels(source, "source");
  require_pixels(out, "out");
  if (out.strides(0) != 3 * out.shape(1))
    throw py::type_error("out should be contiguous, its rows lie apart");
  const cmlr::ResizeAreaParams params{static_cast<const uint8_t*>(source.data()),
                                      static_cast<uint8_t*>(out.mutable_data()),
                                      source.shape(0),
                                      source.shape(1),
                                      source.strides(0),
                                      out.shape(0),
                                      out.shape(1),
                                      swap_channels,
                                      instruction_set ? instruction_set->c_str() : nullptr};
  py::gil_scoped_release release;
  cmlr::resize_area(params);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native operators of cmlr_edge.";
  m.attr("ATTENTION_NAME") = cmlr::kAttentionName;
  m.attr("ATTENTION_DOMAIN") = cmlr::kAttentionDomain;
  m.attr("ATTENTION_VERSION") = cmlr::kAttentionVersion;
  m.def(
      "attention", &attention, py::arg("query").noconvert(), py::arg("key").noconvert(),
      py::arg("value").noconvert(), py::kw_only(), py::arg("num_heads"), py::arg("scale"),
      py::arg("key_bias").noconvert() = py::none(),
      "CmlrAttention on the CPU: query (1|N, L, D), key and value (1|N, T, D), key_bias (T,), all "
      "C-contiguous float32 -> (N, L, D).");
  m.def("resize_area", &resize_area, py::arg("source").noconvert(), py::arg("out").noconvert(),
        py::kw_only(), py::arg("swap_channels"), py::arg("instruction_set") = py::none(),
        "Shrinks uint8 (H, W, 3) to the size of `out` by area means, as OpenCV's INTER_AREA does.");
  m.def("resize_instruction_sets", &cmlr::resize_instruction_sets,
        "What `resize_area` can be told to use on this machine, the fastest first.");
  m.attr("READ_LOSS_LOG") = reinterpret_cast<std::uintptr_t>(&cmlr::read_loss_log);
  m.def(
      "lost_rtp_packets", [] { return cmlr::losses().rtp_packets; },
      "Packets of RTP that the calling thread missed, where FFmpeg logs to READ_LOSS_LOG.");
  m.def(
      "lost_references", [] { return cmlr::losses().lost_references; },
      "Times that a picture of HEVC lacked one that it builds upon, likewise.");
}
