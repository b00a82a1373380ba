// Multi-resolution feature grids (Mueller et al. 2022, "Instant Neural Graphics Primitives"): where a level's vertices lie in
// the table and how a point weighs them. A level is dense while its vertices fit its share of the table and hashed beyond.
#pragma once
#include "lane.h"

namespace fieldfit {

struct GridLevel {
  uint32_t offset;      // first entry of the level in the table
  uint32_t entries;     // power of two where hashed
  uint32_t resolution;  // vertices per axis
  uint32_t hashed;
  float scale;  // cells per unit length: the point x lies at x * scale + 0.5 in cells
};

// Cell and fraction of coordinate x, clamped to the unit interval.
template <class F>
FF_LANE void grid_cell(F x, float scale, UInt<F>& cell, F& fraction) {
  x = minimum(maximum(x, splat<F>(0.0f)), splat<F>(1.0f));
  F p = fma(x, splat<F>(scale), splat<F>(0.5f));
  F whole = floor_(p);
  cell = to_uint(whole);
  fraction = p - whole;
}

// Entry of one vertex within its level; `v` has D vertex coordinates.
template <int D, class U>
FF_LANE U grid_entry(const U* v, const GridLevel& level) {
  constexpr uint32_t primes[4] = {1u, 2654435761u, 805459861u, 3674653429u};
  if (level.hashed) {
    U h = v[0];
    for (int d = 1; d < D; ++d) h = h ^ (v[d] * primes[d]);
    return h & (level.entries - 1u);
  }
  U i = v[D - 1];
  for (int d = D - 2; d >= 0; --d) i = i * level.resolution + v[d];
  return i;
}

// The 2^(D - 1) pairs of vertices around x that differ along the first axis: entries within the level, the weight that the
// other axes give both, and `along`, the far one's share of it. Pair p has bit d - 1 set where it is far along axis d.
template <int D, class F>
FF_LANE void grid_pairs(const F* x, const GridLevel& level, UInt<F>* near, UInt<F>* far, F* weight, F& along) {
  UInt<F> cell[D];
  F fraction[D];
  for (int d = 0; d < D; ++d) grid_cell(x[d], level.scale, cell[d], fraction[d]);
  along = fraction[0];
  for (int p = 0; p < (1 << (D - 1)); ++p) {
    UInt<F> v[D];
    F w = splat<F>(1.0f);
    for (int d = 1; d < D; ++d) {
      bool upper = (p >> (d - 1)) & 1;
      v[d] = cell[d] + (upper ? 1u : 0u);
      w = w * (upper ? fraction[d] : splat<F>(1.0f) - fraction[d]);
    }
    v[0] = cell[0];
    near[p] = grid_entry<D>(v, level);
    v[0] = cell[0] + 1u;
    far[p] = grid_entry<D>(v, level);
    weight[p] = w;
  }
}

// The 2^D vertices around x: entries within the level and multilinear weights. Corner c has bit d set where it is the far vertex along d.
template <int D, class F>
FF_LANE void grid_corners(const F* x, const GridLevel& level, UInt<F>* entry, F* weight) {
  UInt<F> near[1 << (D - 1)], far[1 << (D - 1)];
  F shared[1 << (D - 1)], along;
  grid_pairs<D>(x, level, near, far, shared, along);
  for (int p = 0; p < (1 << (D - 1)); ++p) {
    entry[2 * p] = near[p];
    entry[2 * p + 1] = far[p];
    weight[2 * p] = shared[p] * (splat<F>(1.0f) - along);
    weight[2 * p + 1] = shared[p] * along;
  }
}

// Derivative of the weight of corner c along axis `axis`.
template <int D, class F>
FF_LANE F grid_weight_derivative(const F* fraction, float scale, int c, int axis) {
  F w = splat<F>(((c >> axis) & 1) ? scale : -scale);
  for (int d = 0; d < D; ++d) {
    if (d != axis) w = w * (((c >> d) & 1) ? fraction[d] : splat<F>(1.0f) - fraction[d]);
  }
  return w;
}

}  // namespace fieldfit
