#include "isa.h"

#include <algorithm>
#include <cstdint>
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
// arch_prctl's codes for registers that Linux saves only for programs that ask: the unit's are 8 KB
// (Documentation/arch/x86/xstate.rst). Other systems that would let us are not known.
constexpr long kSupportedStates = 0x1021, kRequestState = 0x1023, kTileData = 18;

bool has_amx() {
#if defined(__linux__)
  constexpr unsigned kTileBit = 1u << 24, kInt8Bit = 1u << 25;  // of EDX in CPUID's leaf 7
  unsigned eax, ebx, ecx, edx;
  uint64_t states = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kTileBit) != 0 && (edx & kInt8Bit) != 0 &&
         syscall(SYS_arch_prctl, kSupportedStates, &states) == 0 && (states >> kTileData & 1) != 0;
#else
  return false;
#endif
}

// From then on all threads may use it, and none may have a signal stack too small for 8 KB more; who has one is refused.
bool request_amx() {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, kRequestState, kTileData) == 0;
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

bool is_granted([[maybe_unused]] Isa isa) {
#if defined(HERD_HAVE_AMX)
  if (isa == Isa::amx) {
    static const bool granted = request_amx();
    return granted;
  }
#endif
  return true;
}

void require_granted(Isa isa) {
  if (is_granted(isa)) return;
  throw std::invalid_argument(std::string("the system refuses this process the registers of instruction set '") + isa_name(isa) + "'");
}

Isa parse_isa(std::string_view name) {
  std::string known;
  for (Isa isa : available_isas()) {
    if (name == isa_name(isa)) {
      require_granted(isa);
      return isa;
    }
    known += known.empty() ? isa_name(isa) : std::string(", ") + isa_name(isa);
  }
  throw std::invalid_argument("instruction set '" + std::string(name) + "' is not available here; choose one of: " + known);
}

Isa default_isa() {
  static const Isa chosen = [] {
    const char* forced = std::getenv("OPENHERD_ISA");
    if (forced != nullptr && *forced != '\0') return parse_isa(forced);
    return *std::find_if(available_isas().begin(), available_isas().end(), is_granted);
  }();
  return chosen;
}

}  // namespace herd
