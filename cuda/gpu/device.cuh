// What every kernel is written in: entry points (with threads of a block, and blocks that fit on a multiprocessor),
// shared memory and the warp. The same text is compiled by nvcc and NVRTC, and by a host compiler with FF_SHIM, where
// a fiber stands for each CUDA thread.
//
// Rules that the shim relies on: shared memory is dynamic (`FF_SHARED`), blocks are whole warps, and every thread of a
// warp takes part in its collectives.
#pragma once

#if defined(FF_SHIM)
#include "shim/shim.h"
#define FF_KERNEL(threads, blocks) extern "C" void
#define FF_SHARED(T, name) T* name = reinterpret_cast<T*>(shim::shared())
#define FF_UNROLL
#else
#define FF_KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define FF_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char ff_shared[]; \
  T* name = reinterpret_cast<T*>(ff_shared)
#define FF_UNROLL _Pragma("unroll")
#endif

#include "../lane.h"

namespace fieldfit {

constexpr unsigned kFullWarp = 0xffffffffu;

FF_LANE int lane_index() { return static_cast<int>(threadIdx.x & 31u); }
FF_LANE int warp_index() { return static_cast<int>(threadIdx.x >> 5); }
FF_LANE int thread_index() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
FF_LANE int thread_count() { return static_cast<int>(gridDim.x * blockDim.x); }

FF_LANE float warp_sum(float v) {
  for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(kFullWarp, v, d);
  return v;
}

// Sum of v over this lane and those before it.
FF_LANE float warp_scan(float v) {
  for (int d = 1; d < 32; d <<= 1) {
    float before = __shfl_up_sync(kFullWarp, v, static_cast<unsigned>(d));
    if (lane_index() >= d) v += before;
  }
  return v;
}

// The scan without the lane's own value, from the scan with it.
FF_LANE float warp_before(float scanned) {
  float before = __shfl_up_sync(kFullWarp, scanned, 1u);
  return lane_index() == 0 ? 0.0f : before;
}

}  // namespace fieldfit
