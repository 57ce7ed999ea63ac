#include "model/embedding.h"

#include <exception>
#include <mutex>

#include "quant/unpack.h"

namespace edgemoe {
EmbeddingTable::EmbeddingTable(const BoundTensor& tensor, const File& file, size_t num_threads)
    : tensor_(*tensor.info),
      file_(file),
      row_bytes_(row_bytes(tensor.info->type, tensor.info->columns())),
      bounce_bytes_(file.bounce_bytes(row_bytes_)),
      raw_(row_bytes_ * num_threads),
      bounce_(bounce_bytes_ * num_threads) {
  if (tensor.scale != nullptr) {
    file.read_exact(tensor.scale->offset, {reinterpret_cast<std::byte*>(&scale_), sizeof scale_});
  }
}

void EmbeddingTable::read(std::span<const StepRow> rows, ThreadPool& pool, float* out) const {
  const size_t width = tensor_.columns();
  std::exception_ptr failure;
  std::mutex mutex;  // taken only when a read fails
  pool.parallel_for(rows.size(), [&](size_t row, size_t worker) {
    std::byte* raw = raw_.data() + worker * row_bytes_;
    std::byte* bounce = bounce_.data() + worker * bounce_bytes_;
    float* values = out + row * width;
    try {
      const auto token = static_cast<uint64_t>(rows[row].token);
      file_.read_exact(tensor_.offset + token * row_bytes_, {raw, row_bytes_},
                       {bounce, bounce_bytes_});
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      return;
    }
    dequantize(tensor_.type, raw, width, values);
    if (scale_ != 1.0f) {
      for (size_t i = 0; i < width; ++i) values[i] *= scale_;
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace edgemoe
