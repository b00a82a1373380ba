// Adding gradients to table entries that many threads may share.
#pragma once
#include "device.cuh"

namespace fieldfit {

// One entry's features at once where the machine can: from sm_90 on, vectors of two and four floats.
template <int F>
FF_LANE void atomic_add(float* to, const float* v) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (F == 1) {
    atomicAdd(to, v[0]);
  } else if constexpr (F == 2) {
    atomicAdd(reinterpret_cast<float2*>(to), float2{v[0], v[1]});
  } else {
    for (int f = 0; f < F; f += 4)
      atomicAdd(reinterpret_cast<float4*>(to + f), float4{v[f], v[f + 1], v[f + 2], v[f + 3]});
  }
#else
  for (int f = 0; f < F; ++f) atomicAdd(to + f, v[f]);
#endif
}

// Sets a mark that other threads may set, and none clears, at the same time.
FF_LANE void set_mark(uint8_t* at) {
#if defined(FF_SHIM)
  __atomic_store_n(at, uint8_t{1}, __ATOMIC_RELAXED);
#else
  if (*at == 0) *at = 1;  // most are set already, and a look is cheaper than a store
#endif
}

// The lanes of a warp that add to the same entry sum among themselves, in log2(lanes) rounds, and one of them adds.
// Returns whether it was this one.
template <int F>
FF_LANE bool warp_atomic_add(float* to, uint32_t entry, bool active, float* v) {
  unsigned lane = static_cast<unsigned>(lane_index());
  unsigned peers = __match_any_sync(kFullWarp, active ? entry : 0xffffffffu);
  bool first = (peers & ((1u << lane) - 1u)) == 0u;
  unsigned rank = static_cast<unsigned>(__popc(peers & ((1u << lane) - 1u)));
  unsigned after = peers & ~((2u << lane) - 1u);
  while (__any_sync(kFullWarp, after != 0u)) {
    int next = __ffs(static_cast<int>(after));  // 1 + the next lane of the group, or 0
    for (int f = 0; f < F; ++f) {
      float other = __shfl_sync(kFullWarp, v[f], next == 0 ? 0 : next - 1);
      if (next != 0) v[f] += other;
    }
    after &= ~__ballot_sync(kFullWarp, (rank & 1u) != 0u);  // odd ranks have given what they had
    rank >>= 1;
  }
  if (first && active) atomic_add<F>(to, v);
  return first && active;
}

}  // namespace fieldfit
