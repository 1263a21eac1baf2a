// Argument checks, then the arithmetic of cpu/.
#include "cmlr/attention.h"

#include "attention_checks.h"
#include "cpu/attention_cpu.h"

namespace cmlr {

void attention(const AttentionParams& p) {
  require_valid(p);
  cpu::attention(p);
}

}  // namespace cmlr
