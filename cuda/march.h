// Marching rays through an occupancy grid. Rays live in unit-cube coordinates, t in the same unit.
// A bounded scene ends at the cube's faces. An unbounded one uses all of space: field coordinates squash what lies outside
// the cube (Barron et al. 2022, mip-NeRF 360, with the maximum norm), so that the cube fills the middle half of each axis.
#pragma once
#include "functions.h"

namespace fieldfit {

constexpr int kCoarse = 4;  // cells along an edge of a coarse cell

struct MarchRule {
  const uint32_t* occupancy;  // one bit per cell of resolution^3, x fastest, in field coordinates
  const uint32_t* coarse;     // the same for coarse cells, set where any of their cells is, or null
  int resolution;
  bool contracted;
  float near, far;
  float step;        // smallest step
  float cone_angle;  // a step is at least t * cone_angle
};

// Unit-cube coordinates to field coordinates in [0, 1].
template <class F>
FF_LANE void contract(F* p) {
  F one = splat<F>(1.0f);
  for (int a = 0; a < 3; ++a) p[a] = fma(p[a], splat<F>(2.0f), -one);
  F m = maximum(maximum(abs_(p[0]), abs_(p[1])), abs_(p[2]));
  F outside = (splat<F>(2.0f) - one / maximum(m, one)) / maximum(m, one);
  F factor = select(m > one, outside, one) * splat<F>(0.25f);
  for (int a = 0; a < 3; ++a) p[a] = fma(p[a], factor, splat<F>(0.5f));
}

template <class F>
FF_LANE void cell_of(const F* p, int resolution, F* cell) {
  for (int a = 0; a < 3; ++a) {
    F c = floor_(p[a] * splat<F>(static_cast<float>(resolution)));
    cell[a] = minimum(maximum(c, splat<F>(0.0f)), splat<F>(static_cast<float>(resolution - 1)));
  }
}

template <class F>
FF_LANE Mask<F> bit_of(const uint32_t* bits, const F* cell, int resolution) {
  uint32_t r = static_cast<uint32_t>(resolution);
  UInt<F> i = (to_uint(cell[2]) * r + to_uint(cell[1])) * r + to_uint(cell[0]);
  return ((gather(bits, i >> 5) >> (i & 31u)) & 1u) != 0u;
}

template <class F>
struct RayState {
  F o[3], d[3], inverse[3];  // of the direction
  F t, t_end;
};

template <class F>
FF_LANE F step_at(F t, const MarchRule& rule) {
  return maximum(splat<F>(rule.step), t * splat<F>(rule.cone_angle));
}

// Clips the ray and moves it to its first step, `jitter` in [0, 1) of a step in.
template <class F>
FF_LANE void march_begin(RayState<F>& ray, F jitter, const MarchRule& rule) {
  F one = splat<F>(1.0f);
  ray.t = splat<F>(rule.near);
  ray.t_end = splat<F>(rule.far);
  for (int a = 0; a < 3; ++a) {
    F tiny = splat<F>(1e-12f);
    ray.inverse[a] = one / select(abs_(ray.d[a]) < tiny, tiny, ray.d[a]);
    if (rule.contracted) continue;
    F u = -ray.o[a] * ray.inverse[a];
    F v = (one - ray.o[a]) * ray.inverse[a];
    ray.t = maximum(ray.t, minimum(u, v));
    ray.t_end = minimum(ray.t_end, maximum(u, v));
  }
  ray.t = fma(step_at(ray.t, rule), jitter, ray.t);
}

// A distance that the ray stays within the box lo .. lo + width around x, in field coordinates.
template <class F>
FF_LANE F distance_inside(const RayState<F>& ray, const F* x, const F* lo, F width) {
  F least = splat<F>(1e30f), zero = splat<F>(0.0f);
  for (int a = 0; a < 3; ++a) {
    F face = lo[a] + select(ray.inverse[a] > zero, width, zero);
    least = minimum(least, maximum((face - x[a]) * ray.inverse[a], zero));
  }
  return least;
}

// The same where space is squashed: with m the largest coordinate of a point in [-1, 1] where the middle half of the field
// is, no field coordinate changes faster along the ray than by half of (4 m - 3) / m^2, nor of 4/3. No ray gets past the
// field's own faces.
template <class F>
FF_LANE F distance_inside_contracted(const F* x, const F* lo, F width) {
  F one = splat<F>(1.0f), far = splat<F>(1e3f), face = far, m = splat<F>(0.0f);
  for (int a = 0; a < 3; ++a) {
    F hi = lo[a] + width;
    face = minimum(face, select(lo[a] > splat<F>(1e-6f), x[a] - lo[a], far));
    face = minimum(face, select(hi < splat<F>(1.0f - 1e-6f), hi - x[a], far));
    m = maximum(m, abs_(fma(x[a], splat<F>(4.0f), splat<F>(-2.0f))));  // 2 - 1/m outside
  }
  face = maximum(face, splat<F>(0.0f));
  m = one / maximum(splat<F>(2.0f) - maximum(m, one), splat<F>(1e-6f));
  F nearer = (m + one) * splat<F>(0.5f);  // where the ray may get within (m - 1) / 4
  F slow = face * splat<F>(2.0f) * nearer * nearer / fma(nearer, splat<F>(4.0f), splat<F>(-3.0f));
  return maximum(face * splat<F>(1.5f), minimum(slow, (m - one) * splat<F>(0.25f)));
}

// The last of the ray's steps, past its next one at least, that begins less than `distance` after t.
template <class F>
FF_LANE F last_step_within(F t, F distance, const MarchRule& rule) {
  F one = splat<F>(1.0f);
  if (rule.cone_angle == 0.0f) {
    F n = floor_(minimum(distance * splat<F>(1.0f / rule.step), splat<F>(1e6f)));
    return fma(maximum(n, one), splat<F>(rule.step), t);
  }
  // Steps are equal up to the knee, and grow in proportion to t behind it.
  F knee = splat<F>(rule.step / rule.cone_angle);
  F equal = floor_(minimum(distance, maximum(knee - t, splat<F>(0.0f))) * splat<F>(1.0f / rule.step));
  F next = t + step_at(t, rule);
  F growth = splat<F>(log_(1.0f + rule.cone_angle));
  F n = floor_(log_(one + minimum(distance / t, splat<F>(1e6f))) / growth);
  F grown = t * exp_(n * growth);
  F jump = select(t < knee, fma(equal, splat<F>(rule.step), t), select(n > one, grown, next));
  return maximum(jump, next);
}

// One step: returns whether the interval [t, t + dt] is a sample, its field coordinates, and moves `ray.t` past it,
// or past the empty cells around it.
template <class F>
FF_LANE Mask<F> march_step(RayState<F>& ray, const MarchRule& rule, F& t0, F& dt, F* x) {
  dt = step_at(ray.t, rule);
  t0 = ray.t;
  F middle = fma(dt, splat<F>(0.5f), t0);
  for (int a = 0; a < 3; ++a) x[a] = fma(ray.d[a], middle, ray.o[a]);
  if (rule.contracted) contract(x);
  F cell[3], lo[3];
  cell_of(x, rule.resolution, cell);
  Mask<F> hit = bit_of<F>(rule.occupancy, cell, rule.resolution);
  F size = splat<F>(1.0f / static_cast<float>(rule.resolution)), width = size;
  for (int a = 0; a < 3; ++a) lo[a] = cell[a] * size;
  if (rule.coarse) {
    F block[3];
    for (int a = 0; a < 3; ++a) block[a] = floor_(cell[a] * splat<F>(1.0f / kCoarse));
    Mask<F> some = bit_of<F>(rule.coarse, block, (rule.resolution + kCoarse - 1) / kCoarse);
    width = select(some, size, splat<F>(static_cast<float>(kCoarse)) * size);
    for (int a = 0; a < 3; ++a) lo[a] = select(some, lo[a], block[a] * width);
  }
  F distance = rule.contracted ? distance_inside_contracted(x, lo, width) : distance_inside(ray, x, lo, width);
  ray.t = select(hit, t0 + dt, last_step_within(t0, distance, rule));
  return hit;
}

}  // namespace fieldfit
