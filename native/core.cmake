# The core without its Python bindings: what the extension module and the C++ tests (tests/native_core) share.
include(${CMAKE_CURRENT_LIST_DIR}/sanitize.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/kernels.cmake)

set(HERD_CORE_SOURCES
  batch.cc
  block_type.cc
  dequantize_row.cc
  executor.cc
  executor_attention.cc
  executor_experts.cc
  executor_linear.cc
  file_block.cc
  isa.cc
  kernel_tables.cc
  kv_cache.cc
  linear.cc
  machine_limits.cc
  model.cc
  packed_weight.cc
  program.cc
  quantizers/quantize_rows.cc
  sample_plan.cc
  sampler.cc
  string_table.cc
  thread_pool.cc
  weight_memory.cc
)
list(TRANSFORM HERD_CORE_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)

# An object library, so that the module and the tests of one build share what takes minutes to compile.
add_library(herd_core OBJECT ${HERD_CORE_SOURCES})
target_include_directories(herd_core PUBLIC ${HERD_NATIVE_DIR})
target_compile_options(herd_core PRIVATE ${HERD_NATIVE_FLAGS} ${HERD_SANITIZE_CORE_FLAGS})
set_target_properties(herd_core PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
herd_add_kernels(herd_core)
