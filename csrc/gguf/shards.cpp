#include "gguf/shards.h"

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace edgemoe {
namespace {

constexpr std::string_view kSuffix = ".gguf";
constexpr std::string_view kOf = "-of-";
constexpr size_t kDigits = 5;
constexpr uint32_t kMaxShards = 1024;  // bounds the list of names; models have tens

std::optional<uint32_t> parse_digits(std::string_view text) {
  uint32_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint32_t>(c - '0');
  }
  return value;
}

std::string shard_path(const ShardName& shard, uint32_t number) {
  char text[32];
  std::snprintf(text, sizeof text, "-%05u-of-%05u", number, shard.count);
  return shard.prefix + text + std::string(kSuffix);
}

}  // namespace

ShardName parse_shard_name(const std::string& path) {
  const ShardName single{path, 1, 1};
  constexpr size_t kTail = 1 + kDigits + kOf.size() + kDigits + kSuffix.size();
  if (path.size() <= kTail || !path.ends_with(kSuffix)) return single;
  const std::string_view tail = std::string_view(path).substr(path.size() - kTail);
  if (tail[0] != '-' || tail.substr(1 + kDigits, kOf.size()) != kOf) return single;
  const auto number = parse_digits(tail.substr(1, kDigits));
  const auto count = parse_digits(tail.substr(1 + kDigits + kOf.size(), kDigits));
  if (!number || !count || *number < 1 || *number > *count) return single;
  return {path.substr(0, path.size() - kTail), *number, *count};
}

std::vector<std::string> shard_paths(const std::string& prefix, uint32_t count) {
  if (count > kMaxShards) {
    throw Error(ErrorCode::kFormat, prefix + ": a model has at most " + std::to_string(kMaxShards) +
                                        " shards, not " + std::to_string(count));
  }
  std::vector<std::string> paths;
  for (uint32_t number = 1; number <= count; ++number) {
    paths.push_back(shard_path({prefix, number, count}, number));
  }
  return paths;
}

std::vector<std::string> shard_paths(const std::string& path) {
  const ShardName shard = parse_shard_name(path);
  if (shard.count == 1) return {path};
  if (shard.count > kMaxShards) {
    throw Error(ErrorCode::kFormat, path + ": the name says that the model has " +
                                        std::to_string(shard.count) + " shards; at most " +
                                        std::to_string(kMaxShards) + " are possible");
  }
  return shard_paths(shard.prefix, shard.count);
}

}  // namespace edgemoe
