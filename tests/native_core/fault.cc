// fault NAME: makes one mistake of the kind that a sanitizer promises to report.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <utility>

#include "weight_memory.h"

namespace {

volatile int sink;
volatile int four = 4;  // no compiler knows it

// A read past the end of the heap's block.
void overflow() {
  auto* block = static_cast<volatile int*>(std::malloc(4 * sizeof(int)));
  sink = block[four];
  std::free(const_cast<int*>(block));
}

void use_after_free() {
  auto* block = static_cast<volatile int*>(std::calloc(4, sizeof(int)));
  std::free(const_cast<int*>(block));
  sink = block[0];
}

// Memory that nothing points to.
void leak() {
  sink = *static_cast<volatile char*>(std::calloc(1000, 1));
}

void signed_overflow() { sink = INT32_MAX - 3 + four; }

// An int read where an int may not lie.
void misaligned() {
  alignas(8) char bytes[16] = {};
  sink = *reinterpret_cast<volatile int*>(bytes + four / 2 - 1);
}

void float_cast() {
  volatile float large = 3e9f;
  sink = static_cast<int>(large);
}

void bounds() {
  int values[4] = {};
  int* const escaped = values;
  sink = *escaped;
  sink = values[four];
}

// A read past a packed weight, whose chunk goes on behind it.
void weight_overflow() {
  herd::WeightMemory memory;
  const auto first = memory.take(128), second = memory.take(128);
  sink = first.get()[32 * four];
}

// Two threads write one int, unordered.
void race() {
  static int shared = 0;
  const auto count = [] {
    for (int i = 0; i < 100000; ++i) ++shared;
  };
  std::thread other(count);
  count();
  other.join();
  sink = shared;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::pair<std::string_view, void (*)()> kFaults[] = {
      {"overflow", overflow},     {"use_after_free", use_after_free},   {"leak", leak},
      {"bounds", bounds},         {"signed_overflow", signed_overflow}, {"misaligned", misaligned},
      {"float_cast", float_cast}, {"weight_overflow", weight_overflow}, {"race", race},
  };
  for (const auto& [name, fault] : kFaults)
    if (argc == 2 && name == argv[1]) {
      fault();
      std::puts("no report");
      return 0;
    }
  std::puts("usage: fault NAME");
  return 2;
}
