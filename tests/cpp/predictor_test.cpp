// Guesses of every predictor on their way from the engine to the store, and between runs.
#include "experts/predictor.h"

#include <filesystem>

#include "engine/engine.h"
#include "gguf_folder.h"
#include "test.h"
#include "tiny_model.h"

namespace edgemoe {
namespace {

using test::GgufFolder;

class Runs {
 public:
  Runs() : file_(folder_.write("model.gguf", test::tiny_model().build())) {
    options_.memory = EngineOptions::Memory::kLeast;
    options_.num_threads = 1;
    options_.look_ahead = 1;
    options_.preload = PreloadPolicy::kAlways;  // a trial would ask for guesses in some steps only
  }
  EngineOptions& options() { return options_; }
  std::string cache_folder() const { return folder_.path("cache"); }

  // Decodes the tokens one by one; what was guessed of them.
  ReadAheadStats decode(const std::vector<int32_t>& tokens) const {
    const std::unique_ptr<Engine> engine = Engine::load(file_, options_);
    Session session(*engine);
    for (const int32_t& token : tokens) session.evaluate({&token, 1}, {});
    return engine->stats().read_ahead;
  }

 private:
  GgufFolder folder_;
  ModelFile file_;
  EngineOptions options_;
};

void check_true_guesses(const ReadAheadStats& stats, uint64_t count) {
  CHECK_EQUAL(stats.guesses, count);
  CHECK_EQUAL(stats.true_guesses, count);
  CHECK_EQUAL(stats.foreseeable, count);
}

TEST("each predictor guesses the layers that it can foresee") {
  Runs runs;
  const std::vector<int32_t> tokens = {5, 5, 6, 5};
  // Two layers, two experts of each. Routers guess the second layer of every token, the token table
  // the first layer of tokens that came before, transitions the second layer from the second token.
  runs.options().predictor = Predictor::kRouterOnly;
  check_true_guesses(runs.decode(tokens), 4 * 2);
  runs.options().predictor = Predictor::kRouter;
  check_true_guesses(runs.decode(tokens), 4 * 2 + 2 * 2);
  runs.options().predictor = Predictor::kTransitions;
  check_true_guesses(runs.decode(tokens), 3 * 2 + 2 * 2);
  runs.options().look_ahead = 0;
  check_true_guesses(runs.decode(tokens), 0);
  runs.options().look_ahead = 3;
  runs.options().preload = PreloadPolicy::kNone;
  check_true_guesses(runs.decode(tokens), 0);
}

TEST("what a run learned is known to the next; damaged files are ignored") {
  Runs runs;
  runs.options().cache_folder = runs.cache_folder();
  runs.options().predictor = Predictor::kTransitions;
  check_true_guesses(runs.decode({5}), 0);
  check_true_guesses(runs.decode({5}), 4);
  check_true_guesses(runs.decode({6}), 2);
  runs.options().predictor = Predictor::kRouter;
  check_true_guesses(runs.decode({6}), 4);
  for (const auto& entry : std::filesystem::directory_iterator(runs.cache_folder())) {
    std::filesystem::resize_file(entry.path(), entry.file_size() - 1);
  }
  check_true_guesses(runs.decode({6}), 2);
  check_true_guesses(runs.decode({6}), 4);
}

TEST("tables are part of the memory plan") {
  const GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", test::tiny_model().build()));
  EngineOptions options;
  const auto plan = [&](Predictor predictor) {
    options.predictor = predictor;
    return file.plan(options);
  };
  const MemoryPlan least = plan(Predictor::kRouterOnly);
  const MemoryPlan tokens = plan(Predictor::kRouter);
  const MemoryPlan most = plan(Predictor::kTransitions);
  CHECK(least.learned_bytes > 0);
  CHECK(least.learned_bytes < tokens.learned_bytes);
  CHECK(tokens.learned_bytes < most.learned_bytes);
  CHECK(least.least_bytes < most.least_bytes);
  CHECK(describe(most).find("transitions") != std::string::npos);
}

TEST("predictors are found by name, and an unknown name lists them") {
  for (const PredictorName& one : predictors()) {
    CHECK(predictor_from_name(one.name) == one.predictor);
    CHECK(name_of(one.predictor) == one.name);
  }
  const std::string message = ERROR_MESSAGE(ErrorCode::kArgument, predictor_from_name("oracle"));
  CHECK(message.find("'oracle'") != std::string::npos);
  CHECK(message.find("router, transitions, router-only") != std::string::npos);
}

}  // namespace
}  // namespace edgemoe
