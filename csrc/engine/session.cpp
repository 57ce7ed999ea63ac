#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/should_stop.h"
#include "engine/engine.h"
#include "engine/engine_parts.h"
#include "model/encoder.h"
#include "model/recurrent_state.h"

namespace edgemoe {
namespace {

void check_tokens(std::span<const int32_t> tokens, uint32_t vocab_size) {
  for (const int32_t token : tokens) {
    if (token >= 0 && static_cast<uint32_t>(token) < vocab_size) continue;
    throw Error(ErrorCode::kArgument, "token " + std::to_string(token) +
                                          " is outside the vocabulary of " +
                                          std::to_string(vocab_size) + " tokens");
  }
}

uint64_t ns_since(std::chrono::steady_clock::time_point start) {
  const auto passed = std::chrono::steady_clock::now() - start;
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(passed).count());
}

}  // namespace

Session::Session(Engine& engine) : engine_(engine) {
  if (engine.impl_->session_open.exchange(true)) {
    throw Error(ErrorCode::kArgument,
                "this engine has memory for one session, and it is in use; close it first");
  }
  engine.impl_->cache.set_source_length(0);
}

Session::~Session() {
  engine_.impl_->session_open.store(false);
}

void Session::evaluate(std::span<const int32_t> tokens, const ShouldStop& should_stop,
                       std::optional<Phase> phase) {
  Engine::Impl& engine = *engine_.impl_;
  const std::lock_guard one_at_a_time(mutex_);
  const uint32_t context = engine.plan.context;
  check_tokens(tokens, engine.file.spec().vocab_size);
  if (tokens.empty()) throw Error(ErrorCode::kArgument, "there are no tokens to evaluate");
  if (engine.file.spec().has_encoder() && engine.cache.source_length() == 0) {
    throw Error(ErrorCode::kArgument,
                "this model's decoder answers what its encoder read; give that a prompt first");
  }
  if (tokens.size() > context - position_) {
    throw Error(ErrorCode::kArgument,
                "the context of " + std::to_string(context) + " tokens is full: " +
                    std::to_string(position_) + " are in it and " + std::to_string(tokens.size()) +
                    " more were given; load the model with a larger context or shorten the text");
  }
  auto lock = engine.lock_for_step();
  num_rows_ = 0;
  const bool keeps_tokens = has_state(engine.file.spec());
  if (keeps_tokens && !state_is_current_) replay(lock, should_stop);
  state_is_current_ = false;
  const Phase usual = tokens.size() > 1 ? Phase::kPrefill : Phase::kDecode;
  run(lock, tokens, position_, phase.value_or(usual), should_stop);
  state_is_current_ = true;
  if (keeps_tokens) tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  position_ += static_cast<uint32_t>(tokens.size());
  num_rows_ = static_cast<uint32_t>(engine.rows.size());
}

void Session::run(std::unique_lock<OwnedMutex>& lock, std::span<const int32_t> tokens,
                  uint32_t position, Phase phase, const ShouldStop& should_stop) {
  Engine::Impl& engine = *engine_.impl_;
  std::vector<StepRow>& rows = engine.rows;
  for (size_t first = 0; first < tokens.size(); first += rows.size()) {
    const auto start = std::chrono::steady_clock::now();
    engine.begin_step(lock);
    rows.clear();
    const size_t count = std::min<size_t>(tokens.size() - first, engine.plan.batch);
    for (size_t i = 0; i < count; ++i)
      rows.push_back({tokens[first + i], position++, &engine.cache});
    forward(engine.model, rows, phase, should_stop);
    ++engine.steps;
    if (is_replay_) continue;
    engine.tokens += count;
    engine.step_ns += ns_since(start);
  }
}

void Session::catch_up(const ShouldStop& should_stop) {
  const std::lock_guard one_at_a_time(mutex_);
  if (state_is_current_ || !has_state(engine_.impl_->file.spec())) return;
  auto lock = engine_.impl_->lock_for_step();
  num_rows_ = 0;
  replay(lock, should_stop);
}

void Session::replay(std::unique_lock<OwnedMutex>& lock, const ShouldStop& should_stop) {
  Model& model = engine_.impl_->model;
  // They have these rows already.
  EventTrace* const trace = std::exchange(model.trace, nullptr);
  RouterRecall* const recall = std::exchange(model.recall, nullptr);
  is_replay_ = true;
  try {
    run(lock, {tokens_.data(), position_}, 0, Phase::kPrefill, should_stop);
  } catch (...) {
    is_replay_ = false;
    model.trace = trace;
    model.recall = recall;
    throw;
  }
  is_replay_ = false;
  model.trace = trace;
  model.recall = recall;
  state_is_current_ = true;
}

