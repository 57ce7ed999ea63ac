// fingerprint: a hash of logits, which is the same on every machine, level and setting.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "commands.h"
#include "engine/engine.h"

namespace edgemoe::bench {
namespace {

// FNV-1a, 64 bits.
class Fnv {
 public:
  void add(std::span<const float> values) noexcept {
    for (const std::byte byte : std::as_bytes(values)) {
      hash_ = (hash_ ^ static_cast<uint64_t>(byte)) * 0x100000001B3u;
    }
  }
  std::string text() const {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash_));
    return digits;
  }

 private:
  uint64_t hash_ = 0xCBF29CE484222325u;
};

void add_logits(Session& session, std::span<const int32_t> tokens, std::vector<float>& logits,
                Fnv& hash) {
  session.evaluate(tokens, {});
  for (uint32_t row = 0; row < session.num_rows(); ++row) {
    session.logits(row, 1, logits);
    hash.add(logits);
  }
}

}  // namespace

void fingerprint_command(Arguments& arguments, JsonWriter& json) {
  const EngineOptions options = load_options(arguments);
  const uint64_t count = arguments.count("tokens", 24, 4096);
  arguments.refuse_unknown();
  ModelFile file(arguments.file());
  file.gguf().drop_vocabulary();
  const std::unique_ptr<Engine> engine = Engine::load(file, options);

  const uint32_t vocab_size = engine->spec().vocab_size;
  std::vector<int32_t> tokens;
  for (uint64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>((i * 7919 + 13) % vocab_size));
  }
  Session session(*engine);
  std::vector<float> logits(vocab_size);
  Fnv hash;
  const std::span<const int32_t> all(tokens);
  if (engine->spec().has_encoder()) session.encode(all, {});  // and its decoder the same again
  // Half of them in batches, as a prompt is, the others one by one.
  for (size_t at = 0; at < count;) {
    const size_t batch = engine->memory_plan().batch;
    const size_t size = at < count / 2 ? std::min(batch, count / 2 - at) : 1;
    add_logits(session, all.subspan(at, size), logits, hash);
    at += size;
  }
  json.field("fingerprint", std::string_view(hash.text()));
  json.field("tokens", count);
  json.field("level", std::string_view(engine->level()));
  json.field("threads", uint64_t{engine->memory_plan().num_threads});
}

}  // namespace edgemoe::bench
