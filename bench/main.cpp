// edgemoe-bench: measures the engine without Python. One JSON object on standard output; errors are
// one line on standard error, exit status 2 for bad usage and 1 for everything else.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "base/error.h"
#include "commands.h"

namespace edgemoe::bench {
namespace {

struct Command {
  const char* name;
  void (*run)(Arguments&, JsonWriter&);
};
constexpr Command kCommands[] = {
    {"prefill", prefill_command},         {"decode", decode_command},
    {"fingerprint", fingerprint_command}, {"kernels", kernels_command},
    {"attention", attention_command},     {"reads", reads_command},
};

constexpr const char* kUsage =
    "usage: edgemoe-bench prefill MODEL [--tokens 512] [TEST OPTIONS] [LOAD OPTIONS]\n"
    "       edgemoe-bench decode MODEL [--tokens 128] [TEST OPTIONS] [LOAD OPTIONS]\n"
    "       edgemoe-bench fingerprint MODEL [--tokens 24] [LOAD OPTIONS]\n"
    "       edgemoe-bench kernels [--type Q4_0] [--columns 2048] [--rows 65536] [--threads N]\n"
    "       edgemoe-bench attention [--heads 32] [--kv-heads 4] [--size 128] [--context 8192]\n"
    "                               [--rows 1] [--type all] [--threads N]\n"
    "       edgemoe-bench reads FILE [--bytes 1MiB] [--depth 32] [--seconds 2] [--io auto]\n"
    "test options: --depth N (tokens in the context before the measured ones)  --repetitions 3\n"
    "load options: --memory SIZE|auto|min  --threads N  --context N  --batch N\n"
    "              --mode NAME  --kv-type NAME  --io NAME  --eviction NAME\n"
    "              --preload NAME  --predictor NAME  --look-ahead N  --cache-folder PATH\n"
    "              --lossy-routing AGREEMENT  --lossy-low-copy THRESHOLD\n"
    "              --in-flight SIZE\n"
    "EDGEMOE_LEVEL=NAME in the environment: that level of instructions alone\n";

// A full disk shows at the latest when the buffer is written.
void print_all(const std::string& text) {
  const bool written = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  if (written && std::ferror(stdout) == 0) return;
  throw Error(ErrorCode::kIo, "standard output cannot be written: " + errno_text(errno));
}

int run(const std::vector<std::string>& words) {
  const bool wants_help = std::any_of(words.begin(), words.end(), [](const std::string& word) {
    return word == "-h" || word == "--help";
  });
  if (words.empty() || wants_help) {
    if (!words.empty()) {
      print_all(kUsage);
      return 0;
    }
    std::fputs(kUsage, stderr);
    return 2;
  }
  for (const Command& command : kCommands) {
    if (words[0] != command.name) continue;
    Arguments arguments({words.begin() + 1, words.end()});
    JsonWriter json;
    json.begin_object();
    command.run(arguments, json);
    json.end_object();
    print_all(json.text() + "\n");
    return 0;
  }
  std::string known;
  for (const Command& command : kCommands)
    known += (known.empty() ? "" : ", ") + std::string(command.name);
  std::fprintf(stderr, "edgemoe-bench: '%s' is not a command (%s)\n", words[0].c_str(),
               known.c_str());
  return 2;
}

}  // namespace
}  // namespace edgemoe::bench

int main(int argc, char** argv) {
  try {
    return edgemoe::bench::run({argv + 1, argv + argc});
  } catch (const edgemoe::Error& error) {
    std::fprintf(stderr, "edgemoe-bench: %s\n", error.what());
    return error.code() == edgemoe::ErrorCode::kArgument ? 2 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "edgemoe-bench: %s\n", error.what());
    return 1;
  }
}
