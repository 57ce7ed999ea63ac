// Names of the shards of a model: NAME-00001-of-00003.gguf.
#pragma once

#include <string>
#include <vector>

namespace edgemoe {

struct ShardName {
  std::string prefix;  // with folder
  uint32_t number = 1;
  uint32_t count = 1;
};

// The parts of a shard's path; count 1 and number 1 for a path of another form.
ShardName parse_shard_name(const std::string& path);
// All shards in order; just `path` for a file that is not a shard.
std::vector<std::string> shard_paths(const std::string& path);

}  // namespace edgemoe
