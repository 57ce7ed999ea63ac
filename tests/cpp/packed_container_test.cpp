// Packed containers: what their metadata may say, and how their experts lie.
#include "weights/packed_container.h"

#include <functional>

#include "base/fast_hash.h"
#include "engine/engine.h"
#include "gguf_folder.h"
#include "packed_model.h"
#include "test.h"
#include "weights/checksums.h"

namespace edgemoe {
namespace {

using test::GgufFolder;
using test::GgufImage;
using test::packed_model;

void drop(GgufImage& image, const std::string& name) {
  std::erase_if(image.entries, [&](const GgufImage::Entry& entry) { return entry.key == name; });
  std::erase_if(image.tensors,
                [&](const GgufImage::Tensor& tensor) { return tensor.name == name; });
}

template <class T>
void set(GgufImage& image, const std::string& key, T value) {
  drop(image, key);
  image.add(key, value);
}

// The message of the error of that code that opening the changed container must raise.
std::string refusal(ErrorCode code, const std::function<void(GgufImage&)>& change,
                    GgufImage image = packed_model()) {
  change(image);
  const GgufFolder folder;
  const std::string path = folder.write("model.gguf", image.build());
  const std::string message = ERROR_MESSAGE(code, ModelFile{path});
  CHECK(message.find(path) != std::string::npos);
  return message;
}

void check_mentions(const std::string& message, const std::string& part) {
  if (message.find(part) != std::string::npos) return;
  test::report_failure(__FILE__, __LINE__, "'" + message + "' does not mention '" + part + "'");
}

TEST("an expert of a packed container is one range, whatever its types") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", packed_model().build()));
  REQUIRE(file.packed().has_value());
  for (const uint64_t alignment : {1u, 512u, 4096u}) {
    const ExpertLayout layout = expert_layout(file.spec(), file.tensors(), alignment);
    CHECK(layout.is_regrouped());
    for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
      for (uint32_t expert = 0; expert < layout.num_experts(); ++expert) {
        const ExpertPlace& place = layout.place(layer, expert);
        CHECK_EQUAL(place.num_ranges, 1u);
        uint64_t end = place.ranges[0].slot_offset + place.ranges[0].offset % alignment;
        uint64_t weight_bytes = 0;
        for (const ExpertMatrixPlace& matrix : place.matrices) {
          CHECK(matrix.present);
          CHECK(matrix.slot_offset >= end && matrix.slot_offset - end < 4096);
          const uint64_t bytes = matrix.rows * row_bytes(matrix.type, matrix.columns);
          end = matrix.slot_offset + bytes;
          weight_bytes += bytes;
        }
        CHECK(end <= place.slot_bytes);
        CHECK_EQUAL(weight_bytes, place.weight_bytes);
      }
    }
    CHECK(layout.place(0, 0).matrices[0].type != layout.place(0, 1).matrices[0].type);
  }
}

