// What a file says about its model is checked before anything is loaded: every hyper-parameter and
// every tensor, in both directions.
#include "engine/model_file.h"

#include <functional>

#include "engine/engine.h"
#include "engine/mode.h"
#include "gguf_folder.h"
#include "gguf_image.h"
#include "test.h"
#include "tiny_model.h"

namespace edgemoe {
namespace {

using test::GgufFolder;
using test::GgufImage;

using test::tiny_model;
constexpr uint32_t kLayers = test::kTinyLayers;
constexpr uint64_t kWidth = test::kTinyWidth;
constexpr uint64_t kExperts = test::kTinyExperts;
constexpr uint64_t kHidden = test::kTinyHidden;
constexpr uint64_t kVocabulary = test::kTinyVocabulary;

// Replaces (or adds) a value.
template <class T>
void set(GgufImage& image, const std::string& key, T value) {
  std::erase_if(image.entries, [&](const GgufImage::Entry& entry) { return entry.key == key; });
  image.add(key, value);
}

void drop(GgufImage& image, const std::string& name) {
  std::erase_if(image.entries, [&](const GgufImage::Entry& entry) { return entry.key == name; });
  std::erase_if(image.tensors,
                [&](const GgufImage::Tensor& tensor) { return tensor.name == name; });
}

// Opens the model; the message of the error that must come.
std::string refusal(const std::function<void(GgufImage&)>& change) {
  GgufImage image = tiny_model();
  change(image);
  const GgufFolder folder;
  const std::string path = folder.write("model.gguf", image.build());
  try {
    const ModelFile file(path);
    file.plan(EngineOptions());
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kFormat || error.code() == ErrorCode::kUnsupported);
    CHECK(std::string(error.what()).find(path) != std::string::npos);
    return error.what();
  }
  return "";
}

bool mentions(const std::string& message, const std::string& part) {
  if (message.find(part) != std::string::npos) return true;
  test::report_failure(__FILE__, __LINE__, "'" + message + "' does not mention '" + part + "'");
  return false;
}

TEST("a sound model opens and runs") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", tiny_model().build()));
  CHECK_EQUAL(file.spec().num_layers, kLayers);
  CHECK_EQUAL(file.spec().router.num_used, 2u);
  EngineOptions options;
  options.memory = EngineOptions::Memory::kLeast;
  options.num_threads = 2;
  const std::unique_ptr<Engine> engine = Engine::load(file, options);
  Session session(*engine);
  const std::vector<int32_t> tokens = {1, 2, 3};
  session.evaluate(tokens, {});
  std::vector<float> logits(kVocabulary);
  session.logits(session.num_rows() - 1, 1, logits);
  for (const float value : logits) CHECK_EQUAL(value, 0.0f);  // all weights are 0
}

