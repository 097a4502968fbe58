// Rounding to nearest with subnormals kept, whatever the program around has set for its threads.
//
// The mode belongs to a thread and is inherited from the one that starts it: a caller that rounds another way, or flushes
// subnormals to zero (as a library built with -ffast-math has it for whoever loads it), would compute other bits than the
// pool's workers, and an answer would depend on which of them does a share.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace herd {

// From its making to its end; then the thread's own mode and exception flags are back.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

#if defined(__x86_64__)
  // SSE's register alone: nothing here computes on the x87, which fesetenv would set as well, ten times as slowly.
  DefaultFloatEnvironment() : callers_(_mm_getcsr()) { _mm_setcsr(kDefault); }
  ~DefaultFloatEnvironment() { _mm_setcsr(callers_); }

 private:
  static constexpr unsigned kDefault = 0x1f80;  // all exceptions masked, none raised, to nearest, no FTZ, no DAZ
  unsigned callers_;
#else
  DefaultFloatEnvironment() {
    std::fegetenv(&callers_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnvironment() { std::fesetenv(&callers_); }

 private:
  std::fenv_t callers_;
#endif
};

}  // namespace herd
