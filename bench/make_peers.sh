#!/bin/sh
# Makes what bench/peers.py and bench/server_peers.py compare with: make_peers.sh PYTHON
# It lies under .peers (OPENHERD_PEERS names another folder).
#
# llama.cpp is compiled for this machine from the source distribution of llama-cpp-python, once more without AVX-512,
# and the llama-bench and llama-server of the same source beside it: half an hour on two cores. Each part is made once.
# --no-cache-dir: pip would take a wheel it has built before for one of another machine's or other options' flags.
set -eu
python=$1
home=${OPENHERD_PEERS:-.peers}
llama=llama-cpp-python==0.3.36
mkdir -p "$home"

# Compilers drop most of the settings that this version of llama.cpp stores for the matrix unit, and it then crashes with
# the first prompt on processors that have one (llama.cpp's pull request 26954). Told to leave stores alone, they do not.
if grep -qs amx_int8 /proc/cpuinfo; then
  export CXXFLAGS="${CXXFLAGS:-} -fno-tree-dse -fno-dse"
fi

# part NAME COMMAND...: unless it was finished before, empty the folder and run the command
part() {
  name=$1
  shift
  [ -e "$home/$name/finished" ] && return
  echo "making $home/$name" >&2
  rm -rf "${home:?}/$name"
  "$@" >&2
  touch "$home/$name/finished"
}

llama_cpp() { # FOLDER CMAKE_ARGS
  "$python" -m venv "$1"
  CMAKE_ARGS=$2 "$1/bin/python" -m pip install -q --no-cache-dir --no-binary llama-cpp-python "$llama"
}

others() {
  "$python" -m venv "$home/others"
  "$home/others/bin/python" -m pip install -q ik-llama-cpp-python==0.1.5 openvino-genai==2026.4.1.0 numpy
}

transformers() {
  "$python" -m venv "$home/transformers"
  "$home/transformers/bin/python" -m pip install -q torch==2.13.0
  "$home/transformers/bin/python" -m pip install -q transformers gguf accelerate  # it loads no GGUF file without the last
}

llama_bench() {
  folder=$home/llama-bench
  mkdir -p "$folder"
  "$python" -m pip download -q --no-deps --no-binary llama-cpp-python -d "$folder" "$llama"
  tar xzf "$folder"/llama_cpp_python-*.tar.gz -C "$folder"
  rm "$folder"/llama_cpp_python-*.tar.gz
  "$python" -m venv "$folder/tools"
  "$folder/tools/bin/python" -m pip install -q cmake ninja
  PATH=$(cd "$folder/tools/bin" && pwd):$PATH
  cmake -G Ninja -S "$folder"/llama_cpp_python-*/vendor/llama.cpp -B "$folder/build" -DCMAKE_BUILD_TYPE=Release \
    -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_OPENSSL=OFF
  cmake --build "$folder/build" --target llama-bench
}

# llama-bench's source and tools serve once more; its web page would be downloaded, and is left out
llama_server() {
  source=$(cd "$home"/llama-bench/llama_cpp_python-*/vendor/llama.cpp && pwd)
  PATH=$(cd "$home/llama-bench/tools/bin" && pwd):$PATH
  cmake -G Ninja -S "$source" -B "$home/llama-server/build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TOOLS=ON \
    -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_OPENSSL=OFF
  cmake --build "$home/llama-server/build" --target llama-server
}

part llama.cpp llama_cpp "$home/llama.cpp" "-DGGML_NATIVE=ON"
case $(uname -m) in
x86_64) part llama.cpp-avx2 llama_cpp "$home/llama.cpp-avx2" \
  "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF -DGGML_AVX_VNNI=OFF" ;;
esac
part others others
part transformers transformers
part llama-bench llama_bench
part llama-server llama_server