TEST("versions that are not known are refused with the version that is") {
  for (const std::string key : {"edgemoe.format.version", "edgemoe.layout.version"}) {
    for (const uint32_t version : {0u, 2u, 4'000'000'000u}) {
      const std::string message =
          refusal(ErrorCode::kUnsupported, [&](GgufImage& image) { set(image, key, version); });
      check_mentions(message, key);
      check_mentions(message, std::to_string(version));
    }
    check_mentions(refusal(ErrorCode::kFormat, [&](GgufImage& i) { set(i, key, "one"); }), key);
    check_mentions(refusal(ErrorCode::kFormat, [&](GgufImage& i) { drop(i, key); }), key);
  }
}

TEST("checksums of another number or type are refused by name") {
  for (const std::string key : {"edgemoe.expert.checksums", "edgemoe.dense.checksums"}) {
    const auto with = [&](const auto& values) {
      return refusal(ErrorCode::kFormat, [&](GgufImage& image) {
        drop(image, key);
        image.add_array(key, values);
      });
    };
    check_mentions(with(std::vector<uint64_t>{1, 2, 3}), key);
    check_mentions(with(std::vector<uint64_t>{}), key);
    check_mentions(with(std::vector<float>(8, 1.0f)), key);
    check_mentions(with(std::vector<int64_t>(8, 1)), key);
    check_mentions(with(std::vector<std::string>{"one"}), key);
    check_mentions(refusal(ErrorCode::kFormat, [&](GgufImage& i) { set(i, key, uint64_t{1}); }),
                   key);
    check_mentions(refusal(ErrorCode::kFormat, [&](GgufImage& i) { drop(i, key); }), key);
  }
}

TEST("a packed container whose experts are not all there is refused") {
  const auto without = [](const std::vector<std::string>& names) {
    return refusal(ErrorCode::kFormat, [&](GgufImage& image) {
      for (const std::string& name : names) drop(image, name);
    });
  };
  check_mentions(without({"blk.1.ffn_up.2.weight"}), "blk.1");
  check_mentions(
      without({"blk.0.ffn_gate.3.weight", "blk.0.ffn_up.3.weight", "blk.0.ffn_down.3.weight"}),
      "blk.0");
}

TEST("an expert of another shape, and one too many, are refused by name") {
  const auto with = [](ErrorCode code, const std::string& name, uint64_t rows) {
    return refusal(code, [&](GgufImage& image) {
      drop(image, name);
      image.add_tensor(name, QuantType::kF32, {test::kTinyWidth, rows});
    });
  };
  const std::string shape = "blk.0.ffn_gate.1.weight";
  check_mentions(with(ErrorCode::kUnsupported, shape, test::kTinyHidden / 2), shape);
  const std::string surplus = "blk.0.ffn_gate.4.weight";
  check_mentions(with(ErrorCode::kFormat, surplus, test::kTinyHidden), surplus);
}

TEST("a stock file that says its layout is packed is refused") {
  GgufImage image = test::tiny_model();
  image.add("edgemoe.format.version", uint32_t{1}).add("edgemoe.layout.version", uint32_t{1});
  const GgufFolder folder;
  const std::string path = folder.write("model.gguf", image.build());
  const std::string message = ERROR_MESSAGE(ErrorCode::kFormat, ModelFile{path});
  check_mentions(message, "edgemoe.layout.version");
  check_mentions(message, "_exps.weight");
}

TEST("experts that overlap are refused") {
  const auto overlap = [](GgufImage& image) { image.tensors.back().offset = 0; };
  check_mentions(refusal(ErrorCode::kFormat, overlap), "overlaps");
}

TEST("a stock file with a type for each expert runs as well") {
  GgufImage image = packed_model();
  std::erase_if(image.entries,
                [](const GgufImage::Entry& entry) { return entry.key.starts_with("edgemoe."); });
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", image.build()));
  CHECK(!file.packed());
  CHECK(!expert_layout(file.spec(), file.tensors(), 1).is_regrouped());
}

// Evaluates a few tokens, which use experts 0 and 1 of each layer.
void evaluate(Engine& engine) {
  Session session(engine);
  const std::vector<int32_t> tokens = {1, 2, 3};
  session.evaluate(tokens, {});
}

EngineOptions verifying() {
  EngineOptions options;
  options.memory = EngineOptions::Memory::kLeast;
  options.num_threads = 1;
  options.verify = true;
  return options;
}

TEST("a sound container runs verified, in memory and streamed") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", packed_model().build()));
  EngineOptions options = verifying();
  evaluate(*Engine::load(file, options));
  options.mode = Mode::kResident;
  evaluate(*Engine::load(file, options));
  const ChecksumReport report =
      verify_checksums(file.gguf(), file.tensors(), *file.packed(), ChecksumScope::kAll, {});
  CHECK(!report.first_damaged);
  CHECK_EQUAL(report.num_experts, test::kTinyLayers * test::kTinyExperts);
  CHECK_EQUAL(report.bytes, checksum_bytes(file.gguf(), file.tensors(), ChecksumScope::kAll));
}

