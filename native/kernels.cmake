# Kernel sources, each compiled once per instruction set in a namespace of its own (see native/isa.h).
include(CheckCXXSourceCompiles)

set(HERD_NATIVE_DIR ${CMAKE_CURRENT_LIST_DIR})
set(HERD_KERNEL_SOURCES
  attention_kernel.cc
  linear_kernel.cc
  machine_limits_kernel.cc
  quantize_kernel.cc
  row_kernel.cc
  sampling_kernel.cc
)
list(TRANSFORM HERD_KERNEL_SOURCES PREPEND ${HERD_NATIVE_DIR}/kernels/)
list(APPEND HERD_KERNEL_SOURCES ${HERD_NATIVE_DIR}/quantizers/quantize_rows_kernel.cc)

# Contraction is off: a fused multiply-add is written where it is meant, so that bits do not depend on inlining.
set(HERD_NATIVE_FLAGS ${HERD_OPTIMIZE} -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra)

set(HERD_ISAS portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  list(APPEND HERD_ISAS avx2 avx512)
  # GCC 11 or Clang 12, and an assembler of their age.
  set(CMAKE_REQUIRED_FLAGS "-mamx-tile -mamx-int8")
  check_cxx_source_compiles("#include <immintrin.h>
    int main() { _tile_zero(0); _tile_dpbsud(0, 1, 2); }" HERD_COMPILER_HAS_AMX)
  unset(CMAKE_REQUIRED_FLAGS)
  if(HERD_COMPILER_HAS_AMX)
    list(APPEND HERD_ISAS amx)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  list(APPEND HERD_ISAS neon)
endif()
set(HERD_FLAGS_portable "")
set(HERD_FLAGS_avx2 -mavx2 -mfma -mf16c)
# GCC 12 takes the undefined operand of its own AVX-512 intrinsics for a mistake (GCC bug 105593).
set(HERD_FLAGS_avx512 -Wno-uninitialized -Wno-maybe-uninitialized
  -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c -mprfchw -mprefer-vector-width=512)
set(HERD_FLAGS_amx ${HERD_FLAGS_avx512} -mamx-tile -mamx-int8 -DHERD_USE_MATRIX_UNIT)
set(HERD_FLAGS_neon -march=armv8.2-a+dotprod+fp16)

# Adds the kernels of every instruction set to TARGET and tells its sources which there are.
function(herd_add_kernels target)
  foreach(isa IN LISTS HERD_ISAS)
    add_library(${target}_${isa} OBJECT ${HERD_KERNEL_SOURCES})
    target_include_directories(${target}_${isa} PRIVATE ${HERD_NATIVE_DIR})
    target_compile_definitions(${target}_${isa} PRIVATE HERD_ISA_NS=${isa})
    target_compile_options(${target}_${isa} PRIVATE ${HERD_NATIVE_FLAGS} ${HERD_SANITIZE_CORE_FLAGS} ${HERD_FLAGS_${isa}})
    set_target_properties(${target}_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
    target_sources(${target} INTERFACE $<TARGET_OBJECTS:${target}_${isa}>)
    string(TOUPPER ${isa} upper)
    target_compile_definitions(${target} PUBLIC HERD_HAVE_${upper})
  endforeach()
endfunction()
