// Register-blocked matrix products on tiles that stay in the first-level cache.
#pragma once
#include "kernels.h"

namespace fieldfit {

constexpr int kVectors = kLanes == 16 ? 4 : 2;  // of a block's columns
constexpr int kRows = 6;                        // of a block, where its columns fill kVectors

inline int padded(int dim) { return (dim + kLanes - 1) / kLanes * kLanes; }

enum class Start { kZero, kRow, kAdd };  // c begins as zeros, as one row for all, or as it is
enum class End { kStore, kRectify, kMask };

// A product c[rows, columns] = a b, with a(r, k) at a[r * ar + k * ak] and b row-major.
struct Product {
  const float* a;
  int64_t ar, ak;
  const float* b;
  int ldb;
  float* c;
  int ldc;
  int k_end;
  const float* row = nullptr;   // with Start::kRow
  const float* next = nullptr;  // rows like a's that are read soon
  const float* gate = nullptr;  // laid out as c; with End::kMask, c is zero where it is not positive
};

template <int R, int V, Start S, End E>
FF_LANE void product_block(const Product& p, int64_t r0, int64_t j) {
  const float* a = p.a + r0 * p.ar;
  const float* b = p.b + j;
  float* c = p.c + r0 * p.ldc + j;
  if (p.next) {
    for (int r = 0; r < R; ++r) {
      for (int k = 0; k < p.k_end; k += 16) __builtin_prefetch(p.next + (r0 + r) * p.ar + k);
    }
  }
  FloatV acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      acc[r][v] = S == Start::kAdd ? load(c + r * p.ldc + v * kLanes) : S == Start::kRow ? load(p.row + j + v * kLanes) : FloatV{};
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < p.k_end; ++k) {
    FloatV bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load(b + k * p.ldb + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      FloatV av = splat<FloatV>(a[r * p.ar + k * p.ak]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      FloatV x = acc[r][v];
      if (E == End::kRectify) x = maximum(x, FloatV{});
      if (E == End::kMask) x = select(load(p.gate + (r0 + r) * p.ldc + j + v * kLanes) > FloatV{}, x, FloatV{});
      store(c + r * p.ldc + v * kLanes, x);
    }
  }
}

template <int R, int V, Start S, End E>
inline int product_columns(const Product& p, int rows, int columns, int j) {
  for (; j + V * kLanes <= columns; j += V * kLanes) {
    for (int r = 0; r < rows; r += R) product_block<R, V, S, E>(p, r, j);
  }
  return j;
}

// `rows` is a multiple of 12, `columns` of kLanes.
template <Start S, End E>
inline void product(const Product& p, int rows, int columns) {
  int j = product_columns<kRows, kVectors, S, E>(p, rows, columns, 0);
  if (kVectors == 4) j = product_columns<12, 2, S, E>(p, rows, columns, j);
  product_columns<12, 1, S, E>(p, rows, columns, j);
}

// The same with few long rows, added to c: `rows` is a multiple of 4.
inline void product_add(const Product& p, int rows, int columns) {
  int j = product_columns<4, kVectors, Start::kAdd, End::kStore>(p, rows, columns, 0), eights = rows / 8 * 8;
  if (kVectors == 4 && eights == rows) j = product_columns<8, 2, Start::kAdd, End::kStore>(p, rows, columns, j);
  product_columns<8, 1, Start::kAdd, End::kStore>(p, eights, columns, j);
  if (eights == rows) return;
  for (; j < columns; j += kLanes) product_block<4, 1, Start::kAdd, End::kStore>(p, eights, j);
}

// sum[columns] += all rows of a, `stride` apart; columns is a multiple of kLanes.
inline void add_rows(const float* a, int stride, int rows, int columns, float* sum) {
  for (int j = 0; j < columns; j += kLanes) {
    FloatV s = load(sum + j);
    for (int r = 0; r < rows; ++r) s = s + load(a + static_cast<int64_t>(r) * stride + j);
    store(sum + j, s);
  }
}

#if defined(__AVX512F__)
constexpr int kNarrow = 4;  // columns that the product below computes

// Vector i of the result holds in lane 4 s + o the sum of all lanes of v[s][o].
FF_LANE FloatV sums_of(const FloatV (*v)[kNarrow]) {
  __m512 row[4];
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps((__m512)v[s][0], (__m512)v[s][1]), _mm512_unpackhi_ps((__m512)v[s][0], (__m512)v[s][1]));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps((__m512)v[s][2], (__m512)v[s][3]), _mm512_unpackhi_ps((__m512)v[s][2], (__m512)v[s][3]));
    __m512d lo = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    __m512d hi = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    row[s] = _mm512_add_ps(_mm512_castpd_ps(lo), _mm512_castpd_ps(hi));
  }
  __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(row[0], row[1], 0x88), _mm512_shuffle_f32x4(row[0], row[1], 0xdd));
  __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(row[2], row[3], 0x88), _mm512_shuffle_f32x4(row[2], row[3], 0xdd));
  return (FloatV)_mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

// c[rows, 4] = a b^T, lanes along k, for layers with so few outputs that a vector of them would be mostly padding.
// a [rows, k_end] and b [4, k_end] row-major, k_end a multiple of kLanes, rows one of 4.
inline void product_narrow(const float* a, const float* b, float* c, int ldc, int rows, int k_end) {
  for (int r = 0; r < rows; r += 4) {
    FloatV acc[4][kNarrow] = {};
    for (int k = 0; k < k_end; k += kLanes) {
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        FloatV av = load(a + static_cast<int64_t>(r + s) * k_end + k);
#pragma GCC unroll 4
        for (int o = 0; o < kNarrow; ++o) acc[s][o] = fma(av, load(b + o * k_end + k), acc[s][o]);
      }
    }
    FloatV sums = sums_of(acc);
    for (int s = 0; s < 4; ++s) memcpy(c + (r + s) * ldc, reinterpret_cast<float*>(&sums) + s * kNarrow, sizeof(float) * kNarrow);
  }
}
#else
constexpr int kNarrow = 0;
inline void product_narrow(const float*, const float*, float*, int, int, int) {}
#endif

}  // namespace fieldfit
