// A test is a function named by HERD_TEST; CHECK ends it with the place and the condition that did not hold.
#pragma once

#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace herd::test {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

struct Registered {
  Registered(const char* name, void (*run)()) { all_tests().push_back({name, run}); }
};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

// Whether `call` throws E.
template <class E>
bool throws(const std::function<void()>& call) {
  try {
    call();
  } catch (const E&) {
    return true;
  }
  return false;
}

}  // namespace herd::test

#define HERD_TEST(name)                                              \
  static void name();                                                \
  static const herd::test::Registered registered_##name(#name, name); \
  static void name()

#define CHECK(condition) \
  if (!(condition)) herd::test::fail(__FILE__, __LINE__, #condition)
