// The GIL given back for the length of a scope, safe to be in when the interpreter ends.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

namespace herd {

// When the interpreter ends, Python before 3.14 ends each thread that wants the GIL back with pthread_exit, which glibc
// makes an unwinding of the stack: in a destructor, as nanobind's gil_scoped_release is one, that aborts the process. A
// thread of ours sleeps instead until the process is gone, as Python itself has it since 3.14.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;
  ~ReleasedGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // nothing else is thrown here; naming glibc's type would bind a reference to null
      for (;;) pause();
    }
  }

 private:
  PyThreadState* state_;
};

}  // namespace herd