void Session::encode(std::span<const int32_t> tokens, const ShouldStop& should_stop) {
  Engine::Impl& engine = *engine_.impl_;
  const std::lock_guard one_at_a_time(mutex_);
  const uint32_t context = engine.plan.context;
  if (!engine.file.spec().has_encoder()) {
    throw Error(ErrorCode::kArgument, "this model has no encoder; evaluate the prompt instead");
  }
  check_tokens(tokens, engine.file.spec().vocab_size);
  if (tokens.empty() || tokens.size() > context) {
    throw Error(ErrorCode::kArgument,
                "a prompt has 1 to " + std::to_string(context) + " tokens (the context); " +
                    std::to_string(tokens.size()) +
                    " were given: load the model with a larger context or shorten the text");
  }
  auto lock = engine.lock_for_step();
  engine.begin_step(lock);
  const auto start = std::chrono::steady_clock::now();
  position_ = 0;
  num_rows_ = 0;
  edgemoe::encode(engine.model, tokens, engine.cache, should_stop);
  ++engine.steps;
  engine.tokens += tokens.size();
  engine.step_ns += ns_since(start);
}

void Session::evaluate_windows(std::span<const int32_t> tokens, uint32_t window,
                               const ShouldStop& should_stop) {
  Engine::Impl& engine = *engine_.impl_;
  const std::lock_guard one_at_a_time(mutex_);
  const uint32_t context = engine.plan.context;
  const size_t batch = engine.plan.batch;
  check_tokens(tokens, engine.file.spec().vocab_size);
  if (engine.file.spec().has_encoder()) {
    throw Error(ErrorCode::kUnsupported,
                "this model has an encoder; windows of text can be evaluated by models that only "
                "have a decoder");
  }
  if (has_state(engine.file.spec())) {
    throw Error(
        ErrorCode::kUnsupported,
        "this model has recurrent layers, whose windows cannot be evaluated side by side yet");
  }
  if (window == 0 || window > context) {
    throw Error(ErrorCode::kArgument, "windows of " + std::to_string(window) +
                                          " tokens do not fit the context of " +
                                          std::to_string(context));
  }
  std::vector<KvCache> caches;
  const size_t per_step = std::max<size_t>(1, std::min<size_t>(batch, context) / window);
  for (uint32_t i = 0; i < per_step; ++i) caches.push_back(engine.cache.part(i * window, window));
  auto lock = engine.lock_for_step();
  position_ = 0;
  num_rows_ = 0;
  std::vector<StepRow>& rows = engine.rows;
  for (size_t first = 0; first < tokens.size(); first += rows.size()) {
    const auto start = std::chrono::steady_clock::now();
    engine.begin_step(lock);
    rows.clear();
    // Whole windows, or a piece of one that is longer than the batch.
    const size_t left_of_window = window - first % window;
    const size_t most = window > batch ? std::min(batch, left_of_window) : per_step * window;
    const size_t count = std::min(tokens.size() - first, most);
    for (size_t i = 0; i < count; ++i) {
      const size_t place = first + i;
      const size_t cache = window > batch ? 0 : i / window;
      rows.push_back({tokens[place], static_cast<uint32_t>(place % window), &caches[cache]});
    }
    forward(engine.model, rows, Phase::kPrefill, should_stop);
    ++engine.steps;
    engine.tokens += count;
    engine.step_ns += ns_since(start);
  }
}

uint32_t Session::num_rows() const noexcept {
  return num_rows_;
}

void Session::logits(uint32_t first, uint32_t count, std::span<float> out) {
  Engine::Impl& engine = *engine_.impl_;
  const size_t vocab_size = engine.file.spec().vocab_size;
  if (first > num_rows_ || count > num_rows_ - first || out.size() != count * vocab_size) {
    throw Error(ErrorCode::kArgument,
                "logits of rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                    " were asked for; the last batch has " + std::to_string(num_rows_));
  }
  const auto lock = engine.lock();
  if (count > 0) compute_logits(engine.model, first, count, out.data());
}

uint32_t Session::position() const noexcept {
  return position_;
}

void Session::rewind(uint32_t position) {
  mutex_.refuse_owner();
  if (position > position_) {
    throw Error(ErrorCode::kArgument, "cannot rewind to " + std::to_string(position) +
                                          ": the sequence has " + std::to_string(position_) +
                                          " tokens");
  }
  if (position != position_) state_is_current_ = position == 0;
  position_ = position;
  tokens_.resize(std::min<size_t>(tokens_.size(), position));
  num_rows_ = 0;
}

}  // namespace edgemoe
