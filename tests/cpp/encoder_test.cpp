// Models with an encoder: their files are checked in both directions, and their sessions say what
// comes first.
#include "model/encoder.h"

#include <functional>

#include "engine/engine.h"
#include "gguf_folder.h"
#include "gguf_image.h"
#include "test.h"
#include "tiny_model.h"

namespace edgemoe {
namespace {

using test::GgufFolder;
using test::GgufImage;

constexpr uint64_t kWidth = 32;
constexpr uint64_t kHidden = 48;
constexpr uint64_t kHeads = 2;
constexpr uint64_t kInner = 24;  // of all heads
constexpr uint64_t kExperts = 3;
constexpr uint64_t kVocabulary = 20;
constexpr uint64_t kBuckets = 8;

class SwitchImage {
 public:
  GgufImage build() {
    set_keys();
    tensor("token_embd.weight", {kWidth, kVocabulary});
    tensor("enc.output_norm.weight", {kWidth});
    tensor("dec.output_norm.weight", {kWidth});
    add_stack("enc.blk.", 2);
    add_stack("dec.blk.", 3);
    return std::move(image_);
  }

 private:
  void tensor(const std::string& name, std::vector<uint64_t> shape) {
    image_.add_tensor(name, QuantType::kF32, std::move(shape));
  }

  void set_keys() {
    const std::string prefix = "switch-transformers.";
    image_.add("general.architecture", "switch-transformers");
    const auto count = [&](const std::string& key, uint64_t value) {
      image_.add(prefix + key, static_cast<uint32_t>(value));
    };
    count("block_count", 2);
    count("decoder_block_count", 3);
    count("context_length", 64);
    count("embedding_length", kWidth);
    count("feed_forward_length", kHidden);
    count("attention.head_count", kHeads);
    count("attention.key_length", kInner / kHeads);
    count("attention.value_length", kInner / kHeads);
    count("attention.relative_buckets_count", kBuckets);
    count("attention.relative_max_distance", 20);
    count("expert_count", kExperts);
    count("expert_used_count", 1);
    count("decoder_start_token_id", 0);
    image_.add(prefix + "attention.layer_norm_rms_epsilon", 1e-6f);
  }

  void attention(const std::string& name) {
    tensor(name + "_norm.weight", {kWidth});
    for (const char* matrix : {"_q", "_k", "_v"}) {
      tensor(name + matrix + ".weight", {kWidth, kInner});
    }
    tensor(name + "_o.weight", {kInner, kWidth});
  }

  // Experts in every second layer.
  void add_stack(const std::string& prefix, uint32_t num_layers) {
    for (uint32_t layer = 0; layer < num_layers; ++layer) {
      const std::string block = prefix + std::to_string(layer) + ".";
      attention(block + "attn");
      if (layer == 0) tensor(block + "attn_rel_b.weight", {kHeads, kBuckets});
      if (prefix == "dec.blk.") attention(block + "cross_attn");
      tensor(block + "ffn_norm.weight", {kWidth});
      if (layer % 2 == 0) {
        tensor(block + "ffn_up.weight", {kWidth, kHidden});
        tensor(block + "ffn_down.weight", {kHidden, kWidth});
        continue;
      }
      tensor(block + "ffn_gate_inp.weight", {kWidth, kExperts});
      tensor(block + "ffn_up_exps.weight", {kWidth, kHidden, kExperts});
      tensor(block + "ffn_down_exps.weight", {kHidden, kWidth, kExperts});
    }
  }

