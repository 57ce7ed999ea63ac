#include "io/file.h"

#include <sys/stat.h>

#include <cstring>

#include "temporary_file.h"
#include "test.h"

namespace edgemoe {
namespace {

using test::TemporaryFile;

TEST("exact reads bring the bytes whatever the alignment, through both kinds of access") {
  const TemporaryFile temporary(300000);
  for (const FileAccess access : {FileAccess::kDirect, FileAccess::kBuffered}) {
    const File file(temporary.path(), access);
    CHECK_EQUAL(file.size(), temporary.size());
    for (const size_t offset : {0u, 1u, 511u, 4096u, 299999u}) {
      for (const size_t bytes : {0u, 1u, 513u, 8192u, 290000u}) {
        if (offset + bytes > temporary.size()) continue;
        std::vector<std::byte> out(bytes);
        file.read_exact(offset, out);
        if (bytes == 0) continue;
        CHECK(std::memcmp(out.data(), temporary.data() + offset, bytes) == 0);
      }
    }
  }
}

TEST("reading past the end is an error that names file and offset") {
  const TemporaryFile temporary(1000);
  const File file(temporary.path(), FileAccess::kDirect);
  std::vector<std::byte> out(10);
  const std::string message = ERROR_MESSAGE(ErrorCode::kIo, file.read_exact(995, out));
  CHECK(message.find(temporary.path()) != std::string::npos);
  CHECK(message.find("995") != std::string::npos);
  ERROR_MESSAGE(ErrorCode::kIo, file.read_exact(~uint64_t{0} - 3, out));
}

TEST("a file that shrinks after opening gives an error") {
  const TemporaryFile temporary(100000);
  const File file(temporary.path(), FileAccess::kDirect);
  REQUIRE(::truncate(temporary.path().c_str(), 5000) == 0);
  std::vector<std::byte> out(50000);
  const std::string message = ERROR_MESSAGE(ErrorCode::kIo, file.read_exact(0, out));
  CHECK(message.find("truncated") != std::string::npos);
}

TEST("what is not a regular file is refused without waiting") {
  CHECK(!ERROR_MESSAGE(ErrorCode::kIo, File("/no/such/file", FileAccess::kDirect)).empty());
  const std::string folder = ERROR_MESSAGE(ErrorCode::kIo, File("/tmp", FileAccess::kDirect));
  CHECK(folder.find("directory") != std::string::npos);
  std::string fifo = (std::filesystem::temp_directory_path() / "edgemoe-fifo-XXXXXX").string();
  ::close(::mkstemp(fifo.data()));
  ::unlink(fifo.c_str());
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  const std::string refused = ERROR_MESSAGE(ErrorCode::kIo, File(fifo, FileAccess::kBuffered));
  CHECK(refused.find("regular") != std::string::npos);
  ::unlink(fifo.c_str());
}

}  // namespace
}  // namespace edgemoe
