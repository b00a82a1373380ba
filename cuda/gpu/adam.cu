// Adam over flat parameters; with `skip_zero`, entries whose gradient is exactly zero keep their value and moments.
// `adam_touched` does so for the blocks of a table that a step has marked, and clears gradients and marks.
#include "../adam.h"
#include "device.cuh"

namespace fieldfit {
namespace {

FF_LANE void step_at(const AdamRule& rule, float g, float* param, float* m, float* v) {
  float p0 = *param, m0 = *m, v0 = *v;
  adam_step(rule, g, p0, m0, v0);
  *param = p0;
  *m = m0;
  *v = v0;
}

}  // namespace

FF_KERNEL(256, 4)
adam(const __grid_constant__ AdamRule rule, int skip_zero, int n, float* param, const float* grad, float* m, float* v) {
  int i = thread_index();
  if (i >= n || (skip_zero && grad[i] == 0.0f)) return;
  step_at(rule, grad[i], param + i, m + i, v + i);
}

// A warp looks at 32 marks at a time, and all of its lanes work through the blocks of `size` values that are marked.
FF_KERNEL(256, 4)
adam_touched(const __grid_constant__ AdamRule rule, int size, int n_blocks, uint8_t* touched, float* param, float* grad,
             float* m, float* v) {
  for (int64_t first = thread_index() & ~31; first < n_blocks; first += thread_count()) {
    int64_t own = first + lane_index();
    bool mine = own < n_blocks && touched[own];
    if (mine) touched[own] = 0;
    for (unsigned marked = __ballot_sync(kFullWarp, mine); marked != 0u; marked &= marked - 1u) {
      int64_t begin = (first + __ffs(static_cast<int>(marked)) - 1) * size;
      for (int64_t i = begin + lane_index(); i < begin + size; i += 32) {
        float g = grad[i];
        if (g == 0.0f) continue;
        step_at(rule, g, param + i, m + i, v + i);
        grad[i] = 0.0f;
      }
    }
  }
}

}  // namespace fieldfit
