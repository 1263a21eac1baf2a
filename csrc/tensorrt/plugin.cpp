// CmlrAttention as a TensorRT plugin: shapes, types and serialisation, then the launcher of cuda/.
//
// One binary for TensorRT 10 and 11: IPluginV3 alone, no call into libnvinfer and none to its
// registry, whose virtual tables differ between the two; those of its logger do too (host_log.h).
// TensorRT finds the two symbols at the end when it loads the library. Unverified on hardware.
#include <NvInferRuntime.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "cmlr/attention.h"
#include "cmlr/attention_cuda.h"
#include "tensorrt/host_log.h"

namespace {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

constexpr int kQuery = 0, kKey = 1, kValue = 2, kBias = 3;  // inputs; the bias may be missing
constexpr const char* kHeadsField = "num_heads";
constexpr const char* kScaleField = "scale";
constexpr const char* kInputsField = "num_inputs";  // only in engines, never on a node

void say(const char* message) noexcept {
  try {
    cmlr::log_error(message);
  } catch (...) {  // of the logger, which is the host's: nobody is left to tell
  }
}

// TensorRT takes no exception from a plugin: say what is wrong, and let the caller return an error.
template <class Work>
int32_t status_of(const Work& work) noexcept {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    say(error.what());
    return 1;
  }
}

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(std::string(cmlr::kAttentionName) + ": " + message);
}

struct Attributes {
  int64_t num_heads = 0;
  float scale = 0;
  int64_t num_inputs = 0;  // 3, or 4 with a bias; 0: TensorRT has not said yet
};

int64_t integer_of(const PluginField& field) {
  require(field.data && field.length == 1, std::string(field.name) + " should be one number");
  if (field.type == PluginFieldType::kINT32) return *static_cast<const int32_t*>(field.data);
  require(field.type == PluginFieldType::kINT64, std::string(field.name) + " should be an integer");
  return *static_cast<const int64_t*>(field.data);
}

float number_of(const PluginField& field) {
  require(field.data && field.length == 1 && field.type == PluginFieldType::kFLOAT32,
          std::string(field.name) + " should be one float32");
  return *static_cast<const float*>(field.data);
}

Attributes attributes_of(const nvinfer1::PluginFieldCollection* fields) {
  Attributes attributes;
  bool has_heads = false, has_scale = false;
  for (int i = 0; fields && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    if (!field.name) continue;
    if (std::strcmp(field.name, kHeadsField) == 0) {
      attributes.num_heads = integer_of(field);
      has_heads = true;
    } else if (std::strcmp(field.name, kScaleField) == 0) {
      attributes.scale = number_of(field);
      has_scale = true;
    } else if (std::strcmp(field.name, kInputsField) == 0) {
      attributes.num_inputs = integer_of(field);
    }
  }
  require(has_heads && has_scale, "the node needs the attributes num_heads and scale");
  require(attributes.num_heads > 0 && attributes.num_heads <= INT32_MAX,
          "num_heads is " + std::to_string(attributes.num_heads) + ", expected at least 1");
  require(attributes.scale - attributes.scale == 0, "scale is not finite");
  return attributes;
}

std::string text_of(const nvinfer1::Dims& dims) {
  std::string text = "(";
  for (int i = 0; i < std::min(dims.nbDims, int32_t{nvinfer1::Dims::MAX_DIMS}); ++i)
    text += (i ? ", " : "") + std::to_string(dims.d[i]);
  return text + ")";
}

// Sizes may be -1, for not yet known, until a shape is set.
bool same(int64_t a, int64_t b) { return a == b || a < 0 || b < 0; }

