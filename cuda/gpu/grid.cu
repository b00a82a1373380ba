// Feature grids: a thread for each sample and level. FF_DIM coordinates, FF_FEATURES features per level.
#include "device.cuh"
#include "grid.cuh"
#include "scatter.cuh"

#ifndef FF_DIM
#define FF_DIM 3
#endif
#ifndef FF_FEATURES
#define FF_FEATURES 4
#endif

namespace fieldfit {

// blockIdx.y is the level.
FF_KERNEL(256, FF_DIM == 4 ? 2 : 4)
grid_forward(int n, const __grid_constant__ GridLevels levels, const float* x, const float* table, float* out) {
  int i = thread_index();
  int l = static_cast<int>(blockIdx.y);
  if (i >= n) return;
  float features[FF_FEATURES];
  grid_features<FF_DIM, FF_FEATURES>(levels.level[l], x + static_cast<int64_t>(i) * FF_DIM, table, features);
  store_features<FF_FEATURES>(out + (static_cast<int64_t>(i) * levels.n + l) * FF_FEATURES, features);
}

// Adds to d_table, and marks what it touches in `touched`, unless that is null. Levels of up to `shared_resolution`
// vertices per axis are those where neighbouring samples meet in a vertex, so that a warp sums first. The order of
// additions is the hardware's: sums differ in their last bits from run to run.
FF_KERNEL(256, FF_DIM == 4 ? 2 : 4)
grid_backward_table(int n, const __grid_constant__ GridLevels levels, const float* x, const float* d_out,
                    float* d_table, uint8_t* touched, int shared_resolution) {
  int i = thread_index();
  int l = static_cast<int>(blockIdx.y);
  bool active = i < n;
  int64_t sample = active ? i : n - 1;
  const GridLevel& level = levels.level[l];
  float point[FF_DIM], d[FF_FEATURES], weight[1 << FF_DIM];
  uint32_t entry[1 << FF_DIM];
  for (int a = 0; a < FF_DIM; ++a) point[a] = x[sample * FF_DIM + a];
  load_features<FF_FEATURES>(d_out + (sample * levels.n + l) * FF_FEATURES, d);
  grid_corners<FF_DIM>(point, level, entry, weight);
  bool meet = level.resolution <= static_cast<uint32_t>(shared_resolution);
  FF_UNROLL
  for (int c = 0; c < (1 << FF_DIM); ++c) {
    float v[FF_FEATURES];
    for (int f = 0; f < FF_FEATURES; ++f) v[f] = d[f] * weight[c];
    int64_t at = static_cast<int64_t>(level.offset) + entry[c];
    bool adds = active;
    if (meet) {
      adds = warp_atomic_add<FF_FEATURES>(d_table + at * FF_FEATURES, entry[c], active, v);
    } else if (active) {
      atomic_add<FF_FEATURES>(d_table + at * FF_FEATURES, v);
    }
    if (adds && touched) set_mark(touched + at / kTouchedEntries);
  }
}

FF_KERNEL(256, FF_DIM == 4 ? 2 : 4)
grid_backward_position(int n, const __grid_constant__ GridLevels levels, const float* x, const float* table,
                       const float* d_out, float* d_x) {
  int i = thread_index();
  if (i >= n) return;
  float point[FF_DIM], total[FF_DIM];
  for (int a = 0; a < FF_DIM; ++a) {
    point[a] = x[static_cast<int64_t>(i) * FF_DIM + a];
    total[a] = 0.0f;
  }
  for (int l = 0; l < levels.n; ++l) {
    const GridLevel& level = levels.level[l];
    float d[FF_FEATURES], weight[1 << FF_DIM], fraction[FF_DIM];
    uint32_t entry[1 << FF_DIM], cell;
    load_features<FF_FEATURES>(d_out + (static_cast<int64_t>(i) * levels.n + l) * FF_FEATURES, d);
    grid_corners<FF_DIM>(point, level, entry, weight);
    for (int a = 0; a < FF_DIM; ++a) grid_cell(point[a], level.scale, cell, fraction[a]);
    FF_UNROLL
    for (int c = 0; c < (1 << FF_DIM); ++c) {
      float features[FF_FEATURES], dot = 0.0f;
      load_features<FF_FEATURES>(table + (static_cast<int64_t>(level.offset) + entry[c]) * FF_FEATURES, features);
      for (int f = 0; f < FF_FEATURES; ++f) dot = fma(features[f], d[f], dot);
      for (int a = 0; a < FF_DIM; ++a) {
        total[a] = fma(grid_weight_derivative<FF_DIM>(fraction, level.scale, c, a), dot, total[a]);
      }
    }
  }
  for (int a = 0; a < FF_DIM; ++a) d_x[static_cast<int64_t>(i) * FF_DIM + a] = total[a];
}

}  // namespace fieldfit