// The tensor's last byte is not what was packed.
std::string damaged_model(const GgufFolder& folder, const std::string& name,
                          GgufImage image = packed_model()) {
  for (GgufImage::Tensor& tensor : image.tensors) {
    if (tensor.name == name) tensor.data.back() ^= 0x10;
  }
  return folder.write("model.gguf", image.build());
}

TEST("a damaged expert is named, and the model stays usable") {
  const GgufFolder folder;
  const ModelFile file(damaged_model(folder, "blk.1.ffn_up.1.weight"));
  const std::unique_ptr<Engine> engine = Engine::load(file, verifying());
  for (int i = 0; i < 2; ++i) {
    const std::string message = ERROR_MESSAGE(ErrorCode::kFormat, evaluate(*engine));
    check_mentions(message, "expert 1 of layer 1");
    check_mentions(message, file.gguf().paths()[0]);
  }
  EngineOptions options = verifying();
  options.mode = Mode::kResident;
  check_mentions(ERROR_MESSAGE(ErrorCode::kFormat, Engine::load(file, options)),
                 "expert 1 of layer 1");
  options.verify = false;
  evaluate(*Engine::load(file, options));  // nobody asked
  const ChecksumReport report =
      verify_checksums(file.gguf(), file.tensors(), *file.packed(), ChecksumScope::kAll, {});
  REQUIRE(report.first_damaged.has_value());
  CHECK_EQUAL(report.num_damaged, 1u);
  CHECK_EQUAL(report.first_damaged->layer, 1u);
  CHECK_EQUAL(report.first_damaged->expert, 1u);
}

TEST("low copies are numbered where they are used, and otherwise nowhere") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", test::low_copy_model().build()));
  const ModelFile without(folder.write("without.gguf", packed_model().build()));
  CHECK(file.has_low_copies());
  CHECK(!without.has_low_copies());
  const ExpertLayout plain = expert_layout(file.spec(), file.tensors(), 4096);
  CHECK(!plain.has_low_copies());
  CHECK_EQUAL(plain.total_slot_bytes(),
              expert_layout(without.spec(), without.tensors(), 4096, true).total_slot_bytes());
  const ExpertLayout layout = expert_layout(file.spec(), file.tensors(), 4096, true);
  CHECK_EQUAL(layout.num_experts(), test::kTinyExperts);
  CHECK_EQUAL(layout.numbers_per_layer(), 2 * test::kTinyExperts);
  CHECK_EQUAL(layout.total_weight_bytes(), plain.total_weight_bytes());
  CHECK_EQUAL(layout.low_copy_of(1, 3), 3u);  // it has none
  CHECK_EQUAL(layout.low_copy_of(1, 2), 6u);
  CHECK_EQUAL(layout.expert_of(6), 2u);
  const ExpertPlace& place = layout.place(1, 6);
  CHECK_EQUAL(place.num_ranges, 1u);
  CHECK_EQUAL(place.weight_bytes, 3 * 32 * row_bytes(QuantType::kQ4_0, 64));
  CHECK(place.ranges[0].offset > layout.place(1, 2).ranges[0].offset);
}

