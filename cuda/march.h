// Marching rays through an occupancy grid. Rays live in unit-cube coordinates, t in the same unit.
// A bounded scene ends at the cube's faces. An unbounded one uses all of space: field coordinates squash what lies outside
// the cube (Barron et al. 2022, mip-NeRF 360, with the maximum norm), so that the cube fills the middle half of each axis.
#pragma once
#include "functions.h"

namespace fieldfit {

constexpr int kCoarse = 4;  // cells along an edge of a coarse cell

struct MarchRule {
  const uint32_t* occupancy;  // one bit per cell of resolution^3, x fastest, in field coordinates
  const uint8_t* room;        // of each coarse cell, 0 where any of its cells is set, else how many coarse cells off such a one is at least, or null
  int resolution;
  bool contracted;
  float near, far;
  float step;        // smallest step
  float cone_angle;  // a step is at least t * cone_angle
  float growth;      // log(1 + cone_angle)
};

// Unit-cube coordinates to field coordinates in [0, 1]; returns the largest coordinate before, where the cube is [-1, 1]^3.
template <class F>
FF_LANE F contract(F* p) {
  F one = splat<F>(1.0f);
  for (int a = 0; a < 3; ++a) p[a] = fma(p[a], splat<F>(2.0f), -one);
  F m = maximum(maximum(abs_(p[0]), abs_(p[1])), abs_(p[2]));
  F inverse = one / maximum(m, one);
  F factor = (splat<F>(2.0f) - inverse) * inverse * splat<F>(0.25f);
  for (int a = 0; a < 3; ++a) p[a] = fma(p[a], factor, splat<F>(0.5f));
  return m;
}

template <class F>
FF_LANE void cell_of(const F* p, int resolution, F* cell) {
  for (int a = 0; a < 3; ++a) {
    F c = floor_(p[a] * splat<F>(static_cast<float>(resolution)));
    cell[a] = minimum(maximum(c, splat<F>(0.0f)), splat<F>(static_cast<float>(resolution - 1)));
  }
}

template <class F>
FF_LANE UInt<F> index_of(const F* cell, int resolution) {
  uint32_t r = static_cast<uint32_t>(resolution);
  return (to_uint(cell[2]) * r + to_uint(cell[1])) * r + to_uint(cell[0]);
}

template <class F>
FF_LANE Mask<F> bit_of(const uint32_t* bits, const F* cell, int resolution) {
  UInt<F> i = index_of(cell, resolution);
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

// How far the ray stays within the box lo .. hi around x, where x moves by `speed` times the distance.
template <class F>
FF_LANE F distance_inside(const RayState<F>& ray, const F* x, const F* lo, const F* hi, float speed) {
  F least = splat<F>(1e30f), zero = splat<F>(0.0f);
  for (int a = 0; a < 3; ++a) {
    F face = select(ray.inverse[a] > zero, hi[a], lo[a]);
    least = minimum(least, maximum((face - x[a]) * ray.inverse[a], zero));
  }
  return least * splat<F>(1.0f / speed);
}

// A distance that it stays there at least, where space is squashed outside of the cube. With p in [-1, 1]^3 inside, v = dp/dt
// and m the largest |p|, all of v_a m - p_a m' stay as they are along the ray, and no field coordinate changes faster than by a
// quarter of (max |v| + 2 sum |v_a m - p_a m'|) / m^2 while m grows. While it falls, not faster than by half of (4 n - 3) / n^2
// down to n < m, nor of 4/3. No ray gets past the field's own faces.
template <class F>
FF_LANE F distance_inside_contracted(const RayState<F>& ray, F t, F m, const F* x, const F* lo, const F* hi) {
  F one = splat<F>(1.0f), zero = splat<F>(0.0f), two = splat<F>(2.0f), none = splat<F>(1e3f), face = none;
  F p[3], v[3], from[3], to[3], rise = -two, fastest = zero;
  for (int a = 0; a < 3; ++a) {
    face = minimum(face, select(lo[a] > splat<F>(1e-6f), x[a] - lo[a], none));
    face = minimum(face, select(hi[a] < splat<F>(1.0f - 1e-6f), hi[a] - x[a], none));
    v[a] = ray.d[a] * two;
    p[a] = fma(v[a], t, fma(ray.o[a], two, -one));
    rise = maximum(rise, select(abs_(p[a]) < m * splat<F>(1.0f - 1e-6f), -two, select(p[a] > zero, v[a], -v[a])));
    fastest = maximum(fastest, abs_(v[a]));
    from[a] = maximum(lo[a], splat<F>(0.25f));
    to[a] = minimum(hi[a], splat<F>(0.75f));
  }
  face = maximum(face, zero);
  F drift = zero;
  for (int a = 0; a < 3; ++a) drift = drift + abs_(v[a] * m - p[a] * rise);
  F outward = face * splat<F>(4.0f) * m * m / fma(drift, two, fastest);
  F nearer = (m + one) * splat<F>(0.5f);  // where the ray may get within (m - 1) / 4
  F slow = face * two * nearer * nearer / fma(nearer, splat<F>(4.0f), splat<F>(-3.0f));
  F inward = maximum(face * splat<F>(1.5f), minimum(slow, (m - one) * splat<F>(0.25f)));
  F outside = select(rise > zero, outward, inward) * splat<F>(0.999f);
  return select(m < one, distance_inside(ray, x, from, to, 0.5f), outside);
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
  F n = floor_(log_(one + minimum(distance / t, splat<F>(1e6f))) * splat<F>(1.0f / rule.growth));
  F grown = t * exp_(n * splat<F>(rule.growth));
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
  F m = splat<F>(0.0f);
  if (rule.contracted) m = contract(x);
  F cell[3], lo[3], hi[3];
  cell_of(x, rule.resolution, cell);
  Mask<F> hit = bit_of<F>(rule.occupancy, cell, rule.resolution);
  F size = splat<F>(1.0f / static_cast<float>(rule.resolution));
  for (int a = 0; a < 3; ++a) {
    lo[a] = cell[a] * size;
    hi[a] = lo[a] + size;
  }
  if (rule.room) {
    F block[3], one = splat<F>(1.0f), edge = splat<F>(static_cast<float>(kCoarse)) * size;
    for (int a = 0; a < 3; ++a) block[a] = floor_(cell[a] * splat<F>(1.0f / kCoarse));
    F room = to_float(gather(rule.room, index_of<F>(block, (rule.resolution + kCoarse - 1) / kCoarse)));
    Mask<F> empty = room >= one;
    for (int a = 0; a < 3; ++a) {
      lo[a] = select(empty, (block[a] - room + one) * edge, lo[a]);
      hi[a] = select(empty, (block[a] + room) * edge, hi[a]);
    }
  }
  F distance = rule.contracted ? distance_inside_contracted(ray, middle, m, x, lo, hi) : distance_inside(ray, x, lo, hi, 1.0f);
  ray.t = select(hit, t0 + dt, last_step_within(t0, distance, rule));
  return hit;
}

}  // namespace fieldfit
