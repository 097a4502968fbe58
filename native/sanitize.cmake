# Builds that watch themselves (`make sanitize`; docs/development.md): -DHERD_SANITIZE=address or =thread.
set(HERD_SANITIZE "" CACHE STRING "address (with undefined behaviour), thread, or nothing")
set_property(CACHE HERD_SANITIZE PROPERTY STRINGS "" address thread)

if(HERD_SANITIZE STREQUAL "address")
  set(HERD_SANITIZE_FLAGS -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all)
  set(HERD_SANITIZE_CORE_FLAGS -fsanitize=bounds-strict)  # Python's headers end structures with arrays of length 1
elseif(HERD_SANITIZE STREQUAL "thread")
  set(HERD_SANITIZE_FLAGS -fsanitize=thread)
elseif(HERD_SANITIZE)
  message(FATAL_ERROR "HERD_SANITIZE is '${HERD_SANITIZE}'; it may be address or thread")
endif()

set(HERD_OPTIMIZE -O3)
if(HERD_SANITIZE)
  # Checks in every access of an unrolled kernel make -O3 take minutes; -O1 keeps intrinsics and inlining.
  set(HERD_OPTIMIZE -O1)
  add_compile_options(${HERD_SANITIZE_FLAGS} -fno-omit-frame-pointer -g1)
  add_link_options(${HERD_SANITIZE_FLAGS})
  set(HERD_MODULE_OPTIONS NOSTRIP)  # reports name functions
endif()
