// Options of loading and of sampling: plain values with defaults and units.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/mode.h"
#include "experts/eviction.h"
#include "experts/predictor.h"
#include "experts/read_ahead.h"
#include "io/async_reader.h"
#include "kernels/kernel_table.h"

namespace edgemoe {

inline constexpr uint32_t kDefaultContext = 4096;
inline constexpr uint32_t kDefaultBatch = 512;
// Where experts are streamed each batch reads most of them: the larger, the fewer times.
inline constexpr uint32_t kStreamingBatch = 2048;

struct EngineOptions {
  enum class Memory : uint8_t {
    kAuto,   // what the machine or its cgroup can spare
    kLeast,  // the least that runs
    kBytes,  // memory_bytes
  };
  Memory memory = Memory::kAuto;
  uint64_t memory_bytes = 0;  // bound of the whole process (kBytes)
  uint32_t num_threads = 0;   // 0: the CPUs this process may use
  uint32_t context = 0;       // positions; 0: min(trained context, kDefaultContext)
  uint32_t batch = 0;         // rows of one prefill step; 0: as memory allows
  kernels::KvType kv_type = kernels::KvType::kF16;
  Mode mode = Mode::kStream;
  EvictionPolicy eviction = EvictionPolicy::kLayerAware;
  PreloadPolicy preload = PreloadPolicy::kAuto;  // see preload_of
  Predictor predictor = Predictor::kRouter;
  uint32_t look_ahead = 2;       // layers whose experts are guessed early, at most kMaxDistance
  uint64_t in_flight_bytes = 0;  // of reads ahead and demands together; 0: measured
  ReaderOptions reader;
  std::string cache_folder;  // where what is learned is kept between runs; empty: nowhere
  // Whether pressure on the system's memory shrinks the pool. An explicit budget holds by itself.
  enum class Governing : uint8_t { kAuto, kOn, kOff };  // kAuto: with Memory::kAuto
  Governing governing = Governing::kAuto;
  std::string system_root = "/";  // where /proc and /sys are; tests imitate them
  uint64_t reserved_bytes = 0;    // of the budget, which the caller takes for itself
  // Compare what is read of a packed container with its checksums: dense weights when the model is
  // loaded, experts whenever they are read.
  bool verify = false;
  // Lossy: the agreement that cache-aware routing of decoded tokens keeps; 1: routers decide. Then
  // PreloadPolicy::kAuto reads nothing ahead in decode.
  double lossy_routing = 1.0;
  // Lossy: on a miss while decoding, an expert's low copy serves where those ranked before it have
  // more than this share of the token's routing weight; 1: never. As above for reading ahead.
  double lossy_low_copy = 1.0;
  bool trace = false;  // record the events of a step; see Engine::take_trace
};

// Zero or neutral values switch a rule off. Applied in the order of the fields.
struct SamplingOptions {
  std::vector<std::pair<int32_t, float>> logit_bias;  // token, added to its logit
  float repetition_penalty =
      1.0f;  // > 0; divides positive, multiplies negative logits of seen tokens
  float frequency_penalty = 0.0f;  // times the count among the last tokens
  float presence_penalty = 0.0f;
  uint32_t penalty_window = 64;  // last tokens that penalties look at
  float temperature = 0.8f;      // 0: greedy
  uint32_t top_k = 40;           // 0: all
  float top_p = 0.95f;           // 1: all
  float min_p = 0.05f;           // 0: all
  uint64_t seed = 0;
};

}  // namespace edgemoe
