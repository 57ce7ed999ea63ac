#include "bitwidth/packed_tensors.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "quant/error_feedback.h"
#include "quant/layout.h"
#include "quant/quantize.h"
#include "weights/tensor_names.h"

namespace edgemoe {
namespace {

constexpr ExpertMatrix kMatrices[] = {ExpertMatrix::kGate, ExpertMatrix::kUp, ExpertMatrix::kDown};

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kArgument, what);
}

class Builder {
 public:
  Builder(const PackSource& source, const PackRequest& request)
      : source_(source), request_(request) {
    const size_t num_experts = size_t{source.num_layers()} * source.num_experts();
    if (request.expert_types.size() != num_experts) {
      fail("types for " + std::to_string(request.expert_types.size()) + " experts; the model has " +
           std::to_string(num_experts));
    }
    const size_t num_low = request.low_types.size();
    if (num_low != 0 && (num_low != num_experts || request.format == PackFormat::kStock)) {
      fail("low copies are for the packed container, with types for each expert or none");
    }
    check_numbers(request.importance.expert_input, "expert inputs");
    check_numbers(request.importance.expert_hidden, "expert hidden states");
  }

  PackedTensors run() {
    for (const DenseSource& dense : source_.dense()) add_dense(dense);
    for (uint32_t layer = 0; layer < source_.num_layers(); ++layer) {
      if (!source_.is_moe(layer)) continue;
      if (request_.format == PackFormat::kStock) {
        add_stacks(layer);
      } else {
        for (uint32_t e = 0; e < source_.num_experts(); ++e) add_copies(layer, e);
      }
    }
    check_dense_names();
    return std::move(out_);
  }

 private:
  void add_dense(const DenseSource& dense) {
    const TensorInfo& from = *dense.tensor;
    PackedTensor tensor;
    tensor.name = dense.name;
    tensor.shape.assign(from.shape.begin(), from.shape.begin() + from.num_dimensions);
    tensor.source_type = tensor.type = from.type;
    tensor.rows = from.rows();
    tensor.pieces = {{from.shard, from.offset, from.rows()}};
    if (const auto found = request_.dense_types.find(from.name);
        found != request_.dense_types.end()) {
      tensor.type = found->second;
      if (!dense.may_quantize && !tensor.keeps_type()) {
        fail("tensor '" + from.name + "' keeps its type: it is no matrix of weights");
      }
    }
    tensor.rows_per_importance = from.shape[1];
    tensor.importance = importance_of(from.name, from.shape[2] * from.shape[3], tensor);
    add_tensor(std::move(tensor));
    out_.units.push_back({out_.tensors.size() - 1, 1, -1});
  }

  void add_copies(uint32_t layer, uint32_t expert) {
    const size_t index = size_t{layer} * source_.num_experts() + expert;
    add_expert(layer, expert, request_.expert_types[index], false);
    if (request_.low_types.empty() || !request_.low_types[index]) return;
    add_expert(layer, expert, *request_.low_types[index], true);
  }

  void add_expert(uint32_t layer, uint32_t expert, const ExpertTypes& types, bool low_copy) {
    PackUnit unit{out_.tensors.size(), 0, int64_t{layer} * source_.num_experts() + expert,
                  low_copy};
    for (const ExpertMatrix matrix : kMatrices) {
      const ExpertSource& from = source_.expert(layer, expert, matrix);
      if (from.tensor == nullptr) continue;
      PackedTensor tensor;
      tensor.name =
          low_copy ? low_copy_name(layer, matrix, expert) : expert_name(layer, matrix, expert);
      tensor.shape = {from.columns(), from.rows};
      tensor.source_type = from.type();
      tensor.type = types[static_cast<size_t>(matrix)];
      tensor.rows = from.rows;
      tensor.pieces = {{from.tensor->shard, from.offset, from.rows}};
      tensor.ungroup = source_.is_packed();
      tensor.regroup = true;
      tensor.rows_per_importance = from.rows;
      tensor.importance = expert_importance(layer, expert, matrix, tensor);
      tensor.feedback = expert_feedback(layer, expert, matrix, tensor);
      add_tensor(std::move(tensor));
      ++unit.num_tensors;
    }
    out_.units.push_back(unit);
  }

  void add_stacks(uint32_t layer) {
    for (const ExpertMatrix matrix : kMatrices) {
      const ExpertSource& first = source_.expert(layer, 0, matrix);
      if (first.tensor == nullptr) continue;
      PackedTensor tensor;
      tensor.name = expert_stack_name(layer, matrix);
      tensor.shape = {first.columns(), first.rows, source_.num_experts()};
      tensor.source_type = first.type();
      tensor.type = type_of(layer, 0, matrix);
      tensor.ungroup = source_.is_packed();
      tensor.rows_per_importance = first.rows;
      tensor.importance = expert_importance(layer, 0, matrix, tensor);
      tensor.feedback = expert_feedback(layer, 0, matrix, tensor);
      for (uint32_t expert = 0; expert < source_.num_experts(); ++expert) {
        const ExpertSource& from = source_.expert(layer, expert, matrix);
        if (from.type() != tensor.source_type) {
          fail("the experts of layer " + std::to_string(layer) +
               " have several types; the stock layout is packed from sources with one, or use "
               "the packed container");
        }
        if (type_of(layer, expert, matrix) != tensor.type) {
          fail("the stock layout has one type for all experts of a layer; layer " +
               std::to_string(layer) + " was to get several");
        }
        tensor.pieces.push_back({from.tensor->shard, from.offset, from.rows});
        tensor.rows += from.rows;
      }
      add_tensor(std::move(tensor));
      out_.units.push_back({out_.tensors.size() - 1, 1, -1});
    }
  }

