// Runs CmlrAttention on the emulated GPU: a case on standard input, the output on standard output.
// Every tensor is a heap block of its exact size and the output starts as NaN, so that a sanitizer,
// or the comparison, sees any access outside.
//
//   attention_runner [forward | reverse | random SEED | at-once | landing SEED | count |
//                     misaligned TENSOR | far HEADS BATCH]
//
// at-once, landing: cp.async lands where it is issued, or at random. misaligned: that tensor, 0 to
// 4, begins between two elements' places. far: the case, of one head and one batch item, is the
// last head and item of tensors with that many, too large for 32 bits, and only the last block
// runs.
#include <sys/mman.h>

#include <algorithm>
#include <exception>

#include "cmlr/attention_cuda.h"
#include "emulation/machine.h"
#include "emulation/programs/case.h"

namespace {

cmlr::cuda::Stream const kStream = reinterpret_cast<cmlr::cuda::Stream>(0x5eed);

struct Choice {
  int misaligned = -1;
  int64_t far_heads = 1, far_batch = 1;
};

Choice read_options(int count, char** arguments) {
  Choice choice;
  auto& options = emulation::options;
  options.stream = kStream;
  if (count < 2) return choice;
  const auto is = [&](const char* name) { return std::strcmp(arguments[1], name) == 0; };
  if (is("reverse")) options.schedule = emulation::Schedule::kReverse;
  if (is("random") || is("landing")) options.schedule = emulation::Schedule::kRandom;
  if (is("random") || is("landing")) options.seed = static_cast<unsigned>(std::atoi(arguments[2]));
  if (is("at-once")) options.copies = emulation::Landing::kAtOnce;
  if (is("landing")) options.copies = emulation::Landing::kRandom;
  if (is("misaligned")) choice.misaligned = std::atoi(arguments[2]);
  if (is("far")) {
    choice.far_heads = std::atoll(arguments[2]);
    choice.far_batch = std::atoll(arguments[3]);
    options.only_last_block = true;
  }
  options.count_instructions = is("count");
  return choice;
}

// The bytes of the case, or where a tensor of which they are a slice has them.
class Tensor {
 public:
  Tensor(const Choice& choice, int64_t batch, int64_t rows, int64_t row_bytes)
      : rows_(batch * rows), row_bytes_(row_bytes), pitch_(row_bytes * choice.far_heads) {
    if (pitch_ == row_bytes_) {
      near_ = allocate(static_cast<size_t>(rows_ * row_bytes_));
      begin_ = slice_ = static_cast<char*>(near_.get());
      return;
    }
    const auto bytes = static_cast<size_t>(choice.far_batch * rows * pitch_);
    void* far = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (far == MAP_FAILED) {
      std::fprintf(stderr, "no address space for %zu bytes\n", bytes);
      std::exit(3);
    }
    begin_ = static_cast<char*>(far);
    slice_ = begin_ + (choice.far_batch - 1) * rows * pitch_ + pitch_ - row_bytes_;
  }
  void read() {
    for (int64_t row = 0; row < rows_; ++row) {
      const Buffer content = read_buffer(static_cast<size_t>(row_bytes_));
      std::memcpy(slice_ + row * pitch_, content.get(), static_cast<size_t>(row_bytes_));
    }
  }
  void write() const {
    for (int64_t row = 0; row < rows_; ++row)
      std::fwrite(slice_ + row * pitch_, 1, static_cast<size_t>(row_bytes_), stdout);
  }
  char* begin() { return begin_; }

 private:
  int64_t rows_, row_bytes_, pitch_;
  Buffer near_;
  char *begin_ = nullptr, *slice_ = nullptr;
};

void run(const Case& c, const Choice& choice) {
  const int64_t row_bytes = c.dim * (c.is_half ? 2 : 4), dim = c.dim * choice.far_heads,
                query_item = c.num_queries * dim, token_item = c.num_tokens * dim;
  Tensor query(choice, c.query_batch, c.num_queries, row_bytes);
  Tensor key(choice, c.key_batch, c.num_tokens, row_bytes);
  Tensor value(choice, c.value_batch, c.num_tokens, row_bytes);
  for (Tensor* tensor : {&query, &key, &value}) tensor->read();
  const Buffer bias =
      c.has_bias ? read_buffer(static_cast<size_t>(c.num_tokens) * sizeof(float)) : Buffer();
  Tensor out(choice, c.batch, c.num_queries, row_bytes);
  const auto at = [&](int number, void* begin) {
    return static_cast<char*>(begin) + (choice.misaligned == number ? number == 3 ? 2 : 8 : 0);
  };
  const bool is_far = choice.far_heads > 1;
  const auto stride = [&](int64_t batch, int64_t item) { return batch == 1 && !is_far ? 0 : item; };
  cmlr::cuda::attention({c.is_half ? cmlr::cuda::Element::kFloat16 : cmlr::cuda::Element::kFloat32,
                         at(0, query.begin()), at(1, key.begin()), at(2, value.begin()),
                         reinterpret_cast<const float*>(at(3, bias.get())), at(4, out.begin()),
                         std::max(c.batch, choice.far_batch), c.num_queries, c.num_tokens, dim,
                         c.num_heads * choice.far_heads, static_cast<float>(c.scale),
                         stride(c.query_batch, query_item), stride(c.key_batch, token_item),
                         stride(c.value_batch, token_item)},
                        kStream);
  out.write();
}

}  // namespace

int main(int count, char** arguments) {
  const Choice choice = read_options(count, arguments);
  const Buffer header = read_buffer(sizeof(Case));
  try {
    run(*static_cast<const Case*>(header.get()), choice);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
