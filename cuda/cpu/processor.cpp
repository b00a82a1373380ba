#include "processor.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fieldfit {

#if defined(__x86_64__)

namespace {

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// Linux gives tile registers to processes that ask for them.
bool has_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  constexpr unsigned kTiles = 1u << 24, kTilesBFloat16 = 1u << 22;
  unsigned a, b, c, d;
  return has_avx512bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kTiles) && (d & kTilesBFloat16) &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool processor_runs(const std::string& isa) {
  if (isa == "avx2") return has_avx2();
  if (isa == "avx512") return has_avx512();
  if (isa == "avx512bf16") return has_avx512bf16();
  if (isa == "amx") return has_amx();
  return isa == "baseline";
}

#else

bool processor_runs(const std::string& isa) { return isa == "baseline"; }

#endif

}  // namespace fieldfit
