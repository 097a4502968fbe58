#!/bin/sh
# run.sh BIN [PYTEST_ARGUMENTS]: compiles the core for AArch64 with NEON's dot product and runs its tests, in C++ and in
# Python, under qemu's user emulation. BIN is the bin folder of an environment with the tools of the tests.
set -eu
cd "$(dirname "$0")/../.."
PATH=$(cd "$1" && pwd):$PATH
shift

missing=
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
need qemu-aarch64 qemu-user
need dpkg dpkg
need apt-get apt
[ -z "$missing" ] || { echo "make neon needs more of Debian: apt install$missing" >&2; exit 1; }

out=$PWD/build/neon
export SYSROOT="$out/sysroot"
if [ ! -e "$SYSROOT/complete" ]; then
  echo "== an AArch64 Python in $SYSROOT"
  rm -rf "$SYSROOT"
  sh tests/neon/sysroot.sh "$SYSROOT"
  touch "$SYSROOT/complete"
fi
python3=$(basename "$(find "$SYSROOT/usr/bin" -name 'python3.[0-9]*' ! -name '*-config' | head -1)")
version=${python3#python}
abi=cpython-$(echo "$version" | tr -d .)-aarch64-linux-gnu

if [ ! -e "$out/packages/complete" ]; then
  echo "== the tests' packages for it"
  platforms=
  for glibc in 17 28 34; do platforms="$platforms --platform manylinux_2_${glibc}_aarch64"; done
  # shellcheck disable=SC2086  # words are wanted
  python -m pip install -q --disable-pip-version-check -c constraints.txt --target "$out/packages" --only-binary=:all: \
    --platform manylinux2014_aarch64 $platforms --python-version "$version" \
    numpy pytest pytest-timeout hypothesis jinja2 tokenizers gguf  # what tests/unit/native imports
  touch "$out/packages/complete"
fi

echo "== building in $out/native"
cmake -G Ninja -S . -B "$out/native" -DCMAKE_TOOLCHAIN_FILE="$PWD/tests/neon/toolchain.cmake" -DCMAKE_BUILD_TYPE=Release \
  -DHERD_CXX_TESTS=ON -DPython_EXECUTABLE="$(command -v python)" -Dnanobind_DIR="$(python -m nanobind --cmake_dir)" \
  -DPython_INCLUDE_DIR="$SYSROOT/usr/include/$python3" -DNB_SUFFIX=".$abi.so" >/dev/null
cmake --build "$out/native" >"$out/build.log" 2>&1 || { tail -40 "$out/build.log"; exit 1; }

echo "== the core's tests in C++"
ctest --test-dir "$out/native" --output-on-failure --no-tests=error

echo "== the core's tests in Python"
emulated=$out/python  # what sys.executable names, so that tests can start further processes
printf '#!/bin/sh\nexec qemu-aarch64 -L "%s" "%s" "$@"\n' "$SYSROOT" "$SYSROOT/usr/bin/$python3" >"$emulated"
chmod +x "$emulated"
[ $# -gt 0 ] || set -- tests/unit/native
env OPENHERD_NATIVE="$out/native/_native.$abi.so" OPENHERD_PYTHON="$emulated" \
  PYTHONPATH="$PWD/tests/sanitizers/instead:$out/packages:$PWD" \
  "$emulated" -m pytest -p no:cacheprovider --timeout=1800 -k "not fork" "$@"  # see tests/native_core/CMakeLists.txt
