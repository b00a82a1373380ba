// Matrix products whose second factor is stored panel by panel, each as wide as a block: no stride of a power of two, at
// which the lines of a wide layer would fall on the same few sets of the cache.
#pragma once
#include "product.h"

namespace fieldfit {

// Row stride of activations `dim` wide; the lanes behind them keep rows off each other's sets.
inline int row_stride(int dim) { return padded(dim) + kLanes; }

// Panels of b[k_end, columns] with b(k, j) at from[k * bk + j * bj]; `to` holds k_end * padded(columns) zeros.
inline void pack_panels(const float* from, int64_t bk, int64_t bj, int k_end, int columns, float* to) {
  int end = padded(columns), j = 0;
  for (int vectors : {kVectors, 2, 1}) {
    for (int width = vectors * kLanes; j + width <= end; j += width) {
      float* panel = to + static_cast<int64_t>(j) * k_end;
      int real = columns - j < width ? columns - j : width;
      for (int k = 0; k < k_end; ++k) {
        for (int i = 0; i < real; ++i) panel[static_cast<int64_t>(k) * width + i] = from[k * bk + (j + i) * bj];
      }
    }
  }
}

template <int R, int V, Start S, End E>
inline int panel_columns(const Product& p, int rows, int columns, int j) {
  for (; j + V * kLanes <= columns; j += V * kLanes) {
    Product panel = p;
    panel.b = p.b + static_cast<int64_t>(j) * p.k_end;
    panel.ldb = V * kLanes;
    panel.c = p.c + j;
    if (S == Start::kRow) panel.row = p.row + j;
    if (E == End::kMask) panel.gate = p.gate + j;
    for (int r = 0; r < rows; r += R) product_block<R, V, S, E>(panel, r, 0);
  }
  return j;
}

// c[rows, columns] = a b, or that and a row. `rows` is a multiple of 12, `columns` of kLanes.
template <Start S, End E = End::kStore>
inline void product_panels(const Product& p, int rows, int columns) {
  int j = panel_columns<kRows, kVectors, S, E>(p, rows, columns, 0);
  if (kVectors == 4) j = panel_columns<12, 2, S, E>(p, rows, columns, j);
  panel_columns<12, 1, S, E>(p, rows, columns, j);
}

template <int V>
inline int outer_columns(const Product& p, int rows, int columns, int j) {
  int fours = rows % 6 == 0 ? 0 : rows % 6 == 4 ? 1 : 2;
  for (; j + V * kLanes <= columns; j += V * kLanes) {
    int r = 0;
    for (; r < rows - 4 * fours; r += 6) product_block<6, V, Start::kAdd, End::kStore>(p, r, j);
    for (; r < rows; r += 4) product_block<4, V, Start::kAdd, End::kStore>(p, r, j);
  }
  return j;
}

// c += a b for gradients of weights, where both factors are activations. `rows` is a multiple of 4.
inline void add_outer(const Product& p, int rows, int columns) {
  int j = outer_columns<kVectors>(p, rows, columns, 0);
  if (kVectors == 4) j = outer_columns<2>(p, rows, columns, j);
  outer_columns<1>(p, rows, columns, j);
}

}  // namespace fieldfit
