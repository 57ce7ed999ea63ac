// How likely the next token uses each expert: its share of the tokens so far, recent ones first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edgemoe {

// Routing repeats on several scales at once: the last words, the sentence, the topic, the model's
// habits. Each scale forgets by half in its number of steps; together they fall off about as a
// power of the age, so that no single constant has to fit the model or the text.
struct PopularityScale {
  float decay;   // per step: 2^(-1/half-life)
  float weight;  // of this scale; with kUnseenPopularity they sum to about 1
};
inline constexpr std::array<PopularityScale, 4> kPopularityScales = {{
    {0.5f, 0.15f},           // 1 step
    {0.840896415f, 0.25f},   // 4 steps
    {0.957603281f, 0.25f},   // 16 steps
    {0.9892280132f, 0.25f},  // 64 steps
}};
// Of an expert that was never used: a tenth of what two of a hundred experts get.
inline constexpr float kUnseenPopularity = 0.002f;
// An expert that rests for so many steps counts half: what was in use for long and is no more looks
// like what is in use now and then, but for the age of its last use.
inline constexpr float kRestSteps = 16.0f;
// How much routing repeats differs between models and texts, so the estimate above is corrected by
// what came of it. Experts of like rest (a class doubles) and like share on the longest scale (a
// class halves) are one class; of each are counted the uses that were expected and those that
// came. The correction is (prior + came) / (prior + expected).
inline constexpr int kRestClasses = 7;
inline constexpr int kShareClasses = 8;
inline constexpr float kPriorUses = 150.0f;
inline constexpr float kClassDecay = 0.998f;  // of both counts, per step

// Kept for every expert, resident or not, so what was learned survives eviction. Deterministic.
class Popularity {
 public:
  explicit Popularity(size_t num_experts);
  static uint64_t bytes(size_t num_experts) noexcept;

  void begin_step() noexcept;
  // The layer of experts [first, first + count) runs, once a step: they age. Uses come after it.
  void begin_layer(size_t first, size_t count) noexcept;
  // `share` of the step's tokens (0 to 1) used it.
  void record_use(size_t expert, float share) noexcept;
  // What was learned, with version and checksum.
  std::vector<std::byte> save() const;
  // False, and nothing changes, when the bytes are damaged or of another version or model.
  bool load(std::span<const std::byte> saved);

  float operator[](size_t expert) const noexcept { return values_[expert]; }

 private:
  using Frequencies = std::array<float, kPopularityScales.size()>;
  uint8_t class_of(size_t expert) const noexcept;
  void update(size_t expert) noexcept;
  void weigh() noexcept;
  bool is_possible() const noexcept;
  std::array<std::span<float>, 6> kept() noexcept;

  std::vector<Frequencies> frequencies_;
  std::vector<float> ages_;  // steps since the last use; a share of the tokens takes off that share
  std::vector<float> estimates_;
  std::vector<float> values_;  // corrected
  // What the frequencies of an expert in constant use would be: below 1 while there is little past.
  Frequencies full_{};
  Frequencies weights_{};              // over full_
  std::vector<uint8_t> classes_;       // of each expert
  std::vector<uint8_t> class_before_;  // before its layer ran last
  // The last class is of experts that were never used; it is not corrected.
  static constexpr int kUnseenClass = kRestClasses * kShareClasses;
  using Classes = std::array<float, kUnseenClass + 1>;
  Classes expected_{};
  Classes came_{};
  Classes correction_;  // as of the step's begin
};

}  // namespace edgemoe
