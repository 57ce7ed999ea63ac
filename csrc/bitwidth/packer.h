// Packs a model: every expert matrix and dense tensor gets the type that was asked for, tensor by
// tensor within a memory budget.
//
// The output takes its name when it is whole and on the device. Until then it is OUTPUT.part, with
// a journal beside it (OUTPUT.part.journal): the same call goes on where an interrupted one
// stopped, after comparing what is there with the journal, and the result is the same file.
#pragma once

#include "bitwidth/pack_request.h"
#include "bitwidth/pack_source.h"

namespace edgemoe {

// Errors: kArgument for a request that does not fit the model, or an output that exists or is the
// source; kBudget naming the least memory; kFormat for weights that are no finite numbers, naming
// tensor, row and column; kIo (a full disk included) and kCancelled, after which the same call goes
// on.
PackResult pack_model(const PackSource& source, const PackRequest& request,
                      const PackWatcher& watcher);

}  // namespace edgemoe
