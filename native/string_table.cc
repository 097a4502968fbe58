#include "string_table.h"

#include <bit>
#include <cstring>

namespace herd {

static_assert(std::endian::native == std::endian::little, "lengths are read as they lie");

std::optional<std::string_view> string_at(std::span<const uint8_t> data, uint64_t start) {
  uint64_t length;
  if (start > data.size() || data.size() - start < sizeof length) return std::nullopt;
  std::memcpy(&length, data.data() + start, sizeof length);
  if (length > data.size() - start - sizeof length) return std::nullopt;
  return std::string_view(reinterpret_cast<const char*>(data.data()) + start + sizeof length, length);
}

size_t walk_strings(std::span<const uint8_t> data, uint64_t start, std::span<uint64_t> starts, uint64_t& end) {
  end = start;
  for (size_t i = 0; i < starts.size(); ++i) {
    const auto string = string_at(data, end);
    if (!string) return i;
    starts[i] = end;
    end += sizeof(uint64_t) + string->size();
  }
  return starts.size();
}

}  // namespace herd
