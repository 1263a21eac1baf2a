// The plugin as TensorRT would use it, without TensorRT: each check is one argument.
//
// TensorRT's expressions are made of implementation objects; these here hold numbers and names.
#include <NvInferRuntime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cmlr/attention_cuda.h"

extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

// Instead of the launcher: what the plugin asks for.
static cmlr::cuda::AttentionParams launched;
static cmlr::cuda::Stream launched_on;
void cmlr::cuda::attention(const AttentionParams& params, Stream stream) {
  if (params.batch == 13) throw std::runtime_error("the launch failed");
  launched = params;
  launched_on = stream;
}

namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorFormat;
using Plugin = std::unique_ptr<nvinfer1::IPluginV3>;

int failures = 0;

void check(bool holds, const char* what, int line) {
  if (holds) return;
  std::fprintf(stderr, "line %d: %s\n", line, what);
  ++failures;
}
#define CHECK(condition) check((condition), #condition, __LINE__)

struct Log final : nvinfer1::ILogger, nvinfer1::ILoggerFinder {
  std::string last;
  void log(Severity, const char* message) noexcept override { last = message; }
  nvinfer1::ILogger* findLogger() override { return this; }
};
Log logged;

bool says(const char* part) { return logged.last.find(part) != std::string::npos; }

// A size that is a number, or a name: "N", "max(N,M)".
class Size final : public nvinfer1::IDimensionExpr, public nvinfer1::apiv::VDimensionExpr {
 public:
  explicit Size(std::string name) : name(std::move(name)) { mImpl = this; }
  ~Size() noexcept override = default;
  bool isConstant() const override { return name.find_first_not_of("0123456789") == name.npos; }
  int64_t getConstantValue() const override { return std::stoll(name); }
  bool isSizeTensor() const noexcept override { return false; }
  const std::string name;
};

class Builder final : public nvinfer1::IExprBuilder, public nvinfer1::apiv::VExprBuilder {
 public:
  Builder() { mImpl = this; }
  ~Builder() noexcept override = default;
  const nvinfer1::IDimensionExpr* named(const std::string& name) {
    return &sizes_.emplace_back(name);
  }
  const nvinfer1::IDimensionExpr* constant(int64_t value) override {
    return named(std::to_string(value));
  }
  const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation op,
                                            const nvinfer1::IDimensionExpr& a,
                                            const nvinfer1::IDimensionExpr& b) override {
    CHECK(op == nvinfer1::DimensionOperation::kMAX);
    return named("max(" + name_of(a) + "," + name_of(b) + ")");
  }
  const nvinfer1::IDimensionExpr* declareSizeTensor(int32_t, const nvinfer1::IDimensionExpr&,
                                                    const nvinfer1::IDimensionExpr&) override {
    return nullptr;
  }
  static const std::string& name_of(const nvinfer1::IDimensionExpr& size) {
    return static_cast<const Size&>(size).name;
  }
  DimsExprs shape(const std::vector<std::string>& names) {
    DimsExprs dims{static_cast<int32_t>(names.size()), {}};
    for (size_t i = 0; i < names.size(); ++i) dims.d[i] = named(names[i]);
    return dims;
  }

 private:
  std::deque<Size> sizes_;
};

nvinfer1::IPluginCreatorV3One& creator() {
  int32_t count = 0;
  auto* const* creators = getCreators(count);
  CHECK(count == 1);
  return *static_cast<nvinfer1::IPluginCreatorV3One*>(creators[0]);
}

Plugin create(const std::vector<PluginField>& fields) {
  const nvinfer1::PluginFieldCollection all{static_cast<int32_t>(fields.size()), fields.data()};
  return Plugin(creator().createPlugin("node", &all, nvinfer1::TensorRTPhase::kBUILD));
}

// A stream that is no other: whoever drops it, or takes another, is seen.
cudaStream_t const kStream = reinterpret_cast<cudaStream_t>(0x5eed);
const int32_t kHeads = 2;
const float kScale = 0.25f;

std::vector<PluginField> good_fields() {
  return {{"num_heads", &kHeads, PluginFieldType::kINT32, 1},
          {"scale", &kScale, PluginFieldType::kFLOAT32, 1}};
}

Plugin good() { return create(good_fields()); }

