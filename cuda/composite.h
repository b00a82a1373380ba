// Emission and absorption along a ray (Max 1995; Mildenhall et al. 2020, eq. 3):
//   alpha_i = 1 - exp(-sigma_i dt_i),  w_i = T_i alpha_i,  T_{i+1} = T_i (1 - alpha_i),
//   rgb = sum w_i c_i,  opacity = sum w_i,  depth = sum w_i t_i with t_i the middle of interval i.
#pragma once
#include "functions.h"

namespace fieldfit {

template <class F>
struct Composite {
  F rgb[3], opacity, depth, transmittance;
};

template <class F>
FF_LANE void composite_begin(Composite<F>& c) {
  for (int a = 0; a < 3; ++a) c.rgb[a] = splat<F>(0.0f);
  c.opacity = c.depth = splat<F>(0.0f);
  c.transmittance = splat<F>(1.0f);
}

// Adds one sample and returns its weight.
template <class F>
FF_LANE F composite_add(Composite<F>& c, F sigma, const F* rgb, F t0, F t1) {
  F passes = exp_(-sigma * (t1 - t0));
  F w = c.transmittance * (splat<F>(1.0f) - passes);
  for (int a = 0; a < 3; ++a) c.rgb[a] = fma(w, rgb[a], c.rgb[a]);
  c.opacity = c.opacity + w;
  c.depth = fma(w, (t0 + t1) * splat<F>(0.5f), c.depth);
  c.transmittance = c.transmittance * passes;
  return w;
}

// Cotangents of one sample. `c` walks forward as in composite_add; `rest` starts as the sum over all samples of w_i g_i with
// g_i = d_rgb . c_i + d_opacity + d_depth t_i, and holds the part behind the sample afterwards:
//   d_sigma_i = dt_i (T_{i+1} g_i - sum_{j > i} w_j g_j),  d_c_i = w_i d_rgb.
template <class F>
FF_LANE void composite_vjp(Composite<F>& c, F& rest, F sigma, const F* rgb, F t0, F t1, const F* d_rgb, F d_opacity,
                           F d_depth, F& d_sigma, F* d_sample_rgb) {
  F w = composite_add(c, sigma, rgb, t0, t1);
  F g = fma(d_depth, (t0 + t1) * splat<F>(0.5f), d_opacity);
  for (int a = 0; a < 3; ++a) {
    g = fma(d_rgb[a], rgb[a], g);
    d_sample_rgb[a] = w * d_rgb[a];
  }
  rest = rest - w * g;
  d_sigma = (t1 - t0) * (c.transmittance * g - rest);
}

}  // namespace fieldfit
