// What this machine can do at best, measured: the bounds that benchmarks compare with (design,
// section 6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/should_stop.h"
#include "base/thread_pool.h"
#include "engine/model_file.h"
#include "kernels/kernel_table.h"

namespace edgemoe {

// Sequential reads of a buffer of `buffer_bytes` by all threads of the pool, best of several
// passes. Bytes per second. The buffer should be larger than the last-level cache.
double measure_read_bandwidth(ThreadPool& pool, uint64_t buffer_bytes);

// The same of memory that was written before, in fewer passes.
double measure_read_bandwidth(ThreadPool& pool, std::span<const std::byte> memory);

// A product of a matrix that stays in the cache with `num_tokens` rows of activations, on all
// threads: weights multiplied per second (one weight met by one token counts once).
double measure_multiply_rate(ThreadPool& pool, const kernels::KernelTable& table, QuantType type,
                             uint64_t columns, uint32_t num_tokens);

// The multiply instructions of a level on registers alone, on all threads: products of codes per
// second, in the same units. 0 where the level has none of its own (scalar).
double measure_multiply_peak(ThreadPool& pool, const kernels::KernelTable& table);

// The shard that holds the first expert. Requires: a model with experts.
uint32_t expert_shard(const ModelFile& file);

// Bytes of one read of this model's experts from `shard`. Requires: a model with experts.
uint64_t expert_read_bytes(const ModelFile& file, const File& shard);

// Random reads of the size of this model's expert matrices, `memory_bytes` of them in flight, in
// bytes per second; 0 for a dense model. Asks should_stop now and then. Errors: kIo, kCancelled.
double measure_expert_reads(const ModelFile& file, const ReaderOptions& reader,
                            uint64_t memory_bytes, const ShouldStop& should_stop = {});

// Memory that a measurement may take before a model with this plan is loaded, so that the peak of
// the process stays below the budget.
uint64_t measurement_bytes(const MemoryPlan& plan) noexcept;

}  // namespace edgemoe
