// Options that are chosen by name, as tables whose rows have a member `name`.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace edgemoe {

// Errors: kArgument for an unknown name of such a `kind`, listing the known ones.
template <class Row>
const Row& row_named(std::span<const Row> rows, std::string_view kind, std::string_view name) {
  std::string known;
  for (const Row& row : rows) {
    if (row.name == name) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorCode::kArgument,
              "unknown " + std::string(kind) + " '" + std::string(name) + "'; known: " + known);
}

}  // namespace edgemoe
