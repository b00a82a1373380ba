// Adam over flat parameters. With `skip_zero`, entries whose gradient is exactly zero keep their value and moments: a step
// touches the table entries that its samples touched, and nothing else.
#include "../adam.h"

#include "kernels.h"
#include "threads.h"

namespace fieldfit {

void adam(const AdamRule& rule, bool skip_zero, int64_t n, float* param, const float* grad, float* m, float* v) {
  int n_threads = threads_for(n, 16384);
#pragma omp parallel num_threads(n_threads)
  {
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    int64_t i = range.begin;
    for (; i + kLanes <= range.end; i += kLanes) {
      FloatV g = load(grad + i);
      IntV touched = g != FloatV{};
      if (skip_zero && !any(touched)) continue;
      FloatV p0 = load(param + i), m0 = load(m + i), v0 = load(v + i);
      FloatV p1 = p0, m1 = m0, v1 = v0;
      adam_step(rule, g, p1, m1, v1);
      if (skip_zero) {
        p1 = select(touched, p1, p0);
        m1 = select(touched, m1, m0);
        v1 = select(touched, v1, v0);
      }
      store(param + i, p1);
      store(m + i, m1);
      store(v + i, v1);
    }
    for (; i < range.end; ++i) {
      if (!skip_zero || grad[i] != 0.0f) adam_step(rule, grad[i], param[i], m[i], v[i]);
    }
  }
}

}  // namespace fieldfit
