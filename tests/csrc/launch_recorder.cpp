// What nvcc's own code asks CUDA's run time for when a kernel is launched: linked with the library
// that nvcc compiled, and with a run time that writes launches down instead. Needs no GPU.
#include <cstdint>
#include <cstdio>
#include <initializer_list>

#include "cmlr/attention_cuda.h"
#include "cmlr/frame_cuda.h"

namespace {

struct Size {  // as CUDA's dim3
  unsigned x, y, z;
};
struct Configuration {
  Size grid, block;
  size_t shared_bytes;
  void* stream;
} pushed;

int record(Size grid, Size block, size_t shared_bytes, void* stream) {
  std::printf("%u,%u,%u %u %zu %p\n", grid.x, grid.y, grid.z, block.x, shared_bytes, stream);
  return 0;
}

}  // namespace

extern "C" {
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*,
                            void*, int*) {}
unsigned __cudaPushCallConfiguration(Size grid, Size block, size_t shared_bytes, void* stream) {
  pushed = {grid, block, shared_bytes, stream};
  return 0;
}
int __cudaPopCallConfiguration(Size* grid, Size* block, size_t* shared_bytes, void** stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared_bytes = pushed.shared_bytes;
  *stream = pushed.stream;
  return 0;
}
int __cudaGetKernel(void**, const void*) { return 0; }
int __cudaLaunchKernel(void*, Size grid, Size block, void**, size_t shared_bytes, void* stream) {
  return record(grid, block, shared_bytes, stream);
}
int cudaLaunchKernel(const void*, Size grid, Size block, void**, size_t shared_bytes,
                     void* stream) {  // of CUDA 12
  return record(grid, block, shared_bytes, stream);
}
int cudaGetLastError() { return 0; }
const char* cudaGetErrorString(int) { return ""; }
}

int main() {
  alignas(16) static char memory[64];
  const auto stream = reinterpret_cast<cmlr::cuda::Stream>(0x5eed);
  for (const auto element : {cmlr::cuda::Element::kFloat32, cmlr::cuda::Element::kFloat16})
    for (const int64_t tokens : {20, 40, 60, 90, 120, 180, 250, 300})
      for (const int64_t heads : {2, 1}) {
        cmlr::cuda::AttentionParams p{};
        p.element = element;
        p.query = p.key = p.value = memory;
        p.out = memory;
        p.batch = 3;
        p.num_queries = 33;
        p.num_tokens = tokens;
        p.dim = 64;
        p.num_heads = heads;
        cmlr::cuda::attention(p, stream);
      }
  for (const bool normalized : {false, true})
    for (const auto format : {cmlr::cuda::PixelFormat::kRgb, cmlr::cuda::PixelFormat::kNv12}) {
      const bool nv12 = format == cmlr::cuda::PixelFormat::kNv12;
      const auto* bytes = reinterpret_cast<const uint8_t*>(memory);
      cmlr::cuda::FrameParams p{};
      p.format = format;
      p.pixels = bytes;
      p.chroma = nv12 ? bytes : nullptr;
      p.row = 60;
      p.chroma_row = 20;
      p.height = 4;
      p.width = 20;
      p.out = memory;
      p.normalized = normalized;
      p.out_height = 5;
      p.out_width = 200;
      for (float& std : p.std) std = 1.0f;
      cmlr::cuda::resize_frame(p, stream);
    }
}
