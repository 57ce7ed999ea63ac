// The name of an expert.
#pragma once

#include <cstdint>

namespace edgemoe {

struct ExpertId {
  uint32_t layer = 0;
  uint32_t expert = 0;
  bool operator==(const ExpertId&) const = default;
};

}  // namespace edgemoe
