// The plugin on a GPU without TensorRT: created, serialised, created again, attached, told the
// shapes, and enqueued on a stream and in a capture. As a TensorRT would, and nothing of it is
// here.
//
//   plugin_on_gpu LIBRARY QUERIES TOKENS DIM HEADS HALF < query, key and value > two outputs
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

using nvinfer1::DataType;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using Plugin = std::unique_ptr<nvinfer1::IPluginV3>;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s (CUDA: %s)\n", what, cudaGetErrorString(cudaGetLastError()));
  std::exit(1);
}
#define REQUIRE(condition) require((condition), #condition)

nvinfer1::IPluginV3OneRuntime& runtime_of(const Plugin& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneRuntime*>(
      plugin->getCapabilityInterface(nvinfer1::PluginCapabilityType::kRUNTIME));
}

// Through its serialised form, as an engine has it.
Plugin load(const char* library, int64_t heads, float scale) {
  void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  require(handle != nullptr, "dlopen of the plugin");
  using GetCreators = nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&);
  const auto creators = reinterpret_cast<GetCreators>(dlsym(handle, "getCreators"));
  REQUIRE(creators != nullptr);
  int32_t count = 0;
  auto& creator = *static_cast<nvinfer1::IPluginCreatorV3One*>(creators(count)[0]);
  const nvinfer1::PluginField fields[] = {{"num_heads", &heads, PluginFieldType::kINT64, 1},
                                          {"scale", &scale, PluginFieldType::kFLOAT32, 1}};
  const nvinfer1::PluginFieldCollection all{2, fields};
  const Plugin built(creator.createPlugin("node", &all, nvinfer1::TensorRTPhase::kBUILD));
  REQUIRE(built != nullptr);
  const Plugin loaded(creator.createPlugin("node", runtime_of(built).getFieldsToSerialize(),
                                           nvinfer1::TensorRTPhase::kRUNTIME));
  REQUIRE(loaded != nullptr);
  return Plugin(runtime_of(loaded).attachToContext(nullptr));
}

struct Launch {
  Plugin plugin;
  std::vector<PluginTensorDesc> tensors;  // three inputs, the output
  std::vector<void*> memory;
  size_t out_bytes = 0;

  bool enqueue(cudaStream_t stream) {
    return runtime_of(plugin).enqueue(tensors.data(), &tensors[3], memory.data(), &memory[3],
                                      nullptr, stream) == 0;
  }
  void write(cudaStream_t stream) {  // and poison what was there
    std::vector<char> out(out_bytes);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    REQUIRE(cudaMemcpy(out.data(), memory[3], out_bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
    REQUIRE(cudaMemset(memory[3], 0xff, out_bytes) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);  // `stream` does not wait for the default one
    std::fwrite(out.data(), 1, out_bytes, stdout);
  }
};

Launch prepare(char** arguments) {
  const int64_t queries = std::atoll(arguments[2]), tokens = std::atoll(arguments[3]),
                dim = std::atoll(arguments[4]), heads = std::atoll(arguments[5]);
  const bool half = std::atoi(arguments[6]) != 0;
  Launch launch{load(arguments[1], heads, 0.2f), {}, {}};
  for (const int64_t rows : {queries, tokens, tokens, queries}) {
    const auto bytes = static_cast<size_t>(rows * dim * (half ? 2 : 4));
    launch.tensors.push_back({{3, {1, rows, dim}},
                              half ? DataType::kHALF : DataType::kFLOAT,
                              nvinfer1::TensorFormat::kLINEAR,
                              1.0f});
    std::vector<char> content(bytes, '\xff');
    if (launch.memory.size() < 3) REQUIRE(std::fread(content.data(), 1, bytes, stdin) == bytes);
    void* memory = nullptr;
    REQUIRE(cudaMalloc(&memory, bytes) == cudaSuccess);
    REQUIRE(cudaMemcpy(memory, content.data(), bytes, cudaMemcpyHostToDevice) == cudaSuccess);
    launch.memory.push_back(memory);
    launch.out_bytes = bytes;
  }
  auto& runtime = runtime_of(launch.plugin);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);  // nor for copies of memory that is not pinned
  REQUIRE(runtime.onShapeChange(launch.tensors.data(), 3, &launch.tensors[3], 1) == 0);
  return launch;
}

}  // namespace

int main(int count, char** arguments) {
  require(count == 7, "six arguments");
  Launch launch = prepare(arguments);
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(launch.enqueue(stream));
  launch.write(stream);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  // A launch on any other stream ends this capture, or is not in the graph.
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  REQUIRE(launch.enqueue(stream));
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  size_t nodes = 0;
  REQUIRE(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
  REQUIRE(nodes == 1);
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  REQUIRE(cudaGraphLaunch(executable, stream) == cudaSuccess);
  launch.write(stream);
  return 0;
}
