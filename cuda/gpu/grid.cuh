// Levels of a grid as kernels take them, and the features of one level at a point.
#pragma once
#include "../grid.h"
#include "device.cuh"

namespace fieldfit {

constexpr int kMaxLevels = 32;
constexpr int kTouchedEntries = 16;  // table entries that share a mark; levels start at multiples of it

struct GridLevels {
  int n;
  GridLevel level[kMaxLevels];
};

// The features of one entry in as few loads and stores as their number allows: rows are aligned to their own size.
template <int F>
FF_LANE void load_features(const float* from, float* v) {
  if constexpr (F == 1) {
    v[0] = from[0];
  } else if constexpr (F == 2) {
    float2 w = *reinterpret_cast<const float2*>(from);
    v[0] = w.x, v[1] = w.y;
  } else {
    for (int f = 0; f < F; f += 4) {
      float4 w = *reinterpret_cast<const float4*>(from + f);
      v[f] = w.x, v[f + 1] = w.y, v[f + 2] = w.z, v[f + 3] = w.w;
    }
  }
}

template <int F>
FF_LANE void store_features(float* to, const float* v) {
  if constexpr (F == 1) {
    to[0] = v[0];
  } else if constexpr (F == 2) {
    *reinterpret_cast<float2*>(to) = float2{v[0], v[1]};
  } else {
    for (int f = 0; f < F; f += 4) *reinterpret_cast<float4*>(to + f) = float4{v[f], v[f + 1], v[f + 2], v[f + 3]};
  }
}

template <int D, int F>
FF_LANE void grid_features(const GridLevel& level, const float* x, const float* table, float* features) {
  float point[D], weight[1 << D];
  uint32_t entry[1 << D];
  for (int a = 0; a < D; ++a) point[a] = x[a];
  grid_corners<D>(point, level, entry, weight);
  for (int f = 0; f < F; ++f) features[f] = 0.0f;
  FF_UNROLL
  for (int c = 0; c < (1 << D); ++c) {
    float v[F];
    load_features<F>(table + (static_cast<int64_t>(level.offset) + entry[c]) * F, v);
    for (int f = 0; f < F; ++f) features[f] = fma(v[f], weight[c], features[f]);
  }
}

}  // namespace fieldfit
