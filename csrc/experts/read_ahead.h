// What later layers will probably ask for, and which of it is worth reading before they do.
// Bookkeeping only: no I/O, no threads, no clock.
//
// A guess is trusted as far as guesses like it came true: the share that did is followed for every
// kind of guess and every rank, among experts that were not in memory (a cache keeps what is
// easy to guess), whether they were read early or not. So reading ahead switches itself off where
// guesses fail and on again where they hold, at no cost to the device.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "experts/expert_id.h"

namespace edgemoe {

enum class PreloadPolicy : uint8_t {
  kNone,    // experts are read when their layer asks for them
  kAuto,    // guesses that come true often enough are read while the device has nothing else to do
  kAlways,  // every guess is
};

struct PreloadPolicyName {
  PreloadPolicy policy;
  std::string_view name;  // "none", "auto", "always"
};
std::span<const PreloadPolicyName> preload_policies() noexcept;
// Errors: kArgument for an unknown name, listing the known ones.
PreloadPolicy preload_policy_from_name(std::string_view name);

struct ReadAheadStats {
  uint64_t guesses = 0;       // experts that were named before their layer ran
  uint64_t true_guesses = 0;  // of those, asked for by it
  uint64_t foreseen = 0;      // demands that a guess had named
  uint64_t foreseeable = 0;   // demands of layers that had guesses
};

class ReadAhead {
 public:
  // Layers between a guess and what it is about, at most.
  static constexpr uint32_t kMaxDistance = 3;
  // Kinds of guesses; each has trust of its own. 1 to kMaxDistance: routers, so many layers early.
  static constexpr uint32_t kBatch = 0;  // for a whole batch of rows: they name most of a layer
  // From the tokens of a step, for the first kMaxDistance layers with experts: kToken + 0, 1, 2.
  static constexpr uint32_t kToken = kMaxDistance + 1;
  // From what was used 1 to kMaxDistance layers before: kTransitions + 1, 2, 3.
  static constexpr uint32_t kTransitions = kToken + kMaxDistance - 1;
  static constexpr uint32_t kNumKinds = kTransitions + kMaxDistance + 1;

  // A guess is read when at least this share of those like it came true. An expert that is read in
  // vain delays what is asked for next by at most what a useful one saves.
  static constexpr float kLeastTrust = 0.6f;

  ReadAhead(uint32_t num_layers, uint32_t num_experts, uint32_t num_used, PreloadPolicy policy);

  // What `layer` will ask for, in falling order of likelihood.
  struct Guess {
    uint32_t expert = 0;
    bool is_missing = false;  // not in memory, nor on its way
  };
  // Takes the place of earlier guesses for the layer, which are still judged. Requires: `kind` is
  // one of the above, experts below num_experts.
  void guess(uint32_t layer, uint32_t kind, std::span<const Guess> guesses);
  // What `layer` asks for in fact: its guesses are judged and forgotten.
  void settle(uint32_t layer, std::span<const uint32_t> demanded);
  void forget() noexcept;  // all guesses: the step ended early

  // The next guess that is worth a read, nearest layer first; each is named once.
  std::optional<ExpertId> take() noexcept;
  std::span<const Guess> guessed(uint32_t layer) const noexcept;

  const ReadAheadStats& stats() const noexcept { return stats_; }

  // The shares that guesses came true with, to be kept between runs.
  std::span<const float> trusted() const noexcept { return trust_; }
  // Ignored unless there are as many as trusted() has, each a share.
  void restore_trust(std::span<const float> shares) noexcept;

 private:
  struct Guesses {
    std::array<std::vector<Guess>, kNumKinds> seen;  // by kind
    uint32_t kind = 0;                               // of the latest
    size_t next = 0;                                 // to take, of the latest
  };
  void judge(std::span<const Guess> guesses, uint32_t kind);
  static void clear(Guesses& guesses) noexcept;
  float& trust(uint32_t kind, size_t rank) noexcept;

  // Guesses but for a batch are for so many rows at most.
  static constexpr uint32_t kGuessedRows = 4;

  PreloadPolicy policy_;
  size_t num_ranks_;
  std::vector<Guesses> layers_;
  uint32_t nearest_ = 0;              // no layer before it has guesses to take
  std::vector<float> trust_;          // [kind][rank]
  std::vector<uint8_t> is_demanded_;  // scratch, by expert
  ReadAheadStats stats_;
};

}  // namespace edgemoe
