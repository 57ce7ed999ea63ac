#include "model/position_bias.h"

#include "test.h"

namespace edgemoe {
namespace {

AttentionSpec buckets(uint32_t count, uint32_t distance, bool causal) {
  AttentionSpec attention;
  attention.position_buckets = count;
  attention.bucket_distance = distance;
  attention.causal = causal;
  return attention;
}

struct Expected {
  int64_t distance;
  uint32_t bucket;
};

}  // namespace

// Worked out by hand from the formula: 16 single distances, then 16 + 16 log(d / 16) / log(8).
TEST("a decoder's buckets are single distances, then grow by their logarithm") {
  const AttentionSpec attention = buckets(32, 128, true);
  for (const Expected& one : {Expected{0, 0},
                              {5, 0},
                              {-1, 1},
                              {-15, 15},
                              {-16, 16},
                              {-18, 16},
                              {-19, 17},
                              {-32, 21},
                              {-64, 26},
                              {-127, 31},
                              {-128, 31},
                              {-100000, 31}}) {
    CHECK_EQUAL(position_bucket(attention, one.distance), one.bucket);
  }
}

// Half of them for each direction: 8 single distances, then 8 + 8 log(d / 8) / log(16). Powers of
// two lie exactly on an edge.
TEST("an encoder's buckets tell keys before a query from those behind it") {
  const AttentionSpec attention = buckets(32, 128, false);
  for (const Expected& one : {Expected{0, 0},
                              {-7, 7},
                              {7, 23},
                              {-8, 8},
                              {8, 24},
                              {-15, 9},
                              {-16, 10},
                              {-31, 11},
                              {-32, 12},
                              {-63, 13},
                              {-64, 14},
                              {64, 30},
                              {-127, 15},
                              {-128, 15},
                              {128, 31},
                              {100000, 31}}) {
    CHECK_EQUAL(position_bucket(attention, one.distance), one.bucket);
  }
}

TEST("few buckets stay within their number") {
  for (const bool causal : {true, false}) {
    for (uint32_t count = causal ? 2 : 4; count < 20; ++count) {
      const AttentionSpec attention = buckets(count, count, causal);
      for (int64_t distance = -300; distance < 300; ++distance) {
        CHECK(position_bucket(attention, distance) < count);
      }
    }
  }
}

}  // namespace edgemoe
