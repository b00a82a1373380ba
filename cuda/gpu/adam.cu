// Adam over flat parameters; with `skip_zero`, entries whose gradient is exactly zero keep their value and moments.
#include "../adam.h"
#include "device.cuh"

namespace fieldfit {

FF_KERNEL(256, 4)
adam(const __grid_constant__ AdamRule rule, int skip_zero, int n, float* param, const float* grad, float* m, float* v) {
  for (int i = thread_index(); i < n; i += thread_count()) {
    float g = grad[i];
    if (skip_zero && g == 0.0f) continue;
    float p0 = param[i], m0 = m[i], v0 = v[i];
    adam_step(rule, g, p0, m0, v0);
    param[i] = p0;
    m[i] = m0;
    v[i] = v0;
  }
}

}  // namespace fieldfit
