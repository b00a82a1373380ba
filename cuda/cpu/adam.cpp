// Adam over flat parameters. With `skip_zero`, entries whose gradient is exactly zero keep their value and moments: a step
// touches the table entries that its samples touched, and nothing else.
#include "../adam.h"

#include "kernels.h"
#include "threads.h"

namespace fieldfit {

namespace {

// Entries whose gradient is exactly zero keep their value and moments.
void skipping_step(const AdamRule& rule, FloatV g, float* param, float* m, float* v) {
  IntV touched = g != FloatV{};
  if (!any(touched)) return;
  FloatV p0 = load(param), m0 = load(m), v0 = load(v);
  FloatV p1 = p0, m1 = m0, v1 = v0;
  adam_step(rule, g, p1, m1, v1);
  store(param, select(touched, p1, p0));
  store(m, select(touched, m1, m0));
  store(v, select(touched, v1, v0));
}

}  // namespace

void adam(const AdamRule& rule, bool skip_zero, int64_t n, float* param, const float* grad, float* m, float* v) {
  int n_threads = threads_for(n, 16384);
#pragma omp parallel num_threads(n_threads)
  {
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    int64_t i = range.begin;
    for (; i + kLanes <= range.end; i += kLanes) {
      FloatV g = load(grad + i);
      if (skip_zero) {
        skipping_step(rule, g, param + i, m + i, v + i);
        continue;
      }
      FloatV p = load(param + i), m1 = load(m + i), v1 = load(v + i);
      adam_step(rule, g, p, m1, v1);
      store(param + i, p);
      store(m + i, m1);
      store(v + i, v1);
    }
    for (; i < range.end; ++i) {
      if (!skip_zero || grad[i] != 0.0f) adam_step(rule, grad[i], param[i], m[i], v[i]);
    }
  }
}

void adam_touched(const AdamRule& rule, int features, int64_t n_blocks, uint8_t* touched, float* param, float* grad, float* m,
                  float* v) {
  int64_t size = static_cast<int64_t>(kTouchedEntries) * features;  // a multiple of kLanes
  int n_threads = threads_for(n_blocks, 1024);
#pragma omp parallel for num_threads(n_threads) schedule(static)
  for (int64_t b = 0; b < n_blocks; ++b) {
    if (!touched[b]) continue;
    touched[b] = 0;
    for (int64_t i = b * size; i < (b + 1) * size; i += kLanes) {
      skipping_step(rule, load(grad + i), param + i, m + i, v + i);
      store(grad + i, FloatV{});
    }
  }
}

}  // namespace fieldfit
