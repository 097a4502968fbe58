#!/bin/sh
# run.sh BIN [address|thread ...] [-- PYTEST_ARGUMENTS]: builds the core under each sanitizer (both when none is named)
# apart from the ordinary build, then runs the mistakes made on purpose, the core's tests in C++, and the Python tests that
# reach the core. BIN is the bin folder of an environment with the tools of the tests. docs/development.md has more.
set -eu
cd "$(dirname "$0")/../.."
PATH=$(cd "$1" && pwd):$PATH
shift
kinds=
while [ $# -gt 0 ] && [ "$1" != -- ]; do kinds="$kinds $1"; shift; done
[ $# -eq 0 ] || shift

parity="tests/parity/test_default_model.py tests/parity/test_default_tensors.py tests/parity/test_llama_parity.py
  tests/parity/test_lora.py tests/parity/test_sampling_parity.py"
address_tests="tests/unit/native tests/unit/kernels tests/unit/engine tests/unit/llm $parity tests/fuzz/test_native_fuzz.py"
thread_tests="tests/unit/native tests/unit/engine tests/fuzz/test_native_fuzz.py"
# The default model takes over a quarter of an hour under the thread sanitizer and shares no more between threads than a small
# one. Threads after a fork are held in C++: under Python the sanitizer ends the child ("dup thread with used id").
address_chosen=
thread_chosen="not default and not fork"

address_fault=read_poisoned
thread_fault=race

runtime() { "${CXX:-c++}" -print-file-name="lib$1.so"; }

# watched KIND LOGS COMMAND...: the command with the core of that build; reports go to files, one a process.
# An error ends the process by a signal; too much memory asked for is none, since tests ask for it. Leaks are judged
# afterwards (tests/sanitizers/reports.py), so they change no status. Python's own allocator hides pointers from the search for
# leaks, hence PYTHONMALLOC.
watched() {
  kind=$1 logs=$2
  shift 2
  rm -rf "$logs" && mkdir -p "$logs"
  case $kind in
    address) preload="$(runtime asan) $(runtime ubsan)" ;;
    thread) preload=$(runtime tsan) ;;
  esac
  env OPENHERD_NATIVE="$(echo "$PWD/build/sanitize/$kind"/_native.*.so)" \
    PYTHONMALLOC=malloc PYTHONPATH="$PWD/tests/sanitizers/instead${PYTHONPATH:+:$PYTHONPATH}" LD_PRELOAD="$preload" \
    ASAN_OPTIONS="detect_leaks=1:abort_on_error=1:allocator_may_return_null=1:log_path=$logs/asan" LSAN_OPTIONS=exitcode=0 \
    UBSAN_OPTIONS="print_stacktrace=1:log_path=$logs/ubsan" \
    TSAN_OPTIONS="die_after_fork=0:allocator_may_return_null=1:log_path=$logs/tsan" "$@"
}

for kind in ${kinds:-address thread}; do
  build=build/sanitize/$kind
  echo "== $kind: building in $build"
  cmake -G Ninja -S . -B "$build" -DHERD_SANITIZE="$kind" -DHERD_CXX_TESTS=ON -DCMAKE_BUILD_TYPE=Release \
    -DPython_EXECUTABLE="$(command -v python)" -Dnanobind_DIR="$(python -m nanobind --cmake_dir)" >/dev/null
  cmake --build "$build" >"$build/build.log" 2>&1 || { tail -40 "$build/build.log"; exit 1; }

  echo "== $kind: mistakes made on purpose, and the core's tests in C++"
  ctest --test-dir "$build" --output-on-failure --no-tests=error

  echo "== $kind: a mistake made on purpose under Python"
  eval "fault=\$${kind}_fault"
  watched "$kind" "$build/faults" python -m tests.sanitizers.python_faults "$fault" >/dev/null 2>&1 || true
  ! python -m tests.sanitizers.reports "$build/faults" >/dev/null || { echo "$fault was not reported"; exit 1; }

  echo "== $kind: the Python tests that reach the core"
  eval "tests=\$${kind}_tests chosen=\$${kind}_chosen"
  status=0
  # shellcheck disable=SC2086  # words are wanted
  watched "$kind" "$build/reports" python -m pytest -n "${JOBS:-2}" \
    -p no:cacheprovider --timeout=900 --capture=sys -k "$chosen" ${tests} "$@" || status=$?
  python -m tests.sanitizers.reports "$build/reports" || status=1
  [ $status -eq 0 ] || exit 1
done
