#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/interruptible.h"
#include "experts/predictor_recall.h"
#include "experts/replay.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

// Columns turn, phase, step, layer, expert, token id.
constexpr py::ssize_t kColumns = 6;
using Rows = py::array_t<uint32_t, py::array::c_style | py::array::forcecast>;

std::vector<TraceRow> rows_from(const Rows& array) {
  if (array.ndim() != 2 || array.shape(1) != kColumns) {
    throw Error(ErrorCode::kArgument,
                "rows have 6 columns: turn, phase, step, layer, expert, token");
  }
  const auto values = array.unchecked<2>();
  std::vector<TraceRow> rows;
  rows.reserve(static_cast<size_t>(values.shape(0)));
  for (py::ssize_t i = 0; i < values.shape(0); ++i) {
    const TracePhase phase = values(i, 1) == 0 ? TracePhase::kPrefill : TracePhase::kDecode;
    rows.push_back({values(i, 0), phase, values(i, 2), values(i, 3), values(i, 4), values(i, 5)});
  }
  return rows;
}

py::dict dict_of(const ReplayCounts& counts) {
  py::dict dict;
  dict["demands"] = counts.demands;
  dict["hits"] = counts.hits;
  return dict;
}

py::dict dict_of(const ReplayResult& result) {
  py::dict dict;
  dict["prefill"] = dict_of(result.phases[0]);
  dict["decode"] = dict_of(result.phases[1]);
  dict["evictions"] = result.evictions;
  return dict;
}

class Trace {
 public:
  Trace(uint32_t num_layers, uint32_t num_experts, const Rows& rows)
      : trace_(num_layers, num_experts, rows_from(rows)) {}

  py::dict replay(const std::string& policy, uint32_t num_slots) const {
    const EvictionPolicy chosen = eviction_policy_from_name(policy);
    return run([&](const auto& should_stop) {
      return edgemoe::replay(trace_, chosen, checked(num_slots), should_stop);
    });
  }

  py::dict optimum(uint32_t num_slots) const {
    return run([&](const auto& should_stop) {
      return replay_optimum(trace_, checked(num_slots), should_stop);
    });
  }

  py::dict predictor_recall() const {
    PredictorRecall recall;
    run_interruptibly(
        [&](const auto& should_stop) { recall = edgemoe::predictor_recall(trace_, should_stop); });
    py::dict dict;
    dict["wanted"] = recall.wanted;
    dict["popular"] = recall.popular;
    dict["transitions"] = recall.transitions;
    dict["transitions_twice"] = recall.transitions_twice;
    dict["token_wanted"] = recall.token_wanted;
    dict["token_table"] = recall.token_table;
    return dict;
  }

 private:
  template <class Replay>
  static py::dict run(const Replay& replay) {
    ReplayResult result;
    run_interruptibly([&](const auto& should_stop) { result = replay(should_stop); });
    return dict_of(result);
  }

  uint32_t checked(uint32_t num_slots) const {
    const uint64_t all = uint64_t{trace_.num_layers()} * trace_.num_experts();
    if (num_slots == 0 || num_slots > all) {
      throw Error(ErrorCode::kArgument, "a pool has 1 to " + std::to_string(all) + " slots, not " +
                                            std::to_string(num_slots));
    }
    return num_slots;
  }

  RoutingTrace trace_;
};

}  // namespace

void bind_replay(py::module_& module) {
  py::class_<Trace>(module, "RoutingTrace",
                    "Recorded routing. Rows: turn, phase, step, layer, expert, token id.")
      .def(py::init<uint32_t, uint32_t, const Rows&>(), py::arg("num_layers"),
           py::arg("num_experts"), py::arg("rows"))
      .def("replay", &Trace::replay, py::arg("policy"), py::arg("num_slots"))
      .def("optimum", &Trace::optimum, py::arg("num_slots"), "Belady's.")
      .def("predictor_recall", &Trace::predictor_recall);
}

}  // namespace edgemoe
