// Compositing of packed samples, a warp for each ray: 32 samples at a time, what lies before each of them by a scan.
#include "../composite.h"
#include "device.cuh"

namespace fieldfit {

namespace {

struct Sample {
  float sigma, t0, t1, rgb[3];
};

struct Packed {
  int n_rays, n_samples;
  const int64_t* offsets;
  const float *sigma, *rgb, *t0, *t1;

  FF_LANE int64_t offset(int ray) const {
    int64_t o = offsets[ray];
    return o < 0 ? 0 : o > n_samples ? n_samples : o;
  }
  FF_LANE Sample at(int64_t i, bool inside) const {
    Sample s = {0.0f, 0.0f, 0.0f, {0.0f, 0.0f, 0.0f}};
    if (inside) s = {sigma[i], t0[i], t1[i], {rgb[i * 3], rgb[i * 3 + 1], rgb[i * 3 + 2]}};
    return s;
  }
};

// Walks along the ray: `before` is the optical thickness in front of the next 32 samples.
FF_LANE void walk(const Sample& s, float& before, Composite<float>& c) {
  float thickness = warp_scan(s.sigma * (s.t1 - s.t0));
  composite_begin(c);
  c.transmittance = exp_(-(before + warp_before(thickness)));
  before += __shfl_sync(kFullWarp, thickness, 31);
}

}  // namespace

FF_KERNEL(128, 8)
composite_forward(int n_rays, int n_samples, const int64_t* offsets, const float* sigma, const float* rgb,
                  const float* t0, const float* t1, float* out_rgb, float* opacity, float* depth) {
  int ray = thread_index() >> 5;
  if (ray >= n_rays) return;
  Packed in{n_rays, n_samples, offsets, sigma, rgb, t0, t1};
  int64_t end = in.offset(ray + 1);
  float before = 0.0f, sums[5] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  for (int64_t s = in.offset(ray); s < end; s += 32) {
    int64_t i = s + lane_index();
    Sample sample = in.at(i, i < end);
    Composite<float> c;
    walk(sample, before, c);
    composite_add(c, sample.sigma, sample.rgb, sample.t0, sample.t1);
    for (int a = 0; a < 3; ++a) sums[a] += c.rgb[a];
    sums[3] += c.opacity;
    sums[4] += c.depth;
  }
  for (int a = 0; a < 5; ++a) sums[a] = warp_sum(sums[a]);
  if (lane_index() == 0) {
    for (int a = 0; a < 3; ++a) out_rgb[static_cast<int64_t>(ray) * 3 + a] = sums[a];
    opacity[ray] = sums[3];
    depth[ray] = sums[4];
  }
}

FF_KERNEL(128, 8)
composite_backward(int n_rays, int n_samples, const int64_t* offsets, const float* sigma, const float* rgb,
                   const float* t0, const float* t1, const float* out_rgb, const float* opacity, const float* depth,
                   const float* d_rgb, const float* d_opacity, const float* d_depth, float* d_sigma,
                   float* d_sample_rgb) {
  int ray = thread_index() >> 5;
  if (ray >= n_rays) return;
  Packed in{n_rays, n_samples, offsets, sigma, rgb, t0, t1};
  float d[3], d_o = d_opacity[ray], d_t = d_depth[ray];
  float rest = d_o * opacity[ray] + d_t * depth[ray];
  for (int a = 0; a < 3; ++a) {
    d[a] = d_rgb[static_cast<int64_t>(ray) * 3 + a];
    rest += d[a] * out_rgb[static_cast<int64_t>(ray) * 3 + a];
  }
  int64_t end = in.offset(ray + 1);
  float before = 0.0f;
  for (int64_t s = in.offset(ray); s < end; s += 32) {
    int64_t i = s + lane_index();
    Sample sample = in.at(i, i < end);
    Composite<float> c;
    walk(sample, before, c);
    // Each lane's share of the sum tells the lanes behind it what is left of `rest` when the walk reaches them.
    float share = c.transmittance * (1.0f - exp_(-sample.sigma * (sample.t1 - sample.t0)));
    share *=
        d_o + d_t * (sample.t0 + sample.t1) * 0.5f + d[0] * sample.rgb[0] + d[1] * sample.rgb[1] + d[2] * sample.rgb[2];
    float shares = warp_scan(share);
    float mine = rest - warp_before(shares), d_own, d_color[3];
    composite_vjp(c, mine, sample.sigma, sample.rgb, sample.t0, sample.t1, d, d_o, d_t, d_own, d_color);
    if (i < end) {
      d_sigma[i] = d_own;
      for (int a = 0; a < 3; ++a) d_sample_rgb[i * 3 + a] = d_color[a];
    }
    rest -= __shfl_sync(kFullWarp, shares, 31);
  }
}

}  // namespace fieldfit
