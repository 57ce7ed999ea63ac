// A journal gives back what was noted, and never more: cut, damaged or foreign ones give less.
#include "bitwidth/pack_journal.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "temporary_file.h"
#include "test.h"

namespace edgemoe::test {
namespace {

constexpr uint64_t kKey = 0x1234;

UnitRecord record(uint64_t unit) {
  UnitRecord one;
  one.unit = unit;
  one.hash = unit * 7919 + 1;
  one.losses[1] = {static_cast<double>(unit), 0.1};
  return one;
}

// A journal of `count` units.
void write(const std::string& path, size_t count) {
  PackJournal journal(path, kKey, false);
  for (size_t i = 0; i < count; ++i) journal.add(record(i));
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST("records are read again, and more are added") {
  const TemporaryFile place(0);
  write(place.path(), 3);
  {
    PackJournal journal(place.path(), kKey, true);
    CHECK_EQUAL(journal.records().size(), size_t{3});
    CHECK_EQUAL(journal.records()[2].hash, record(2).hash);
    CHECK(journal.records()[2].losses[1].error == 2.0);
    CHECK(!journal.is_sealed());
    journal.keep(2);
    journal.add(record(2));
    journal.add(record(3));
    journal.seal();
  }
  PackJournal journal(place.path(), kKey, true);
  CHECK_EQUAL(journal.records().size(), size_t{4});
  CHECK(journal.is_sealed());
  journal.keep(4);
  CHECK(!journal.is_sealed());
}

TEST("a journal of another key, or an unwanted one, is empty") {
  const TemporaryFile place(0);
  write(place.path(), 3);
  CHECK(PackJournal(place.path(), kKey + 1, true).records().empty());
  CHECK(PackJournal(place.path(), kKey, true).records().empty());  // it was started afresh
  write(place.path(), 3);
  CHECK(PackJournal(place.path(), kKey, false).records().empty());
}

TEST("a cut journal ends at the last whole record") {
  const TemporaryFile place(0);
  write(place.path(), 5);
  const std::string whole = contents(place.path());
  const size_t header = 16;
  const size_t entry = (whole.size() - header) / 5;
  for (size_t bytes = 0; bytes < whole.size(); bytes += 5) {
    std::ofstream(place.path(), std::ios::binary | std::ios::trunc) << whole.substr(0, bytes);
    PackJournal journal(place.path(), kKey, true);
    CHECK_EQUAL(journal.records().size(), bytes < header ? 0 : (bytes - header) / entry);
    // Going on after a cut record leaves a whole journal.
    const size_t count = journal.records().size();
    journal.add(record(count));
    CHECK_EQUAL(contents(place.path()).size(),
                header + std::max(bytes < header ? 0 : bytes - header, (count + 1) * entry));
  }
}

TEST("a flipped bit ends the journal before its record") {
  const TemporaryFile place(0);
  write(place.path(), 4);
  const std::string whole = contents(place.path());
  for (size_t at = 16; at < whole.size(); at += 3) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    std::ofstream(place.path(), std::ios::binary | std::ios::trunc) << damaged;
    CHECK_EQUAL(PackJournal(place.path(), kKey, true).records().size(),
                (at - 16) / ((whole.size() - 16) / 4));
  }
}

TEST("two runs do not hold one journal") {
  const TemporaryFile place(0);
  PackJournal journal(place.path(), kKey, true);
  const std::string message = ERROR_MESSAGE(ErrorCode::kIo, PackJournal(place.path(), kKey, true));
  CHECK(message.find("another edgemoe pack") != std::string::npos);
}

TEST("a removed journal is gone") {
  const TemporaryFile place(0);
  PackJournal(place.path(), kKey, true).remove();
  CHECK(!std::filesystem::exists(place.path()));
}

}  // namespace
}  // namespace edgemoe::test
