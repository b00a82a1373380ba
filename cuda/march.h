// Marching rays through an occupancy grid. Rays live in unit-cube coordinates, t in the same unit.
// A bounded scene ends at the cube's faces. An unbounded one uses all of space: field coordinates squash what lies outside
// the cube (Barron et al. 2022, mip-NeRF 360, with the maximum norm), so that the cube fills the middle half of each axis.
#pragma once
#include "lane.h"

namespace fieldfit {

struct MarchRule {
  const uint32_t* occupancy;  // one bit per cell of resolution^3, x fastest, in field coordinates
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

// The part of the ray inside the unit cube, or an empty interval.
template <class F>
FF_LANE void ray_cube(const F* o, const F* d, F& t0, F& t1) {
  for (int a = 0; a < 3; ++a) {
    F tiny = splat<F>(1e-12f);
    F da = select(abs_(d[a]) < tiny, tiny, d[a]);
    F inverse = splat<F>(1.0f) / da;
    F u = -o[a] * inverse;
    F v = (splat<F>(1.0f) - o[a]) * inverse;
    t0 = maximum(t0, minimum(u, v));
    t1 = minimum(t1, maximum(u, v));
  }
}

template <class F>
FF_LANE void cell_of(const F* p, int resolution, F* cell) {
  for (int a = 0; a < 3; ++a) {
    F c = floor_(p[a] * splat<F>(static_cast<float>(resolution)));
    cell[a] = minimum(maximum(c, splat<F>(0.0f)), splat<F>(static_cast<float>(resolution - 1)));
  }
}

template <class F>
FF_LANE Mask<F> occupied(const F* cell, const MarchRule& rule) {
  uint32_t r = static_cast<uint32_t>(rule.resolution);
  UInt<F> i = (to_uint(cell[2]) * r + to_uint(cell[1])) * r + to_uint(cell[0]);
  UInt<F> word = gather(rule.occupancy, i >> 5);
  return ((word >> (i & 31u)) & 1u) != 0u;
}

template <class F>
struct RayState {
  F o[3], d[3];
  F t, t_end;
};

template <class F>
FF_LANE F step_at(F t, const MarchRule& rule) {
  return maximum(splat<F>(rule.step), t * splat<F>(rule.cone_angle));
}

// Clips the ray and moves it to its first step, `jitter` in [0, 1) of a step in.
template <class F>
FF_LANE void march_begin(RayState<F>& ray, F jitter, const MarchRule& rule) {
  ray.t = splat<F>(rule.near);
  ray.t_end = splat<F>(rule.far);
  if (!rule.contracted) ray_cube(ray.o, ray.d, ray.t, ray.t_end);
  ray.t = fma(step_at(ray.t, rule), jitter, ray.t);
}

// One step: returns whether the interval [t, t + dt] is a sample, its field coordinates, and moves `ray.t` past it,
// or past the empty cell around it.
template <class F>
FF_LANE Mask<F> march_step(RayState<F>& ray, const MarchRule& rule, F& t0, F& dt, F* x) {
  dt = step_at(ray.t, rule);
  t0 = ray.t;
  F middle = fma(dt, splat<F>(0.5f), t0);
  for (int a = 0; a < 3; ++a) x[a] = fma(ray.d[a], middle, ray.o[a]);
  if (rule.contracted) contract(x);
  F cell[3];
  cell_of(x, rule.resolution, cell);
  Mask<F> hit = occupied<F>(cell, rule);
  F steps = splat<F>(1.0f);
  if (!rule.contracted && rule.cone_angle == 0.0f) {
    F exit = splat<F>(1e30f);
    float size = 1.0f / static_cast<float>(rule.resolution);
    for (int a = 0; a < 3; ++a) {
      F ahead = select(ray.d[a] > splat<F>(0.0f), splat<F>(1.0f), splat<F>(0.0f));
      F d = select(abs_(ray.d[a]) < splat<F>(1e-12f), splat<F>(1e-12f), ray.d[a]);
      F distance = ((cell[a] + ahead) * splat<F>(size) - x[a]) / d;
      exit = minimum(exit, select(distance < splat<F>(0.0f), splat<F>(1e30f), distance));
    }
    steps = maximum(floor_(minimum(exit / dt, splat<F>(1e6f))), splat<F>(1.0f));
  }
  ray.t = fma(select(hit, splat<F>(1.0f), steps), dt, t0);
  return hit;
}

}  // namespace fieldfit
