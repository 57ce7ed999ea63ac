#include "engine/learned_state.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/units.h"
#include "engine/machine_limits.h"
#include "experts/expert_store.h"
#include "io/device_probe.h"

namespace edgemoe {
namespace {

constexpr const char* kInFlight = "bytes in flight of large pages";
constexpr double kProbeSeconds = 0.02;  // of each of its steps

uint64_t hash_value(uint64_t value, uint64_t seed) noexcept {
  return hash_bytes(std::as_bytes(std::span(&value, 1)), seed);
}
uint64_t hash_text(std::string_view text, uint64_t seed) noexcept {
  return hash_bytes(std::as_bytes(std::span(text)), hash_value(text.size(), seed));
}

// Differs for models whose experts differ in number, size or place.
uint64_t model_key(const ModelFile& model) noexcept {
  uint64_t key = hash_value(model.gguf().file_bytes(), kHashSeed);
  for (const TensorInfo& tensor : model.gguf().tensors()) {
    key = hash_value(tensor.offset, hash_text(tensor.name, key));
    key = hash_value(static_cast<uint64_t>(tensor.type), key);
  }
  return key;
}

std::string path_of(const std::string& folder, const char* kind, uint64_t key) {
  char name[64];
  std::snprintf(name, sizeof(name), "/%s-%016llx.bin", kind, static_cast<unsigned long long>(key));
  return folder + name;
}

}  // namespace

Sections read_model_state(const std::string& folder, const ModelFile& model) {
  if (folder.empty()) return {};
  const uint64_t key = model_key(model);
  return read_sections(path_of(folder, "model", key), key);
}

void write_model_state(const std::string& folder, const ModelFile& model, const Sections& state) {
  if (folder.empty()) return;
  const uint64_t key = model_key(model);
  write_sections(path_of(folder, "model", key), key, state);
}

uint64_t device_in_flight_bytes(const ModelFile& model, std::span<const File> files,
                                const EngineOptions& options, const ShouldStop& should_stop) {
  const File& shard = files[expert_shard(model)];
  const uint64_t read_bytes = expert_read_bytes(model, shard);
  uint64_t key = hash_text(options.reader.backend, hash_value(shard.device(), kHashSeed));
  key = hash_value(read_bytes, key);
  const std::string path = path_of(options.cache_folder, "device", key);
  if (!options.cache_folder.empty()) {
    const Sections kept = read_sections(path, key);
    const auto found = kept.find(kInFlight);
    uint64_t bytes = 0;
    if (found != kept.end() && found->second.size() == sizeof(bytes)) {
      std::memcpy(&bytes, found->second.data(), sizeof(bytes));
      return std::clamp<uint64_t>(bytes, read_bytes, 256 * kMiB);
    }
  }
  uint64_t bytes = 0;
  try {
    bytes = measure_in_flight(shard, options.reader, read_bytes, kProbeSeconds, should_stop);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) throw;
    return ExpertStoreOptions().in_flight_bytes;
  }
  if (!options.cache_folder.empty()) {
    const auto raw = std::as_bytes(std::span(&bytes, 1));
    write_sections(path, key, {{kInFlight, {raw.begin(), raw.end()}}});
  }
  return bytes;
}

}  // namespace edgemoe