TEST("low copies that are incomplete, of other shapes or without a name are refused") {
  const auto changed = [](ErrorCode code, const std::function<void(GgufImage&)>& change) {
    return refusal(code, change, test::low_copy_model());
  };
  const std::string version = "edgemoe.low.version";
  const std::string sums = "edgemoe.low.checksums";
  const std::string one = "blk.1.ffn_up.2.low.weight";
  check_mentions(changed(ErrorCode::kFormat, [&](GgufImage& i) { drop(i, version); }), version);
  check_mentions(
      changed(ErrorCode::kUnsupported, [&](GgufImage& i) { set(i, version, uint32_t{2}); }),
      version);
  check_mentions(changed(ErrorCode::kFormat, [&](GgufImage& i) { drop(i, sums); }), sums);
  check_mentions(changed(ErrorCode::kFormat,
                         [&](GgufImage& i) {
                           drop(i, sums);
                           i.add_array(sums, std::vector<uint64_t>{1, 2, 3});
                         }),
                 sums);
  check_mentions(changed(ErrorCode::kFormat, [&](GgufImage& i) { drop(i, one); }),
                 "low copy of expert 2");
  const auto reshaped = [&](GgufImage& image) {
    for (uint32_t expert = 0; expert + 1 < test::kTinyExperts; ++expert) {
      const std::string name = "blk.1.ffn_up." + std::to_string(expert) + ".low.weight";
      drop(image, name);
      image.add_tensor(name, QuantType::kF32, {test::kTinyWidth, test::kTinyHidden / 2});
    }
  };
  check_mentions(changed(ErrorCode::kFormat, reshaped), "low copy of expert 0");
  const std::string surplus = "blk.0.ffn_gate.4.low.weight";
  check_mentions(changed(ErrorCode::kFormat,
                         [&](GgufImage& i) {
                           i.add_tensor(surplus, QuantType::kF32,
                                        {test::kTinyWidth, test::kTinyHidden});
                         }),
                 surplus);
  GgufImage stock = test::tiny_model();
  stock.add_tensor(one, QuantType::kF32, {test::kTinyWidth, test::kTinyHidden});
  check_mentions(refusal(ErrorCode::kFormat, [](GgufImage&) {}, stock), version);
}

TEST("low copies serve only where they were asked for, and a damaged one is named") {
  const GgufFolder folder;
  // All experts are routed alike: the second has half of the weight before it.
  const ModelFile file(
      damaged_model(folder, "blk.1.ffn_down.1.low.weight", test::low_copy_model()));
  EngineOptions options = verifying();
  evaluate(*Engine::load(file, options));
  options.lossy_low_copy = 0.4;
  const std::unique_ptr<Engine> engine = Engine::load(file, options);
  evaluate(*engine);  // prefill does without
  CHECK_EQUAL(engine->stats().low_copies.choices, 0u);
  Session session(*engine);
  const std::vector<int32_t> tokens = {1};
  const auto decode = [&] { session.evaluate(tokens, {}); };
  std::string message;
  for (int token = 0; token < 4 && message.empty(); ++token) {
    try {
      decode();
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kFormat);
      message = error.what();
    }
  }
  check_mentions(message, "the low copy of expert 1 of layer 1");
  const ChecksumReport report =
      verify_checksums(file.gguf(), file.tensors(), *file.packed(), ChecksumScope::kAll, {});
  CHECK_EQUAL(report.num_low_copies, test::kTinyLayers * (test::kTinyExperts - 1));
  CHECK_EQUAL(report.num_experts, test::kTinyLayers * test::kTinyExperts);
  CHECK_EQUAL(report.bytes, checksum_bytes(file.gguf(), file.tensors(), ChecksumScope::kAll));
  CHECK_EQUAL(report.num_damaged, 1u);
  REQUIRE(report.first_damaged.has_value());
  CHECK(report.first_damaged->low_copy);
  CHECK_EQUAL(report.first_damaged->expert, 1u);
}

TEST("a damaged dense tensor is named when the model is loaded verified") {
  const GgufFolder folder;
  const ModelFile file(damaged_model(folder, "blk.0.attn_q.weight"));
  check_mentions(ERROR_MESSAGE(ErrorCode::kFormat, Engine::load(file, verifying())),
                 "blk.0.attn_q.weight");
  const ModelFile stock(folder.write("stock.gguf", test::tiny_model().build()));
  check_mentions(ERROR_MESSAGE(ErrorCode::kArgument, Engine::load(stock, verifying())), "pack");
}

}  // namespace
}  // namespace edgemoe
