// core_tests [PART]: runs the tests whose names contain PART, or with -PART those whose names do not, or all. Exit status 1
// if one fails or there is none.
#include <chrono>
#include <cstring>
#include <exception>

#include "check.h"

namespace {

bool wanted(const char* name, const char* part) {
  return *part == '-' ? std::strstr(name, part + 1) == nullptr : std::strstr(name, part) != nullptr;
}

bool passes(const herd::test::Test& test) {
  const auto start = std::chrono::steady_clock::now();
  const char* result = "ok";
  std::string why;
  try {
    test.run();
  } catch (const std::exception& error) {
    result = "FAILED", why = error.what();
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::printf("%-6s %6.2f s  %s\n", result, took.count(), test.name);
  if (!why.empty()) std::printf("       %s\n", why.c_str());
  std::fflush(stdout);
  return why.empty();
}

}  // namespace

int main(int argc, char** argv) {
  int run = 0, failed = 0;
  for (const auto& test : herd::test::all_tests())
    if (argc < 2 || wanted(test.name, argv[1])) ++run, failed += !passes(test);
  std::printf("%d tests, %d failed\n", run, failed);
  return run == 0 || failed > 0;
}
