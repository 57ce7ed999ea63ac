// A small file of named byte sections that may be lost at any time: what was learned in earlier
// runs. Versioned, checksummed, replaced atomically; whatever is wrong with it, it reads as empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace edgemoe {

using Sections = std::map<std::string, std::vector<std::byte>>;

// 64 bits that differ for different bytes (FNV-1a); continues from `seed`.
inline constexpr uint64_t kHashSeed = 0xcbf29ce484222325;
uint64_t hash_bytes(std::span<const std::byte> bytes, uint64_t seed = kHashSeed) noexcept;

// The sections that were written for `key`; none when the file is missing, damaged, of another
// version or key, or larger than kMaxSectionFileBytes.
inline constexpr uint64_t kMaxSectionFileBytes = 64u << 20;
Sections read_sections(const std::string& path, uint64_t key);

// Writes a temporary file beside it, syncs and renames; makes the folder. False when that failed:
// the file that was there before stays.
bool write_sections(const std::string& path, uint64_t key, const Sections& sections) noexcept;

}  // namespace edgemoe
