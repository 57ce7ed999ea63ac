// An opened model file, understood but not loaded: its spec, tensors and expert layout inputs.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/memory_plan.h"
#include "engine/options.h"
#include "gguf/gguf_file.h"
#include "model/model_spec.h"
#include "weights/model_tensors.h"
#include "weights/packed_container.h"

namespace edgemoe {

// With `low_copies` those that the file has are numbered too.
ExpertLayout expert_layout(const ModelSpec& spec, const ModelTensors& tensors, uint64_t alignment,
                           bool low_copies = false);

// The context that the options ask for, without regard to memory.
uint32_t wanted_context(const ModelSpec& spec, const EngineOptions& options) noexcept;
// The budget that the options ask for. `least_bytes` is what kLeast means.
uint64_t budget_bytes(const EngineOptions& options, uint64_t least_bytes);

class ModelFile {
 public:
  // Opens and validates. Errors: kIo, kFormat, kUnsupported; see GgufFile::open, read_spec,
  // read_packed_container and bind_tensors.
  explicit ModelFile(const std::string& path);

  const GgufFile& gguf() const noexcept { return gguf_; }
  GgufFile& gguf() noexcept { return gguf_; }
  const ModelSpec& spec() const noexcept { return spec_; }
  const ModelTensors& tensors() const noexcept { return tensors_; }
  const std::optional<PackedContainer>& packed() const noexcept { return packed_; }
  bool has_low_copies() const noexcept { return packed_ && !packed_->low_checksums.empty(); }

  // The plan that loading with these options would follow. Never throws kBudget: a plan with
  // budget_bytes < least_bytes says that it does not fit.
  MemoryPlan plan(const EngineOptions& options) const;

 private:
  GgufFile gguf_;
  ModelSpec spec_;
  ModelTensors tensors_;
  std::optional<PackedContainer> packed_;  // empty for a stock file
};

}  // namespace edgemoe