  GgufImage image_;
};

void drop(GgufImage& image, const std::string& name) {
  std::erase_if(image.entries, [&](const GgufImage::Entry& entry) { return entry.key == name; });
  std::erase_if(image.tensors,
                [&](const GgufImage::Tensor& tensor) { return tensor.name == name; });
}

// The message of the error that must come.
std::string refusal(GgufImage image, const std::function<void(GgufImage&)>& change) {
  change(image);
  const GgufFolder folder;
  const std::string path = folder.write("model.gguf", image.build());
  try {
    const ModelFile file(path);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kFormat || error.code() == ErrorCode::kUnsupported);
    CHECK(std::string(error.what()).find(path) != std::string::npos);
    return error.what();
  }
  return "";
}

void check_refused(const std::string& part, const std::function<void(GgufImage&)>& change,
                   GgufImage image = SwitchImage().build()) {
  const std::string message = refusal(std::move(image), change);
  if (message.find(part) != std::string::npos) return;
  test::report_failure(__FILE__, __LINE__, "'" + message + "' does not mention '" + part + "'");
}

std::unique_ptr<Engine> load(const ModelFile& file) {
  EngineOptions options;
  options.memory = EngineOptions::Memory::kLeast;
  options.num_threads = 2;
  options.context = 16;
  options.batch = 4;
  return Engine::load(file, options);
}

}  // namespace

TEST("an encoder's layers come first and see everything, a decoder's attend to them") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", SwitchImage().build().build()));
  const ModelSpec& spec = file.spec();
  CHECK_EQUAL(spec.num_layers, 5u);
  CHECK_EQUAL(spec.num_encoder_layers, 2u);
  CHECK_EQUAL(spec.decoder_start_token, 0);
  for (uint32_t layer = 0; layer < spec.num_layers; ++layer) {
    const bool decodes = layer >= spec.num_encoder_layers;
    CHECK(spec.layers[layer].attention.causal == decodes);
    CHECK((spec.layers[layer].cross.kind != AttentionKind::kNone) == decodes);
  }
  CHECK(spec.layers[1].ffn.kind == FfnKind::kMoe);
  CHECK(spec.layers[2].ffn.kind == FfnKind::kDense);
  CHECK(spec.layers[3].ffn.kind == FfnKind::kMoe);
}

TEST("damaged files of models with an encoder are refused by name") {
  const auto without = [](const char* name) {
    return [name](GgufImage& image) { drop(image, name); };
  };
  const auto with = [](const char* name, std::vector<uint64_t> shape) {
    return [=](GgufImage& image) { image.add_tensor(name, QuantType::kF32, shape); };
  };
  const auto key = [](const char* name, uint32_t value) {
    return [=](GgufImage& image) {
      drop(image, std::string("switch-transformers.") + name);
      image.add(std::string("switch-transformers.") + name, value);
    };
  };
  check_refused("enc.output_norm.weight", without("enc.output_norm.weight"));
  check_refused("output_norm.weight", without("dec.output_norm.weight"));
  check_refused("enc.blk.0.attn_rel_b.weight is missing", without("enc.blk.0.attn_rel_b.weight"));
  check_refused("dec.blk.0.attn_rel_b.weight is missing", without("dec.blk.0.attn_rel_b.weight"));
  check_refused("dec.blk.1.cross_attn_k.weight is missing",
                without("dec.blk.1.cross_attn_k.weight"));
  check_refused("enc.blk.1.attn_rel_b.weight is present",
                with("enc.blk.1.attn_rel_b.weight", {kHeads, kBuckets}));
  check_refused("enc.blk.0.cross_attn_q.weight is present",
                with("enc.blk.0.cross_attn_q.weight", {kWidth, kInner}));
  check_refused("'enc.blk.2.attn_norm.weight' belongs to no block",
                with("enc.blk.2.attn_norm.weight", {kWidth}));
  check_refused("'blk.0.attn_norm.weight' belongs to neither",
                with("blk.0.attn_norm.weight", {kWidth}));
  check_refused("decoder_block_count", key("decoder_block_count", 0));
  check_refused("decoder_start_token_id", key("decoder_start_token_id", 20));
  check_refused("decoder_start_token_id", without("switch-transformers.decoder_start_token_id"));
  check_refused("relative_buckets_count", key("attention.relative_buckets_count", 2));
  check_refused("relative_max_distance", key("attention.relative_max_distance", 2));
  check_refused("attn_rel_b", key("attention.relative_buckets_count", 6));
  check_refused("lacks some of its experts", [](GgufImage& image) {
    drop(image, "dec.blk.1.ffn_up_exps.weight");
    image.add_tensor("dec.blk.1.ffn_up.0.weight", QuantType::kF32, {kWidth, kHidden});
  });
  check_refused("edgemoe.format.version", [](GgufImage& image) {
    image.add("edgemoe.format.version", uint32_t{9}).add("edgemoe.layout.version", uint32_t{1});
  });
}

