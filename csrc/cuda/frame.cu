// Launches the frame kernel: checks, choice of kernel, grid. As attention.cu, any C++ compiler
// compiles it for the emulation.
#include <cmath>
#include <stdexcept>
#include <string>

#include "cmlr/frame_cuda.h"
#include "cuda/frame.cuh"

namespace cmlr::cuda {
namespace {

constexpr int64_t kLargestSide = 1 << 14;

void require_frame(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument("resize_frame: " + message);
}

void require_valid(const FrameParams& p) {
  for (const int64_t side : {p.height, p.width, p.out_height, p.out_width})
    require_frame(
        side > 0 && side <= kLargestSide,
        "a side is " + std::to_string(side) + ", expected 1 to " + std::to_string(kLargestSide));
  const bool nv12 = p.format == PixelFormat::kNv12;
  require_frame(p.pixels && p.out && (p.chroma != nullptr) == nv12,
                "pixels and out must not be null, and chroma is for NV12 alone");
  require_frame(p.row >= p.width * (nv12 ? 1 : 3), "a row of " + std::to_string(p.width) +
                                                       " pixels does not fit into " +
                                                       std::to_string(p.row) + " bytes");
  require_frame(!nv12 || (p.height % 2 == 0 && p.width % 2 == 0 && p.chroma_row >= p.width),
                "NV12 needs even sides and chroma rows of at least the width, got " +
                    std::to_string(p.height) + " x " + std::to_string(p.width) + " and " +
                    std::to_string(p.chroma_row) + " bytes");
  require_frame(!p.normalized || reinterpret_cast<uintptr_t>(p.out) % sizeof(float) == 0,
                "a normalised out must be aligned to 4 bytes on the device");
  for (int c = 0; p.normalized && c < 3; ++c)
    require_frame(p.std[c] > 0 && std::isfinite(p.std[c]) && std::isfinite(p.mean[c]),
                  "every mean must be finite, and every std finite and above 0");
}

FrameArguments arguments_of(const FrameParams& p) {
  FrameArguments a{p.pixels,
                   p.chroma,
                   p.out,
                   p.row,
                   p.chroma_row,
                   static_cast<int>(p.height),
                   static_cast<int>(p.width),
                   static_cast<int>(p.out_height),
                   static_cast<int>(p.out_width),
                   p.format == PixelFormat::kBgr ? 2 : 0,
                   static_cast<double>(p.out_height) / static_cast<double>(p.height),
                   static_cast<double>(p.out_width) / static_cast<double>(p.width),
                   0,
                   0,
                   {},
                   {}};
  if (p.height % p.out_height == 0 && p.width % p.out_width == 0) {
    const int64_t rows = p.height / p.out_height, columns = p.width / p.out_width;
    a.whole = static_cast<int>(rows * columns);
    a.halves_up = rows == 2 && columns == 2;
  }
  for (int c = 0; p.normalized && c < 3; ++c) {
    a.factor[c] = 1.0f / (255.0f * p.std[c]);
    a.shift[c] = -p.mean[c] / p.std[c];
  }
  return a;
}

template <class Kernel>
void launch(Kernel kernel, const FrameParams& p, Stream stream) {
  const auto blocks = (p.out_width + kFrameThreads - 1) / kFrameThreads;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(p.out_height));
  CMLR_LAUNCH(kernel, grid, dim3(kFrameThreads), 0, stream, arguments_of(p));
#if defined(__CUDACC__)
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("resize_frame: the launch failed: ") +
                             cudaGetErrorString(error));
#endif
}

template <class Source>
void launch_source(const FrameParams& p, Stream stream) {
  if (p.normalized)
    launch(resize_frame_kernel<Source, true>, p, stream);
  else
    launch(resize_frame_kernel<Source, false>, p, stream);
}

}  // namespace

void resize_frame(const FrameParams& p, Stream stream) {
  require_valid(p);
  if (p.format == PixelFormat::kNv12)
    launch_source<Nv12>(p, stream);
  else
    launch_source<Packed>(p, stream);
}

}  // namespace cmlr::cuda