TEST("hyper-parameters that make no sense are refused by name") {
  const struct {
    const char* key;
    uint32_t value;
  } kBad[] = {
      {"llama.block_count", 0},
      {"llama.block_count", 4'000'000'000u},
      {"llama.block_count", 3},
      {"llama.embedding_length", 0},
      {"llama.embedding_length", 65},
      {"llama.attention.head_count", 0},
      {"llama.attention.head_count", 3},
      {"llama.attention.head_count_kv", 0},
      {"llama.attention.head_count_kv", 3},
      {"llama.rope.dimension_count", 15},
      {"llama.rope.dimension_count", 4096},
      {"llama.expert_used_count", 0},
      {"llama.expert_used_count", 5},
      {"llama.expert_count", 8},
      {"llama.expert_count", 4'000'000'000u},
  };
  for (const auto& bad : kBad) {
    const std::string message = refusal([&](GgufImage& image) { set(image, bad.key, bad.value); });
    if (message.empty()) {
      test::report_failure(
          __FILE__, __LINE__,
          std::string(bad.key) + " = " + std::to_string(bad.value) + " was accepted");
    }
  }
}

TEST("keys of the wrong type or that are not finite are refused by name") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(mentions(refusal([](GgufImage& i) { set(i, "llama.block_count", "two"); }),
                 "llama.block_count"));
  CHECK(mentions(refusal([](GgufImage& i) { set(i, "llama.embedding_length", -64); }),
                 "llama.embedding_length"));
  CHECK(mentions(
      refusal([&](GgufImage& i) { set(i, "llama.attention.layer_norm_rms_epsilon", nan); }),
      "layer_norm_rms_epsilon"));
  CHECK(mentions(refusal([&](GgufImage& i) { set(i, "llama.rope.freq_base", nan); }),
                 "rope.freq_base"));
}

TEST("keys that are needed and missing are named") {
  for (const std::string key :
       {"general.architecture", "llama.block_count", "llama.embedding_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
        "llama.expert_used_count"}) {
    CHECK(mentions(refusal([&](GgufImage& image) { drop(image, key); }), key));
  }
}

TEST("an architecture or a rope scaling that is not known is refused by name") {
  CHECK(
      mentions(refusal([](GgufImage& i) { set(i, "general.architecture", "mamba9"); }), "mamba9"));
  CHECK(mentions(refusal([](GgufImage& i) { i.add("llama.rope.scaling.type", "spiral"); }),
                 "spiral"));
}

TEST("a key that changes what is computed in a way that is not known is refused by name") {
  for (const std::string key :
       {"llama.ssm.state_size", "llama.swiglu_clamp_exp", "llama.attention.indexer.top_k",
        "llama.attention.shared_kv_layers", "llama.attention.sliding_window"}) {
    CHECK(mentions(refusal([&](GgufImage& image) { image.add(key, uint32_t{2}); }), key));
  }
  // Says what tensors say, belongs to others, or masks nothing.
  CHECK(refusal([](GgufImage& image) {
          image.add("llama.leading_dense_block_count", uint32_t{0})
              .add("general.size_label", "tiny")
              .add("llama.attention.sliding_window", uint32_t{131072})
              .add("llama.attention.shared_kv_layers", uint32_t{0});
        }).empty());
}

TEST("a tensor that is missing, unknown or of another shape is named") {
  for (const GgufImage::Tensor& tensor : tiny_model().tensors) {
    if (tensor.name == "output.weight") continue;  // then the embedding serves
    const std::string message = refusal([&](GgufImage& image) { drop(image, tensor.name); });
    if (message.empty()) test::report_failure(__FILE__, __LINE__, tensor.name + " may be missing");
  }
  CHECK(mentions(refusal([](GgufImage& image) {
                   image.add_tensor("blk.0.secret.weight", QuantType::kF32, {kWidth});
                 }),
                 "blk.0.secret.weight"));
  CHECK(mentions(refusal([](GgufImage& image) {
                   image.add_tensor("blk.7.attn_norm.weight", QuantType::kF32, {kWidth});
                 }),
                 "blk.7"));
  for (const std::string name : {"blk.0.ffn_gate.low.weight", "blk.0.ffn_up.low.scale"}) {
    CHECK(mentions(refusal([&](GgufImage& image) {
                     image.add_tensor(name, QuantType::kF32, {kWidth, kHidden});
                   }),
                   name));
  }
  CHECK(mentions(refusal([](GgufImage& image) {
                   image.add_tensor("blk.0.ffn_gate_up_exps.weight", QuantType::kF32,
                                    {kWidth, 2 * kHidden, kExperts});
                 }),
                 "twice"));
  for (const GgufImage::Tensor& tensor : tiny_model().tensors) {
    const std::string message = refusal([&](GgufImage& image) {
      for (GgufImage::Tensor& one : image.tensors) {
        if (one.name != tensor.name) continue;
        one.shape[0] *= 2;
        one.data.resize(one.data.size() * 2);
      }
    });
    CHECK(mentions(message, tensor.name.substr(0, tensor.name.find(".weight"))));
  }
}

TEST("per-layer arrays of head counts must have one element for each layer") {
  const auto with_heads = [](std::vector<uint32_t> heads) {
    return [heads](GgufImage& image) {
      drop(image, "llama.attention.head_count");
      image.add_array("llama.attention.head_count", heads);
    };
  };
  CHECK(refusal(with_heads({4, 4})).empty());
  CHECK(mentions(refusal(with_heads({4})), "head_count"));
  CHECK(mentions(refusal(with_heads({4, 4, 4})), "head_count"));
}

TEST("old files with a tensor per expert hold the same model") {
  GgufImage image = tiny_model();
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    for (const std::string name : {"gate", "up", "down"}) {
      const std::string block = "blk." + std::to_string(layer) + ".ffn_" + name;
      drop(image, block + "_exps.weight");
      for (uint64_t expert = 0; expert < kExperts; ++expert) {
        const bool down = name == "down";
        image.add_tensor(block + "." + std::to_string(expert) + ".weight", QuantType::kF32,
                         {down ? kHidden : kWidth, down ? kWidth : kHidden});
      }
    }
  }
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", image.build()));
  const ExpertLayout layout = expert_layout(file.spec(), file.tensors(), 4096);
  CHECK_EQUAL(layout.place(1, 3).num_ranges, 3u);
  CHECK_EQUAL(layout.total_weight_bytes(), kLayers * kExperts * 3 * kWidth * kHidden * 4);
  drop(image, "blk.1.ffn_up.2.weight");
  const std::string path = folder.write("broken.gguf", image.build());
  CHECK(mentions(ERROR_MESSAGE(ErrorCode::kFormat, ModelFile{path}), "blk.1"));
}