  QuantType type_of(uint32_t layer, uint32_t expert, ExpertMatrix matrix) const {
    return request_
        .expert_types[size_t{layer} * source_.num_experts() + expert][static_cast<size_t>(matrix)];
  }

  void add_tensor(PackedTensor tensor) {
    const QuantTraits& quant = traits(tensor.type);
    if (!tensor.keeps_type() && !can_quantize(tensor.type)) {
      fail("tensor '" + tensor.name + "' is " + std::string(traits(tensor.source_type).name) +
           " and cannot become " + std::string(quant.name) + ": edgemoe does not write that type");
    }
    if (tensor.columns() % quant.block_elements != 0) {
      fail("tensor '" + tensor.name + "' cannot become " + std::string(quant.name) +
           ": its rows of " + std::to_string(tensor.columns()) +
           " weights are not whole blocks of " + std::to_string(quant.block_elements));
    }
    tensor.ungroup = tensor.ungroup && is_packed(tensor.source_type);
    tensor.regroup = tensor.regroup && is_packed(tensor.type);
    out_.tensors.push_back(std::move(tensor));
  }

  // The rows of importance for a tensor of `count` matrices of the source, from the tables by name.
  const float* importance_of(const std::string& name, uint64_t count, const PackedTensor& tensor) {
    const auto found = request_.importance.tensors.find(name);
    if (found == request_.importance.tensors.end() || tensor.keeps_type()) return nullptr;
    check_shape(found->second, name, count * tensor.columns());
    if (checked_.insert(found->second.data()).second) check_numbers(found->second, name);
    return found->second.data();
  }

  const float* expert_importance(uint32_t layer, uint32_t expert, ExpertMatrix matrix,
                                 const PackedTensor& tensor) {
    if (tensor.keeps_type()) return nullptr;
    const uint64_t experts = source_.num_experts();
    const uint64_t columns = tensor.columns();
    const PackImportance& all = request_.importance;
    const std::span<const float> table =
        matrix == ExpertMatrix::kDown ? all.expert_hidden : all.expert_input;
    if (!table.empty()) {
      check_shape(table, "experts", source_.num_layers() * experts * columns);
      return of_expert(table.data() + (layer * experts + expert) * columns, columns);
    }
    // By name: of the stack, as the source calls it or as others do, or of this expert alone.
    const TensorInfo& from = *source_.expert(layer, expert, matrix).tensor;
    if (meaning_of(from.name)->expert && request_.format == PackFormat::kContainer) {
      if (const float* one = importance_of(from.name, 1, tensor)) return one;
    }
    for (const std::string& name : {from.name, expert_stack_name(layer, matrix)}) {
      if (meaning_of(name)->expert) continue;
      if (const float* stack = importance_of(name, experts, tensor)) {
        return of_expert(stack + expert * columns, columns);
      }
    }
    return nullptr;
  }

  TensorFeedback expert_feedback(uint32_t layer, uint32_t expert, ExpertMatrix matrix,
                                 const PackedTensor& tensor) const {
    const PackImportance& all = request_.importance;
    const bool is_down = matrix == ExpertMatrix::kDown;
    const PackFeedback& table = is_down ? all.hidden_feedback : all.input_feedback;
    TensorFeedback feedback;
    if (table.per_layer == 0 || tensor.keeps_type() || tensor.importance == nullptr ||
        !can_feed_back(tensor.type)) {
      return feedback;
    }
    const uint64_t columns = tensor.columns();
    const uint64_t experts = source_.num_experts();
    if ((table.per_layer != 1 && table.per_layer != experts) ||
        table.diagonal.size() != source_.num_layers() * table.per_layer * columns ||
        table.pivots.size() != table.diagonal.size() ||
        table.upper.size() != table.diagonal.size() * columns) {
      fail("the profile's covariances are of another model than '" + tensor.name + "'");
    }
    const uint64_t index = layer * table.per_layer + (table.per_layer == 1 ? 0 : expert);
    feedback.upper = table.upper.data() + index * columns * columns;
    feedback.pivots = table.pivots.data() + index * columns;
    if (table.per_layer == 1) {
      feedback.diagonal = table.diagonal.data() + index * columns;
    } else {
      feedback.step = 1;
    }
    return feedback;
  }

  // Null for an expert that was never reached: then all columns count alike.
  const float* of_expert(const float* row, uint64_t columns) const {
    if (request_.format == PackFormat::kStock) return row;  // of all experts
    return std::any_of(row, row + columns, [](float one) { return one > 0; }) ? row : nullptr;
  }

  static void check_shape(std::span<const float> table, const std::string& name, uint64_t count) {
    if (table.size() == count) return;
    fail("the importance of '" + name + "' has " + std::to_string(table.size()) +
         " numbers; the model asks for " + std::to_string(count) + ": it is of another model");
  }

  static void check_numbers(std::span<const float> table, const std::string& name) {
    for (size_t i = 0; i < table.size(); ++i) {
      if (table[i] >= 0 && std::isfinite(table[i])) continue;
      fail("the importance of '" + name + "' is not a finite number of 0 or more at element " +
           std::to_string(i) + "; measure it again");
    }
  }

  void check_dense_names() const {
    for (const auto& [name, type] : request_.dense_types) {
      const auto& dense = source_.dense();
      const bool known = std::any_of(dense.begin(), dense.end(), [&](const DenseSource& one) {
        return one.tensor->name == name;
      });
      if (!known) {
        fail("'" + name + "' is no dense tensor of the model; edgemoe inspect lists them");
      }
    }
  }

  const PackSource& source_;
  const PackRequest& request_;
  PackedTensors out_;
  std::set<const float*> checked_;
};

}  // namespace

PackedTensors packed_tensors(const PackSource& source, const PackRequest& request) {
  return Builder(source, request).run();
}

}  // namespace edgemoe
