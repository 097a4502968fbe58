#include "isa.h"

#include <cstdlib>
#include <stdexcept>

#if defined(HERD_HAVE_AMX) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(HERD_HAVE_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace herd {
namespace {

constexpr Isa kFastestFirst[] = {Isa::amx, Isa::avx512, Isa::avx2, Isa::neon, Isa::portable};

#if defined(HERD_HAVE_AVX512)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
#endif

#if defined(HERD_HAVE_AMX)
// The unit's registers are 8 KB that Linux saves only for programs that ask (Documentation/arch/x86/xstate.rst); what is
// granted holds for all threads. Other systems that would let us are not known.
bool has_amx() {
#if defined(__linux__)
  constexpr unsigned kTileBit = 1u << 24, kInt8Bit = 1u << 25;  // of EDX in CPUID's leaf 7
  constexpr long kRequestState = 0x1023, kTileData = 18;        // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kTileBit) != 0 && (edx & kInt8Bit) != 0 &&
         syscall(SYS_arch_prctl, kRequestState, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
bool runs_here(Isa isa) {
  switch (isa) {
#if defined(HERD_HAVE_AVX512)
    case Isa::avx512: return has_avx512();
#endif
#if defined(HERD_HAVE_AMX)
    case Isa::amx: return has_avx512() && has_amx();
#endif
#if defined(HERD_HAVE_AVX2)
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
#if defined(HERD_HAVE_NEON)
    case Isa::neon:
#if defined(__linux__)
      return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
      return true;  // every AArch64 Mac has the dot product
#endif
#endif
    case Isa::portable: return true;
    default: return false;
  }
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::amx: return "amx";
    case Isa::neon: return "neon";
    default: return "portable";
  }
}

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> available = [] {
    std::vector<Isa> isas;
    for (Isa isa : kFastestFirst)
      if (runs_here(isa)) isas.push_back(isa);
    return isas;
  }();
  return available;
}

Isa parse_isa(std::string_view name) {
  std::string known;
  for (Isa isa : available_isas()) {
    if (name == isa_name(isa)) return isa;
    known += known.empty() ? isa_name(isa) : std::string(", ") + isa_name(isa);
  }
  throw std::invalid_argument("instruction set '" + std::string(name) + "' is not available here; choose one of: " + known);
}

Isa default_isa() {
  static const Isa chosen = [] {
    const char* forced = std::getenv("OPENHERD_ISA");
    return forced != nullptr && *forced != '\0' ? parse_isa(forced) : available_isas().front();
  }();
  return chosen;
}

}  // namespace herd
