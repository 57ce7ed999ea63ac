// Names of the shards of a model: NAME-00001-of-00003.gguf.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace edgemoe {

struct ShardName {
  std::string prefix;  // with folder
  uint32_t number = 1;
  uint32_t count = 1;
};

// The parts of a shard's path; number 1 and count 1 for a path of another form.
ShardName parse_shard_name(const std::string& path);
// The names PREFIX-00001-of-0000N.gguf of `count` shards.
// Errors: kFormat for more shards than a model can have.
std::vector<std::string> shard_paths(const std::string& prefix, uint32_t count);
// All shards in order, beside the one that was named; just `path` for a file that is not a shard.
// Names come from `path` alone, never from what a file says.
// Errors: kFormat for more shards than a model can have.
std::vector<std::string> shard_paths(const std::string& path);

}  // namespace edgemoe
