// Compositing of packed samples, one ray after another within a thread.
#include "../composite.h"

#include "kernels.h"
#include "threads.h"

namespace fieldfit {

void composite_forward(const CompositeInput& in, const Rendering& out) {
  int n_threads = threads_for(in.n_rays, 256);
#pragma omp parallel for num_threads(n_threads) schedule(static)
  for (int64_t r = 0; r < in.n_rays; ++r) {
    Composite<float> c;
    composite_begin(c);
    for (int64_t s = in.offsets[r]; s < in.offsets[r + 1]; ++s) {
      composite_add(c, in.sigma[s], in.rgb + s * 3, in.t0[s], in.t1[s]);
    }
    for (int a = 0; a < 3; ++a) out.rgb[r * 3 + a] = c.rgb[a];
    out.opacity[r] = c.opacity;
    out.depth[r] = c.depth;
  }
}

void composite_backward(const CompositeInput& in, const Rendering& forward, const float* d_rgb, const float* d_opacity,
                        const float* d_depth, float* d_sigma, float* d_sample_rgb) {
  int n_threads = threads_for(in.n_rays, 256);
#pragma omp parallel for num_threads(n_threads) schedule(static)
  for (int64_t r = 0; r < in.n_rays; ++r) {
    Composite<float> c;
    composite_begin(c);
    const float* d = d_rgb + r * 3;
    float rest = d_opacity[r] * forward.opacity[r] + d_depth[r] * forward.depth[r];
    for (int a = 0; a < 3; ++a) rest += d[a] * forward.rgb[r * 3 + a];
    for (int64_t s = in.offsets[r]; s < in.offsets[r + 1]; ++s) {
      composite_vjp(c, rest, in.sigma[s], in.rgb + s * 3, in.t0[s], in.t1[s], d, d_opacity[r], d_depth[r], d_sigma[s],
                    d_sample_rgb + s * 3);
    }
  }
}

}  // namespace fieldfit