TEST("a model without an encoder has no tensors of one") {
  const auto with = [](const char* name) {
    return [=](GgufImage& image) { image.add_tensor(name, QuantType::kF32, {test::kTinyWidth}); };
  };
  check_refused("'enc.blk.0.attn_norm.weight' belongs to an encoder",
                with("enc.blk.0.attn_norm.weight"), test::tiny_model());
  check_refused("enc.output_norm.weight", with("enc.output_norm.weight"), test::tiny_model());
  check_refused("cross_attn_norm.weight is present", with("blk.0.cross_attn_norm.weight"),
                test::tiny_model());
}

TEST("a decoder evaluates nothing before its encoder has read a prompt") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", SwitchImage().build().build()));
  const std::unique_ptr<Engine> engine = load(file);
  const std::vector<int32_t> tokens = {0, 3, 4, 5, 6, 7, 8};
  {
    Session session(*engine);
    ERROR_MESSAGE(ErrorCode::kArgument, session.evaluate(tokens, {}));
    session.encode(tokens, {});
    session.evaluate(tokens, {});
    CHECK_EQUAL(session.position(), tokens.size());
    session.encode(tokens, {});  // a new sequence
    CHECK_EQUAL(session.position(), 0u);
    ERROR_MESSAGE(ErrorCode::kArgument, session.encode(std::vector<int32_t>(17, 1), {}));
    ERROR_MESSAGE(ErrorCode::kArgument, session.encode({}, {}));
    ERROR_MESSAGE(ErrorCode::kArgument, session.encode(std::vector<int32_t>{20}, {}));
    session.evaluate(tokens, {});  // the prompt is still there
  }
  Session session(*engine);
  ERROR_MESSAGE(ErrorCode::kArgument, session.evaluate(tokens, {}));
}

TEST("a prompt that was not read to the end is none") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", SwitchImage().build().build()));
  const std::unique_ptr<Engine> engine = load(file);
  const std::vector<int32_t> tokens = {3, 4, 5, 6, 7, 8};
  Session session(*engine);
  session.encode(tokens, {});
  int asked = 0;
  bool cancelled = false;
  try {
    session.encode(tokens, [&] { return ++asked == 2; });
  } catch (const Error& error) {
    cancelled = error.code() == ErrorCode::kCancelled;
  }
  CHECK(cancelled);
  ERROR_MESSAGE(ErrorCode::kArgument, session.evaluate(tokens, {}));
  session.encode(tokens, {});
  session.evaluate(tokens, {});
}

TEST("a model without an encoder has nothing that reads a prompt first") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", test::tiny_model().build()));
  const std::unique_ptr<Engine> engine = load(file);
  Session session(*engine);
  ERROR_MESSAGE(ErrorCode::kArgument, session.encode(std::vector<int32_t>{1, 2}, {}));
}

TEST("what an encoder works with is planned, and grows with the context alone") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", SwitchImage().build().build()));
  const auto cache_bytes = [&](uint32_t context) {
    EngineOptions options;
    options.context = context;
    options.kv_type = kernels::KvType::kF32;
    return file.plan(options).kv_cache_bytes;
  };
  // The stream, keys and values of one layer of the encoder; those of the decoder's layers, and
  // what these make of the encoder's result; biases by distance, which are one less than twice as
  // many for the encoder.
  const uint64_t floats = kWidth + 2 * kInner + 3 * (2 * kInner + 2 * kInner) + 3 * kHeads;
  CHECK_EQUAL(cache_bytes(256) - cache_bytes(128), 128 * floats * sizeof(float));
}

}  // namespace edgemoe
