// Runs the frame kernel on the emulated GPU: a case on standard input, the result on standard
// output. Every buffer has its exact size, so that a sanitizer sees any access outside.
//
//   frame_runner [misaligned]
//
// misaligned: the result begins between two floats' places.
#include <exception>

#include "cmlr/frame_cuda.h"
#include "emulation/machine.h"
#include "emulation/programs/case.h"

namespace {

struct FrameCase {  // as emulated_gpu.py writes it
  int64_t format, height, width, row, chroma_row, out_height, out_width, normalized;
  double mean[3], std[3];
};

void run(const FrameCase& c, bool misaligned) {
  const bool nv12 = c.format == 2;
  // The last row ends with its last pixel, wherever the next one would begin.
  const int64_t pixel_bytes = nv12 ? 1 : 3, half = c.height / 2;
  const Buffer pixels =
      read_buffer(static_cast<size_t>((c.height - 1) * c.row + c.width * pixel_bytes));
  const Buffer chroma =
      nv12 ? read_buffer(static_cast<size_t>((half - 1) * c.chroma_row + c.width)) : Buffer();
  const auto out_bytes =
      static_cast<size_t>(c.out_height * c.out_width * 3 * (c.normalized ? 4 : 1));
  const Buffer out = allocate(out_bytes);
  cmlr::cuda::FrameParams p{};
  p.format = static_cast<cmlr::cuda::PixelFormat>(c.format);
  p.pixels = static_cast<const uint8_t*>(pixels.get());
  p.chroma = static_cast<const uint8_t*>(chroma.get());
  p.row = c.row;
  p.chroma_row = c.chroma_row;
  p.height = c.height;
  p.width = c.width;
  p.out = static_cast<char*>(out.get()) + (misaligned ? 2 : 0);
  p.normalized = c.normalized != 0;
  p.out_height = c.out_height;
  p.out_width = c.out_width;
  for (int i = 0; i < 3; ++i) p.mean[i] = static_cast<float>(c.mean[i]);
  for (int i = 0; i < 3; ++i) p.std[i] = static_cast<float>(c.std[i]);
  const auto stream = reinterpret_cast<cmlr::cuda::Stream>(0x5eed);
  emulation::options.stream = stream;
  cmlr::cuda::resize_frame(p, stream);
  std::fwrite(out.get(), 1, out_bytes, stdout);
}

}  // namespace

int main(int count, char**) {
  const Buffer header = read_buffer(sizeof(FrameCase));
  try {
    run(*static_cast<const FrameCase*>(header.get()), count > 1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
