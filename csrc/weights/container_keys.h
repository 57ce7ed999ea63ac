// The metadata keys of the packed container, which docs/format.md describes.
#pragma once

#include <cstdint>
#include <string_view>

namespace edgemoe::container {

inline constexpr std::string_view kPrefix = "edgemoe.";
inline constexpr std::string_view kFormatVersion = "edgemoe.format.version";
inline constexpr std::string_view kLayoutVersion = "edgemoe.layout.version";
inline constexpr std::string_view kExpertChecksums = "edgemoe.expert.checksums";
inline constexpr std::string_view kLowVersion = "edgemoe.low.version";
inline constexpr std::string_view kLowChecksums = "edgemoe.low.checksums";
inline constexpr std::string_view kDenseChecksums = "edgemoe.dense.checksums";
inline constexpr std::string_view kPlan = "edgemoe.plan";
inline constexpr std::string_view kSource = "edgemoe.source";
inline constexpr std::string_view kLossTypes = "edgemoe.loss.types";
inline constexpr std::string_view kLossErrors = "edgemoe.loss.relative_errors";

inline constexpr uint64_t kAlignment = 4096;

}  // namespace edgemoe::container
