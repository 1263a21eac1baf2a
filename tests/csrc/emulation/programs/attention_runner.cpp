// Runs CmlrAttention on the emulated GPU: a case on standard input, the output on standard output.
// Every tensor is a heap block of its exact size and the output starts as NaN, so that a sanitizer,
// or the comparison, sees any access outside.
//
//   attention_runner [forward | reverse | random SEED | count]
#include <exception>

#include "cmlr/attention_cuda.h"
#include "emulation/machine.h"
#include "emulation/programs/case.h"

namespace {

void read_options(int count, char** arguments) {
  if (count < 2) return;
  const auto is = [&](const char* name) { return std::strcmp(arguments[1], name) == 0; };
  auto& options = emulation::options;
  if (is("reverse")) options.schedule = emulation::Schedule::kReverse;
  if (is("random")) options.schedule = emulation::Schedule::kRandom;
  if (is("random")) options.seed = static_cast<unsigned>(std::atoi(arguments[2]));
  options.count_instructions = is("count");
}

void run(const Case& c) {
  const int64_t element = c.is_half ? 2 : 4, query_item = c.num_queries * c.dim,
                token_item = c.num_tokens * c.dim;
  const size_t out_bytes = static_cast<size_t>(c.batch * query_item * element);
  const Buffer query = read_buffer(static_cast<size_t>(c.query_batch * query_item * element));
  const Buffer key = read_buffer(static_cast<size_t>(c.key_batch * token_item * element));
  const Buffer value = read_buffer(static_cast<size_t>(c.value_batch * token_item * element));
  const Buffer bias =
      c.has_bias ? read_buffer(static_cast<size_t>(c.num_tokens) * sizeof(float)) : Buffer();
  const Buffer out = allocate(out_bytes);
  cmlr::cuda::attention({c.is_half ? cmlr::cuda::Element::kFloat16 : cmlr::cuda::Element::kFloat32,
                         query.get(), key.get(), value.get(), static_cast<const float*>(bias.get()),
                         out.get(), c.batch, c.num_queries, c.num_tokens, c.dim, c.num_heads,
                         static_cast<float>(c.scale), c.query_batch == 1 ? 0 : query_item,
                         c.key_batch == 1 ? 0 : token_item, c.value_batch == 1 ? 0 : token_item},
                        nullptr);
  std::fwrite(out.get(), 1, out_bytes, stdout);
}

}  // namespace

int main(int count, char** arguments) {
  read_options(count, arguments);
  const Buffer header = read_buffer(sizeof(Case));
  try {
    run(*static_cast<const Case*>(header.get()));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
