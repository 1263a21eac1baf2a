// Runs a case of CmlrAttention through the plugin, as an engine would: created from the node's
// fields, serialised, created again, attached to a context, told the shapes, and enqueued on the
// emulated GPU. Case on standard input, output on standard output.
#include <NvInferRuntime.h>

#include <memory>
#include <vector>

#include "emulation/options.h"
#include "emulation/programs/case.h"

extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

namespace {

using nvinfer1::DataType;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using Plugin = std::unique_ptr<nvinfer1::IPluginV3>;

cudaStream_t const kStream = reinterpret_cast<cudaStream_t>(0x5eed);

struct Log final : nvinfer1::ILogger, nvinfer1::ILoggerFinder {
  void log(Severity, const char* message) noexcept override {
    std::fprintf(stderr, "%s\n", message);
  }
  nvinfer1::ILogger* findLogger() override { return this; }
};

nvinfer1::IPluginV3OneRuntime& runtime_of(const Plugin& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneRuntime*>(
      plugin->getCapabilityInterface(nvinfer1::PluginCapabilityType::kRUNTIME));
}

Plugin from_engine(const Case& c) {
  int32_t count = 0;
  auto& creator = *static_cast<nvinfer1::IPluginCreatorV3One*>(getCreators(count)[0]);
  const auto scale = static_cast<float>(c.scale);
  const nvinfer1::PluginField fields[] = {{"num_heads", &c.num_heads, PluginFieldType::kINT64, 1},
                                          {"scale", &scale, PluginFieldType::kFLOAT32, 1}};
  const nvinfer1::PluginFieldCollection all{2, fields};
  const Plugin built(creator.createPlugin("node", &all, nvinfer1::TensorRTPhase::kBUILD));
  if (!built) std::exit(1);
  const Plugin loaded(creator.createPlugin("node", runtime_of(built).getFieldsToSerialize(),
                                           nvinfer1::TensorRTPhase::kRUNTIME));
  return Plugin(runtime_of(loaded).attachToContext(nullptr));
}

PluginTensorDesc tensor(DataType type, int64_t batch, int64_t rows, int64_t dim) {
  return {{3, {batch, rows, dim}}, type, nvinfer1::TensorFormat::kLINEAR, 1.0f};
}

int run(const Case& c) {
  const DataType type = c.is_half ? DataType::kHALF : DataType::kFLOAT;
  const auto bytes = [&](const PluginTensorDesc& t) {
    return static_cast<size_t>(t.dims.d[0] * t.dims.d[1] * t.dims.d[2] * (c.is_half ? 2 : 4));
  };
  std::vector<PluginTensorDesc> in = {tensor(type, c.query_batch, c.num_queries, c.dim),
                                      tensor(type, c.key_batch, c.num_tokens, c.dim),
                                      tensor(type, c.value_batch, c.num_tokens, c.dim)};
  std::vector<Buffer> buffers;
  for (const PluginTensorDesc& input : in) buffers.push_back(read_buffer(bytes(input)));
  if (c.has_bias) {
    in.push_back({{1, {c.num_tokens}}, DataType::kFLOAT, nvinfer1::TensorFormat::kLINEAR, 1.0f});
    buffers.push_back(read_buffer(static_cast<size_t>(c.num_tokens) * sizeof(float)));
  }
  const PluginTensorDesc out = tensor(type, c.batch, c.num_queries, c.dim);
  const Buffer result = allocate(bytes(out));
  std::vector<const void*> inputs;
  for (const Buffer& buffer : buffers) inputs.push_back(buffer.get());
  void* const outputs[] = {result.get()};

  const Plugin plugin = from_engine(c);
  auto& runtime = runtime_of(plugin);
  const auto num_inputs = static_cast<int32_t>(in.size());
  if (runtime.onShapeChange(in.data(), num_inputs, &out, 1) != 0) return 1;
  if (runtime.enqueue(in.data(), &out, inputs.data(), outputs, nullptr, kStream) != 0) return 1;
  std::fwrite(result.get(), 1, bytes(out), stdout);
  return 0;
}

}  // namespace

int main() {
  static Log log;
  setLoggerFinder(&log);
  emulation::options.stream = kStream;
  const Buffer header = read_buffer(sizeof(Case));
  return run(*static_cast<const Case*>(header.get()));
}