TEST("a budget below the least is refused before anything is loaded, and the least runs") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", tiny_model().build()));
  EngineOptions options;
  options.memory = EngineOptions::Memory::kBytes;
  options.memory_bytes = 1 << 20;
  CHECK(mentions(ERROR_MESSAGE(ErrorCode::kBudget, Engine::load(file, options)), "least"));
  options.memory_bytes = file.plan(options).least_bytes + (1 << 20);
  CHECK(Engine::load(file, options)->memory_plan().budget_bytes == options.memory_bytes);
}

TEST("a mode's pool holds what it has use for, and no budget makes it larger") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", tiny_model().build()));
  const ExpertLayout layout = expert_layout(file.spec(), file.tensors(), kAssumedAlignment);
  EngineOptions options;
  options.memory = EngineOptions::Memory::kBytes;
  options.memory_bytes = uint64_t{1} << 40;
  options.look_ahead = 1;
  const auto slots = [&](Mode mode) {
    options.mode = mode;
    return file.plan(options).expert_pool_bytes / layout.max_slot_bytes();
  };
  CHECK_EQUAL(slots(Mode::kStream), kLayers * kExperts);
  CHECK_EQUAL(slots(Mode::kResident), kLayers * kExperts);
  CHECK_EQUAL(slots(Mode::kOnDemand), 2u);
  CHECK_EQUAL(slots(Mode::kUnbuffered), 4u);
  CHECK_EQUAL(slots(Mode::kLayerByLayer), 2 * kExperts);
}

TEST("a mode that decides what is read ahead takes no preload policy") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", tiny_model().build()));
  EngineOptions options;
  options.memory = EngineOptions::Memory::kLeast;
  options.preload = PreloadPolicy::kAlways;
  for (const ModeRules& rules : modes()) {
    CHECK(&rules_of(rules.mode) == &rules);
    CHECK(mode_from_name(rules.name) == rules.mode);
    options.mode = rules.mode;
    if (rules.guesses) {
      Engine::load(file, options);
    } else {
      CHECK(mentions(ERROR_MESSAGE(ErrorCode::kArgument, Engine::load(file, options)),
                     std::string(rules.name)));
    }
  }
}

TEST("an engine has one session at a time, and its sequence can be taken back") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", tiny_model().build()));
  EngineOptions options;
  options.memory = EngineOptions::Memory::kLeast;
  options.context = 8;
  const std::unique_ptr<Engine> engine = Engine::load(file, options);
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5};
  {
    Session session(*engine);
    ERROR_MESSAGE(ErrorCode::kArgument, Session{*engine});
    session.evaluate(tokens, {});
    CHECK_EQUAL(session.position(), 5u);
    CHECK(mentions(ERROR_MESSAGE(ErrorCode::kArgument, session.evaluate(tokens, {})), "context"));
    const std::vector<int32_t> unknown = {-1};
    ERROR_MESSAGE(ErrorCode::kArgument, session.evaluate(unknown, {}));
    ERROR_MESSAGE(ErrorCode::kArgument, session.rewind(6));
    session.rewind(2);
    session.evaluate(tokens, {});
    CHECK_EQUAL(session.position(), 7u);
    ERROR_MESSAGE(ErrorCode::kCancelled, session.evaluate({tokens.data(), 1}, [] { return true; }));
    CHECK_EQUAL(session.position(), 7u);
  }
  Session again(*engine);
  CHECK_EQUAL(again.position(), 0u);
}

TEST("loading stops at whichever tensor or expert it is asked to") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", tiny_model().build()));
  EngineOptions options;
  options.memory_bytes = uint64_t{1} << 40;
  options.memory = EngineOptions::Memory::kBytes;
  options.mode = Mode::kResident;
  options.num_threads = 1;
  int asked = 0;
  Engine::load(file, options, [&asked] { return ++asked < 0; });
  CHECK(asked >= static_cast<int>(kLayers * (7 + kExperts)));
  for (int last = 1; last <= asked; ++last) {
    int now = 0;
    ERROR_MESSAGE(ErrorCode::kCancelled,
                  Engine::load(file, options, [&] { return ++now == last; }));
  }
}

}  // namespace
}  // namespace edgemoe