void require_shapes(const nvinfer1::Dims& query, const nvinfer1::Dims& key,
                    const nvinfer1::Dims& value, const nvinfer1::Dims* bias, int64_t num_heads) {
  const bool agree = query.nbDims == 3 && key.nbDims == 3 && value.nbDims == 3 &&
                     same(key.d[1], value.d[1]) && same(query.d[2], key.d[2]) &&
                     same(query.d[2], value.d[2]) &&
                     (!bias || (bias->nbDims == 1 && same(bias->d[0], key.d[1])));
  require(agree, "query (N, L, D), key (N, T, D), value (N, T, D) and key_bias (T) disagree: got " +
                     text_of(query) + ", " + text_of(key) + ", " + text_of(value) +
                     (bias ? ", " + text_of(*bias) : std::string()));
  const int64_t dim = query.d[2];
  require(dim > 0 && dim % num_heads == 0,
          std::to_string(num_heads) + " heads do not divide dim " + std::to_string(dim));
  const int64_t width = dim / num_heads;
  require(width == 32 || width == 64,
          "the plugin takes head widths 32 and 64, got " + std::to_string(width) +
              ": build without the plugin, or train with another embed_dim or num_heads");
}

void require_counts(int32_t inputs, int32_t outputs) {
  require((inputs == 3 || inputs == 4) && outputs == 1,
          "expected 3 or 4 inputs and 1 output, got " + std::to_string(inputs) + " and " +
              std::to_string(outputs));
}

int64_t batch_stride(const nvinfer1::Dims& dims, int64_t batch, const char* name) {
  require(dims.d[0] == batch || dims.d[0] == 1, std::string(name) + " has batch " +
                                                    std::to_string(dims.d[0]) + ", expected 1 or " +
                                                    std::to_string(batch));
  return dims.d[0] == 1 ? 0 : dims.d[1] * dims.d[2];
}