nvinfer1::IPluginV3OneBuild& build_of(Plugin& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneBuild*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
}
nvinfer1::IPluginV3OneRuntime& runtime_of(Plugin& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneRuntime*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

Dims dims_of(const std::vector<int64_t>& sizes) {
  Dims dims{static_cast<int32_t>(sizes.size()), {}};
  for (size_t i = 0; i < sizes.size(); ++i) dims.d[i] = sizes[i];
  return dims;
}

DynamicPluginTensorDesc tensor(const std::vector<int64_t>& sizes, DataType type = DataType::kFLOAT,
                               TensorFormat format = TensorFormat::kLINEAR) {
  const Dims dims = dims_of(sizes);
  return {{dims, type, format, 1.0f}, dims, dims, dims};
}

void names() {
  const auto& fields = *creator().getFieldNames();
  CHECK(std::string(creator().getPluginName()) == "CmlrAttention");
  CHECK(std::string(creator().getPluginVersion()) == "1");
  CHECK(std::string(creator().getPluginNamespace()) == "cmlr");
  CHECK(fields.nbFields == 2);
  CHECK(std::string(fields.fields[0].name) == "num_heads");
  CHECK(std::string(fields.fields[1].name) == "scale");
  Plugin plugin = good();
  auto& core = *static_cast<nvinfer1::IPluginV3OneCore*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
  CHECK(std::string(core.getPluginName()) == creator().getPluginName());
  CHECK(std::string(core.getPluginVersion()) == creator().getPluginVersion());
  CHECK(std::string(core.getPluginNamespace()) == creator().getPluginNamespace());
  CHECK(build_of(plugin).getNbOutputs() == 1);
}

// What was timed for one is not taken for another.
void timing_cache() {
  const int32_t other_heads = 4;
  const float other_scale = 0.5f;
  auto heads = good_fields(), scale = good_fields();
  heads[0].data = &other_heads;
  scale[1].data = &other_scale;
  const auto id = [](Plugin plugin) -> std::string { return build_of(plugin).getTimingCacheID(); };
  CHECK(id(good()) == id(good()));
  CHECK(id(good()) != id(create(heads)));
  CHECK(id(good()) != id(create(scale)));
}

void attributes() {
  const int64_t wide = 8, none = 0;
  const float infinite = std::numeric_limits<float>::infinity();
  auto fields = good_fields();
  CHECK(create(fields) != nullptr);
  fields[0] = {"num_heads", &wide, PluginFieldType::kINT64, 1};
  CHECK(create(fields) != nullptr);
  fields[0] = {"num_heads", &none, PluginFieldType::kINT64, 1};
  CHECK(create(fields) == nullptr && says("num_heads is 0, expected at least 1"));
  fields[0] = {"num_heads", &kScale, PluginFieldType::kFLOAT32, 1};
  CHECK(create(fields) == nullptr && says("num_heads should be an integer"));
  fields[0] = {"num_heads", &wide, PluginFieldType::kINT32, 2};
  CHECK(create(fields) == nullptr && says("num_heads should be one number"));
  fields[0] = {"num_heads", nullptr, PluginFieldType::kINT32, 1};
  CHECK(create(fields) == nullptr && says("num_heads should be one number"));
  fields[0] = good_fields()[0];
  fields[1] = {"scale", &infinite, PluginFieldType::kFLOAT32, 1};
  CHECK(create(fields) == nullptr && says("scale is not finite"));
  fields.pop_back();
  CHECK(create(fields) == nullptr && says("needs the attributes num_heads and scale"));
  CHECK(creator().createPlugin("node", nullptr, nvinfer1::TensorRTPhase::kRUNTIME) == nullptr);
}

std::string batch_of(Plugin& plugin, const char* query, const char* key, const char* value) {
  Builder builder;
  const std::vector<DimsExprs> inputs = {builder.shape({query, "80", "64"}),
                                         builder.shape({key, "196", "64"}),
                                         builder.shape({value, "196", "64"})};
  DimsExprs out{};
  CHECK(build_of(plugin).getOutputShapes(inputs.data(), 3, nullptr, 0, &out, 1, builder) == 0);
  CHECK(out.nbDims == 3);
  CHECK(Builder::name_of(*out.d[1]) == "80");
  CHECK(Builder::name_of(*out.d[2]) == "64");
  return Builder::name_of(*out.d[0]);
}

void shapes() {
  Plugin plugin = good();
  CHECK(batch_of(plugin, "1", "N", "N") == "max(N,N)");
  CHECK(batch_of(plugin, "N", "1", "1") == "N");
  CHECK(batch_of(plugin, "1", "1", "N") == "N");
  CHECK(batch_of(plugin, "1", "1", "1") == "1");
  CHECK(batch_of(plugin, "N", "N", "N") == "max(max(N,N),N)");
  Builder builder;
  const std::vector<DimsExprs> flat(3, builder.shape({"80", "64"}));
  DimsExprs out{};
  auto& build = build_of(plugin);
  CHECK(build.getOutputShapes(flat.data(), 3, nullptr, 0, &out, 1, builder) != 0);
  CHECK(says("should have 3 dimensions, got 2"));
  CHECK(build.getOutputShapes(flat.data(), 2, nullptr, 0, &out, 1, builder) != 0);
  CHECK(says("expected 3 or 4 inputs and 1 output, got 2 and 1"));
}

void types() {
  Plugin plugin = good();
  for (const DataType type : {DataType::kFLOAT, DataType::kHALF}) {
    const std::vector<DataType> inputs = {type, type, type, DataType::kFLOAT};
    DataType out{};
    CHECK(build_of(plugin).getOutputDataTypes(&out, 1, inputs.data(), 4) == 0);
    CHECK(out == type);
  }
}

bool supported(Plugin& plugin, const std::vector<DynamicPluginTensorDesc>& tensors) {
  bool all = true;
  const int32_t inputs = static_cast<int32_t>(tensors.size()) - 1;
  for (int32_t i = 0; i <= inputs; ++i) {
    // TensorRT leaves the descriptions behind the asked one undefined: none may be read.
    const std::vector<DynamicPluginTensorDesc> known(tensors.begin(), tensors.begin() + i + 1);
    all = all && build_of(plugin).supportsFormatCombination(i, known.data(), inputs, 1);
  }
  return all;
}

void formats() {
  Plugin plugin = good();
  const auto wide = tensor({1, 5, 64}), bias = tensor({7});
  const auto half = tensor({1, 5, 64}, DataType::kHALF);
  const auto half_bias = tensor({7}, DataType::kHALF);
  const auto small = tensor({1, 5, 64}, DataType::kINT8);
  const auto packed = tensor({1, 5, 64}, DataType::kHALF, TensorFormat::kHWC8);
  CHECK(supported(plugin, {wide, wide, wide, wide}));
  CHECK(supported(plugin, {half, half, half, half}));
  CHECK(supported(plugin, {half, half, half, bias, half}));
  CHECK(!supported(plugin, {half, half, half, half_bias, half}));
  CHECK(!supported(plugin, {half, wide, half, half}));
  CHECK(!supported(plugin, {half, half, half, wide}));
  CHECK(!supported(plugin, {small, small, small, small}));
  CHECK(!supported(plugin, {packed, packed, packed, packed}));
}

bool configures(Plugin& plugin, const std::vector<DynamicPluginTensorDesc>& in) {
  const auto out = tensor({-1, 5, 64});
  const auto inputs = static_cast<int32_t>(in.size());
  const bool at_build = build_of(plugin).configurePlugin(in.data(), inputs, &out, 1) == 0;
  std::vector<nvinfer1::PluginTensorDesc> plain;
  for (const auto& tensor : in) plain.push_back(tensor.desc);
  const bool at_run = runtime_of(plugin).onShapeChange(plain.data(), inputs, &out.desc, 1) == 0;
  CHECK(at_build == at_run);
  return at_build;
}

void configuration() {
  Plugin plugin = good();
  const auto query = tensor({1, 5, 64}), key = tensor({-1, 7, 64}), bias = tensor({7});
  CHECK(configures(plugin, {query, key, key}));
  CHECK(configures(plugin, {query, key, key, bias}));
  CHECK(configures(plugin, {tensor({-1, -1, 64}), key, tensor({-1, -1, 64})}));
  CHECK(!configures(plugin, {query, key, tensor({-1, 8, 64})}));
  CHECK(says("disagree: got (1, 5, 64), (-1, 7, 64), (-1, 8, 64)"));
  CHECK(!configures(plugin, {query, key, key, tensor({8})}));
  CHECK(!configures(plugin, {query, tensor({-1, 7, 32}), key}));
  CHECK(!configures(plugin, {tensor({5, 64}), key, key}));
  const auto narrow = tensor({1, 5, 32});
  CHECK(!configures(plugin, {narrow, narrow, narrow}));
  CHECK(says("takes head widths 32 and 64, got 16"));
  const auto odd = tensor({1, 5, 63});
  CHECK(!configures(plugin, {odd, odd, odd}) && says("2 heads do not divide dim 63"));
}

void launch() {
  Plugin plugin = good();
  auto& runtime = runtime_of(plugin);
  const auto half = [](const std::vector<int64_t>& sizes) {
    return tensor(sizes, DataType::kHALF).desc;
  };
  const nvinfer1::PluginTensorDesc in[] = {half({1, 5, 64}), half({3, 7, 64}), half({3, 7, 64}),
                                           tensor({7}).desc};
  nvinfer1::PluginTensorDesc out = half({3, 5, 64});
  const char memory[5] = {};
  const void* const inputs[] = {memory, memory + 1, memory + 2, memory + 3};
  void* const outputs[] = {const_cast<char*>(memory) + 4};
  CHECK(runtime.enqueue(in, &out, inputs, outputs, nullptr, kStream) != 0);
  CHECK(says("run before TensorRT gave it any shapes"));
  CHECK(runtime.onShapeChange(in, 4, &out, 1) == 0);
  CHECK(runtime.enqueue(in, &out, inputs, outputs, nullptr, kStream) == 0);
  CHECK(launched_on == kStream);
  const auto& p = launched;
  CHECK(p.element == cmlr::cuda::Element::kFloat16);
  CHECK(p.query == inputs[0] && p.key == inputs[1] && p.value == inputs[2]);
  CHECK(static_cast<const void*>(p.key_bias) == inputs[3] && p.out == outputs[0]);
  CHECK(p.batch == 3 && p.num_queries == 5 && p.num_tokens == 7 && p.dim == 64);
  CHECK(p.num_heads == kHeads && p.scale == kScale);
  CHECK(p.query_batch_stride == 0 && p.key_batch_stride == 448 && p.value_batch_stride == 448);
  CHECK(runtime.onShapeChange(in, 3, &out, 1) == 0);
  CHECK(runtime.enqueue(in, &out, inputs, outputs, nullptr, kStream) == 0);
  CHECK(p.key_bias == nullptr);
  const nvinfer1::PluginTensorDesc shared[] = {half({1, 5, 64}), half({3, 7, 64}),
                                               half({1, 7, 64})};
  CHECK(runtime.enqueue(shared, &out, inputs, outputs, nullptr, kStream) == 0);
  CHECK(p.key_batch_stride == 448 && p.value_batch_stride == 0);
  out = half({2, 5, 64});
  CHECK(runtime.enqueue(in, &out, inputs, outputs, nullptr, kStream) != 0);
  CHECK(says("key has batch 3, expected 1 or 2"));
  const nvinfer1::PluginTensorDesc many[] = {half({13, 5, 64}), half({13, 7, 64}),
                                             half({13, 7, 64})};
  CHECK(runtime.enqueue(many, &many[0], inputs, outputs, nullptr, kStream) != 0);
  CHECK(says("the launch failed"));
}

void serialised() {
  Plugin first = good();
  Plugin copy(first->clone());
  const auto query = tensor({1, 5, 64}), key = tensor({1, 7, 64}), bias = tensor({7});
  CHECK(configures(copy, {query, key, key, bias}));
  first.reset();  // a clone, and what it serialises, live on their own
  const nvinfer1::PluginFieldCollection* fields = runtime_of(copy).getFieldsToSerialize();
  CHECK(fields->nbFields == 3);
  CHECK(*static_cast<const int32_t*>(fields->fields[0].data) == kHeads);
  CHECK(*static_cast<const float*>(fields->fields[1].data) == kScale);
  Plugin again(creator().createPlugin("node", fields, nvinfer1::TensorRTPhase::kRUNTIME));
  copy.reset();
  CHECK(again != nullptr);
  CHECK(std::string(build_of(again).getMetadataString()) == "num_heads=2 scale=0.250000");
  Plugin attached(runtime_of(again).attachToContext(nullptr));
  CHECK(attached != nullptr);
  // What was known at build time, that there is a bias, is known to the engine.
  const nvinfer1::PluginTensorDesc in[] = {query.desc, key.desc, key.desc, bias.desc};
  const char memory[4] = {};
  const void* const inputs[] = {memory, memory, memory, memory + 3};
  void* const outputs[] = {const_cast<char*>(memory) + 1};
  CHECK(runtime_of(attached).enqueue(in, in, inputs, outputs, nullptr, kStream) == 0);
  CHECK(static_cast<const void*>(launched.key_bias) == memory + 3);
  CHECK(build_of(attached).getWorkspaceSize(nullptr, 4, nullptr, 1) == 0);
}

}  // namespace

int main(int count, char** arguments) {
  const std::pair<const char*, void (*)()> checks[] = {
      {"names", names},   {"attributes", attributes}, {"shapes", shapes},
      {"types", types},   {"formats", formats},       {"configuration", configuration},
      {"launch", launch}, {"serialised", serialised}, {"timing_cache", timing_cache}};
  setLoggerFinder(&logged);
  int found = 0;
  for (const auto& [name, run] : checks)
    if (count == 2 && std::strcmp(arguments[1], name) == 0) ++found, run();
  setLoggerFinder(nullptr);
  return found == 1 && failures == 0 ? 0 : 1;
}
