// The name of an expert, or of its low copy (ExpertLayout says which numbers those are).
#pragma once

#include <cstdint>

namespace edgemoe {

struct ExpertId {
  uint32_t layer = 0;
  uint32_t expert = 0;
  bool operator==(const ExpertId&) const = default;
};

}  // namespace edgemoe
