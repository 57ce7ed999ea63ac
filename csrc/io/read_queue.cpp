#include "io/read_queue.h"

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "base/units.h"

namespace edgemoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kMaxTries = 64;    // without progress: EINTR, EAGAIN, EBUSY
constexpr uint32_t kMaxFailures = 2;  // EIO: devices recover from one now and then

// Indices that are free, in a vector that grows to the largest need and stays.
template <class T>
class Pool {
 public:
  uint32_t take() {
    if (free_.empty()) {
      items_.emplace_back();
      return static_cast<uint32_t>(items_.size() - 1);
    }
    const uint32_t index = free_.back();
    free_.pop_back();
    items_[index] = T();
    return index;
  }
  void give_back(uint32_t index) { free_.push_back(index); }
  T& operator[](uint32_t index) noexcept { return items_[index]; }

 private:
  std::vector<T> items_;
  std::vector<uint32_t> free_;
};

struct RangeState {
  uint64_t tag = 0;
  uint64_t end = 0;  // of the bytes that are needed, in the file
  uint32_t pieces_left = 0;
  int error = 0;
  uint64_t bytes = 0;  // that were read
};

// What is left to read of one piece.
struct Piece {
  ReadRequest request;  // tag: index of the piece
  uint32_t range = 0;
  uint32_t tries = 0;
  uint32_t failures = 0;
};

}  // namespace

struct ReadQueue::State {
  std::unique_ptr<AsyncReader> reader;
  Pool<RangeState> ranges;
  Pool<Piece> pieces;
  std::vector<uint32_t> waiting;  // pieces to submit, from waiting_first on
  size_t waiting_first = 0;
  std::vector<uint32_t> finished;  // ranges to report, from finished_first on
  size_t finished_first = 0;
  std::vector<ReadResult> results;
  size_t outstanding = 0;  // ranges
  ReadStats stats;
  Clock::time_point busy_since;  // while reads are outstanding in the reader

  // Counts the time until now, in which reads were outstanding.
  void count_busy() {
    const Clock::time_point now = Clock::now();
    stats.busy_ns += static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(now - busy_since).count());
    busy_since = now;
  }

  // Hands waiting pieces over while the reader has room.
  void pump() {
    while (waiting_first < waiting.size()) {
      const ReadRequest& request = pieces[waiting[waiting_first]].request;
      if (reader->outstanding() == 0) busy_since = Clock::now();
      if (reader->submit({&request, 1}) == 0) return;
      ++waiting_first;
    }
    waiting.clear();
    waiting_first = 0;
  }

  void finish_piece(uint32_t index, int error) {
    const uint32_t range_index = pieces[index].range;
    RangeState& range = ranges[range_index];
    pieces.give_back(index);
    if (error != 0 && range.error == 0) range.error = error;
    if (--range.pieces_left > 0) return;
    if (range.error != 0) ++stats.errors;
    finished.push_back(range_index);
  }

  void retry(uint32_t index) {
    ++stats.retries;
    waiting.push_back(index);
  }

  void take_failure(uint32_t index, int error) {
    Piece& piece = pieces[index];
    // The kernel cancels what a thread submitted and left behind when it ended.
    const bool passing = error == EINTR || error == EAGAIN || error == EBUSY || error == ECANCELED;
    if (passing && ++piece.tries < kMaxTries) return retry(index);
    if (error == EIO && ++piece.failures < kMaxFailures) return retry(index);
    finish_piece(index, error);
  }

  void take_bytes(uint32_t index, uint64_t count) {
    Piece& piece = pieces[index];
    ReadRequest& request = piece.request;
    ++stats.reads;
    stats.bytes += count;
    ranges[piece.range].bytes += count;
    const uint64_t end = std::min(request.offset + request.bytes, ranges[piece.range].end);
    if (request.offset + count >= end) return finish_piece(index, 0);
    if (count == 0) return finish_piece(index, ENODATA);
    // Go on from the last aligned byte: the rest must be a valid request too.
    const uint64_t got = align_down(count, request.file->alignment());
    if (got == 0 && ++piece.tries >= kMaxTries) return finish_piece(index, EIO);
    if (got > 0) piece.tries = 0;
    request.offset += got;
    request.destination += got;
    request.bytes -= static_cast<uint32_t>(got);
    retry(index);
  }

  void drain(Wait wait) {
    if (reader->outstanding() == 0) return pump();
    const size_t count = reader->drain(results, wait);
    if (count > 0) count_busy();
    for (const ReadResult& result : std::span(results).first(count)) {
      const auto index = static_cast<uint32_t>(result.tag);
      if (result.outcome < 0) {
        take_failure(index, static_cast<int>(-result.outcome));
      } else {
        take_bytes(index, static_cast<uint64_t>(result.outcome));
      }
    }
    pump();
  }

  CompletedRead report() {
    const uint32_t index = finished[finished_first++];
    if (finished_first == finished.size()) {
      finished.clear();
      finished_first = 0;
    }
    const CompletedRead completed{ranges[index].tag, ranges[index].error, ranges[index].bytes};
    ranges.give_back(index);
    --outstanding;
    return completed;
  }
};

ReadQueue::ReadQueue(std::unique_ptr<AsyncReader> reader) : state_(std::make_unique<State>()) {
  state_->results.resize(reader->depth());
  state_->reader = std::move(reader);
}

ReadQueue::~ReadQueue() {
  if (!state_) return;
  state_->waiting.clear();
  state_->waiting_first = 0;
  while (state_->reader->outstanding() > 0 &&
         state_->reader->drain(state_->results, Wait::kAtLeastOne) > 0) {
  }
}

void ReadQueue::submit(const ReadRange& range) {
  State& state = *state_;
  const uint64_t alignment = range.file->alignment();
  const uint64_t begin = align_down(range.offset, alignment);
  const uint64_t window = window_bytes(range.offset, range.bytes, alignment);
  const uint32_t index = state.ranges.take();
  const auto num_pieces = static_cast<uint32_t>(ceil_div(window, kMaxReadBytes));
  state.ranges[index] = {range.tag, range.offset + range.bytes, num_pieces, 0, 0};
  ++state.outstanding;
  if (num_pieces == 0) state.finished.push_back(index);
  for (uint64_t at = 0; at < window; at += kMaxReadBytes) {
    const uint32_t piece_index = state.pieces.take();
    Piece& piece = state.pieces[piece_index];
    piece.range = index;
    piece.request = {range.file, begin + at,
                     static_cast<uint32_t>(std::min(kMaxReadBytes, window - at)),
                     range.destination + at, piece_index};
    state.waiting.push_back(piece_index);
  }
  state.pump();
}

std::optional<CompletedRead> ReadQueue::next(Wait wait) {
  State& state = *state_;
  if (state.finished.empty()) state.drain(Wait::kNo);
  while (state.finished.empty() && wait == Wait::kAtLeastOne && state.outstanding > 0) {
    state.drain(Wait::kAtLeastOne);
  }
  if (state.finished.empty()) return std::nullopt;
  return state.report();
}

size_t ReadQueue::outstanding_ranges() const noexcept {
  return state_->outstanding;
}
const ReadStats& ReadQueue::stats() const noexcept {
  return state_->stats;
}
std::string_view ReadQueue::backend() const noexcept {
  return state_->reader->name();
}

}  // namespace edgemoe
