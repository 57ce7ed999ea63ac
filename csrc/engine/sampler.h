// Chooses tokens from logits. Pure given its seed: the same calls give the same tokens everywhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/options.h"

namespace edgemoe {

class Sampler {
 public:
  // Errors: kArgument naming the option that is out of range (negative temperature, NaN, top_p
  // outside (0, 1], ...) or a biased token outside the vocabulary.
  Sampler(const SamplingOptions& options, size_t vocab_size);

  // Requires: logits.size() == vocab_size. Ties go to the lowest token. NaN never wins; when no
  // logit is finite the result is Error(kInternal).
  int32_t sample(std::span<const float> logits);
  // Counts a token of the sequence (prompt or answer) for the penalties. Errors: kArgument for a
  // token outside the vocabulary.
  void accept(int32_t token);

 private:
  struct Candidate {
    int32_t token;
    float logit;
  };
  void apply_penalties();
  size_t keep_candidates();
  double next_uniform();

  SamplingOptions options_;
  size_t vocab_size_;
  uint64_t state_;  // of the generator
  std::vector<Candidate> candidates_;
  std::vector<int32_t> recent_;  // ring of the last tokens
  size_t recent_next_ = 0;
};

}  // namespace edgemoe
