// Strings that lie one after another, each as its length (64 bits, little-endian) and its bytes: GGUF's string arrays.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace herd {

// The string whose length begins at `start`; nothing when it does not lie wholly in `data`.
std::optional<std::string_view> string_at(std::span<const uint8_t> data, uint64_t start);

// Writes where each of starts.size() strings begins, the first at `start`, and returns how many of them lie wholly in
// `data`; the place where the next one begins, or would, goes to `end`. Of the rest of `starts` nothing is written.
size_t walk_strings(std::span<const uint8_t> data, uint64_t start, std::span<uint64_t> starts, uint64_t& end);

}  // namespace herd
