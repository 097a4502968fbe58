// Which instruction sets this build carries, which of them this machine runs, and which one is used.
//
// Every kernel source under kernels/ is compiled once per instruction set, inside `namespace herd::HERD_ISA_NS`,
// and leaves one table of function pointers. The rest of the program reaches the tables through HERD_SELECT.
//
// Rule for kernel sources: everything they define or instantiate stays in their instruction set's namespace or is
// `static`. An inline function shared with other sources (anything non-trivial from std::) could be emitted with
// AVX-512 instructions and then be picked by the linker for machines that lack them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace herd {

enum class Isa { portable, avx2, avx512, amx, neon };

const char* isa_name(Isa isa);

// Compiled in and supported by this processor, fastest first; `portable` is always the last.
const std::vector<Isa>& available_isas();

// Asks the system for what kernels of the set need beyond the processor, once for the process; whether it was granted.
bool is_granted(Isa isa);

// Throws std::invalid_argument where it is not granted.
void require_granted(Isa isa);

// Throws std::invalid_argument, listing the available sets, when `name` is unknown or cannot run here, or is not granted.
Isa parse_isa(std::string_view name);

// The set named by the environment variable OPENHERD_ISA (throws as parse_isa does), else the fastest available that is granted.
// Read once, at the first call that succeeds.
Isa default_isa();

}  // namespace herd

// `return` the object or function NAME of the namespace of instruction set ISA, declared by HERD_DECLARE:
//   HERD_DECLARE(const LinearKernels linear_kernels);
//   const LinearKernels& linear_kernels(Isa isa) { HERD_SELECT(isa, linear_kernels); }
// CMake defines HERD_HAVE_* for the sets that are compiled in.
#if defined(HERD_HAVE_AVX2)
#define HERD_IF_AVX2(...) __VA_ARGS__
#else
#define HERD_IF_AVX2(...)
#endif
#if defined(HERD_HAVE_AVX512)
#define HERD_IF_AVX512(...) __VA_ARGS__
#else
#define HERD_IF_AVX512(...)
#endif
#if defined(HERD_HAVE_AMX)
#define HERD_IF_AMX(...) __VA_ARGS__
#else
#define HERD_IF_AMX(...)
#endif
#if defined(HERD_HAVE_NEON)
#define HERD_IF_NEON(...) __VA_ARGS__
#else
#define HERD_IF_NEON(...)
#endif

#define HERD_DECLARE(...)                                            \
  namespace portable { extern __VA_ARGS__; }                         \
  HERD_IF_AVX2(namespace avx2 { extern __VA_ARGS__; })               \
  HERD_IF_AVX512(namespace avx512 { extern __VA_ARGS__; })           \
  HERD_IF_AMX(namespace amx { extern __VA_ARGS__; })                 \
  HERD_IF_NEON(namespace neon { extern __VA_ARGS__; })

#define HERD_SELECT(isa, name)                                       \
  switch (isa) {                                                     \
    HERD_IF_AVX2(case Isa::avx2 : return avx2::name;)                \
    HERD_IF_AVX512(case Isa::avx512 : return avx512::name;)          \
    HERD_IF_AMX(case Isa::amx : return amx::name;)                   \
    HERD_IF_NEON(case Isa::neon : return neon::name;)                \
    default: return portable::name;                                  \
  }
