// The plain loops behind cmlr::attention, without argument checks.
#pragma once

#include "cmlr/attention.h"

namespace cmlr::cpu {

void attention(const AttentionParams& params);

}  // namespace cmlr::cpu