class AttentionPlugin final : public nvinfer1::IPluginV3,
                              public nvinfer1::IPluginV3OneCore,
                              public nvinfer1::IPluginV3OneBuild,
                              public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit AttentionPlugin(const Attributes& attributes)
      : num_heads_(static_cast<int32_t>(attributes.num_heads)),
        scale_(attributes.scale),
        num_inputs_(static_cast<int32_t>(attributes.num_inputs)),
        description_("num_heads=" + std::to_string(num_heads_) +
                     " scale=" + std::to_string(scale_)) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  nvinfer1::IPluginV3* clone() noexcept override {
    nvinfer1::IPluginV3* copy = nullptr;
    status_of([&] { copy = new AttentionPlugin({num_heads_, scale_, num_inputs_}); });
    return copy;
  }

  const char* getPluginName() const noexcept override { return cmlr::kAttentionName; }
  const char* getPluginVersion() const noexcept override { return cmlr::kAttentionVersion; }
  const char* getPluginNamespace() const noexcept override { return cmlr::kAttentionDomain; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* outputs, int32_t num_outputs, const DataType* inputs,
                             int32_t num_inputs) const noexcept override {
    return status_of([&] {
      require_counts(num_inputs, num_outputs);
      outputs[0] = inputs[kQuery];
    });
  }

  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t num_inputs,
                          const nvinfer1::DimsExprs*, int32_t, nvinfer1::DimsExprs* outputs,
                          int32_t num_outputs, nvinfer1::IExprBuilder& builder) noexcept override {
    return status_of([&] {
      require_counts(num_inputs, num_outputs);
      for (const int input : {kQuery, kKey, kValue})
        require(inputs[input].nbDims == 3, "query, key and value should have 3 dimensions, got " +
                                               std::to_string(inputs[input].nbDims));
      outputs[0] = inputs[kQuery];
      // The batch is that of any input that is not constant.
      for (const int input : {kKey, kValue}) {
        const nvinfer1::IDimensionExpr* other = inputs[input].d[0];
        if (other->isConstant() && other->getConstantValue() == 1) continue;
        const nvinfer1::IDimensionExpr* batch = outputs[0].d[0];
        const bool is_constant = batch->isConstant() && batch->getConstantValue() == 1;
        outputs[0].d[0] =
            is_constant ? other
                        : builder.operation(nvinfer1::DimensionOperation::kMAX, *batch, *other);
      }
    });
  }

  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t num_inputs, int32_t num_outputs) noexcept override {
    if ((num_inputs != 3 && num_inputs != 4) || num_outputs != 1) return false;
    const nvinfer1::PluginTensorDesc& tensor = tensors[position].desc;
    if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
    if (position == kQuery)
      return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF;
    const bool is_bias = num_inputs == 4 && position == kBias;
    return tensor.type == (is_bias ? DataType::kFLOAT : tensors[kQuery].desc.type);
  }

  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, int32_t num_inputs,
                          const nvinfer1::DynamicPluginTensorDesc*,
                          int32_t num_outputs) noexcept override {
    return status_of([&] {
      require_counts(num_inputs, num_outputs);
      require_shapes(in[kQuery].desc.dims, in[kKey].desc.dims, in[kValue].desc.dims,
                     num_inputs == 4 ? &in[kBias].desc.dims : nullptr, num_heads_);
      num_inputs_ = num_inputs;
    });
  }

  const char* getTimingCacheID() noexcept override { return description_.c_str(); }
  const char* getMetadataString() noexcept override { return description_.c_str(); }

  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* in, int32_t num_inputs,
                        const nvinfer1::PluginTensorDesc*, int32_t num_outputs) noexcept override {
    return status_of([&] {
      require_counts(num_inputs, num_outputs);
      require_shapes(in[kQuery].dims, in[kKey].dims, in[kValue].dims,
                     num_inputs == 4 ? &in[kBias].dims : nullptr, num_heads_);
      num_inputs_ = num_inputs;
    });
  }

  int32_t enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc* out,
                  const void* const* inputs, void* const* outputs, void*,
                  cudaStream_t stream) noexcept override {
    return status_of([&] {
      require(num_inputs_ == 3 || num_inputs_ == 4, "run before TensorRT gave it any shapes");
      const nvinfer1::Dims &query = in[kQuery].dims, &key = in[kKey].dims, &value = in[kValue].dims;
      const int64_t batch = out[0].dims.d[0];
      cmlr::cuda::AttentionParams p{};
      p.element = in[kQuery].type == DataType::kHALF ? cmlr::cuda::Element::kFloat16
                                                     : cmlr::cuda::Element::kFloat32;
      p.query = inputs[kQuery];
      p.key = inputs[kKey];
      p.value = inputs[kValue];
      p.key_bias = num_inputs_ == 4 ? static_cast<const float*>(inputs[kBias]) : nullptr;
      p.out = outputs[0];
      p.batch = batch;
      p.num_queries = query.d[1];
      p.num_tokens = key.d[1];
      p.dim = query.d[2];
      p.num_heads = num_heads_;
      p.scale = scale_;
      p.query_batch_stride = batch_stride(query, batch, "query");
      p.key_batch_stride = batch_stride(key, batch, "key");
      p.value_batch_stride = batch_stride(value, batch, "value");
      cmlr::cuda::attention(p, stream);
    });
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return clone();
  }

  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    fields_ = {PluginField(kHeadsField, &num_heads_, PluginFieldType::kINT32, 1),
               PluginField(kScaleField, &scale_, PluginFieldType::kFLOAT32, 1),
               PluginField(kInputsField, &num_inputs_, PluginFieldType::kINT32, 1)};
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    return &collection_;
  }

 private:
  int32_t num_heads_;
  float scale_;
  int32_t num_inputs_;  // enqueue is not told: kept from what came before, at build or at run time
  std::string description_;
  std::array<PluginField, 3> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

class AttentionCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  const char* getPluginName() const noexcept override { return cmlr::kAttentionName; }
  const char* getPluginVersion() const noexcept override { return cmlr::kAttentionVersion; }
  const char* getPluginNamespace() const noexcept override { return cmlr::kAttentionDomain; }

  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    nvinfer1::IPluginV3* plugin = nullptr;
    status_of([&] { plugin = new AttentionPlugin(attributes_of(fields)); });
    return plugin;
  }

 private:
  const std::array<PluginField, 2> fields_{
      PluginField(kHeadsField, nullptr, PluginFieldType::kINT32, 1),
      PluginField(kScaleField, nullptr, PluginFieldType::kFLOAT32, 1)};
  const nvinfer1::PluginFieldCollection collection_{static_cast<int32_t>(fields_.size()),
                                                    fields_.data()};
};

}  // namespace

#define CMLR_EXPORT extern "C" __attribute__((visibility("default")))

// TensorRT says where its logger is.
CMLR_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  cmlr::host_logger_finder = finder;
}

// TensorRT registers these.
CMLR_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static AttentionCreator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}
