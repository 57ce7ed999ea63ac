// Token embeddings. The rows stay on storage: a step reads those that it needs, so the table costs
// no memory.
#pragma once

#include <span>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "io/file.h"
#include "model/step.h"
#include "weights/model_tensors.h"

namespace edgemoe {

class EmbeddingTable {
 public:
  // `file` is the shard that holds the tensor; borrowed.
  EmbeddingTable(const BoundTensor& tensor, const File& file, size_t num_threads);

  // out[row] = embedding of rows[row].token, float32. Errors: kIo.
  void read(std::span<const StepRow> rows, ThreadPool& pool, float* out) const;

 private:
  const TensorInfo& tensor_;
  const File& file_;
  float scale_ = 1.0f;
  uint64_t row_bytes_;
  size_t bounce_bytes_;
  mutable std::vector<std::byte> raw_;  // one row per thread
  mutable AlignedBuffer bounce_;        // for direct reads, bounce_bytes_ per thread
};

}  // namespace edgemoe
