// Products of bfloat16 values with sums in float32: on tiles where the processor has AMX, else by AVX512-BF16. Both multiply
// pairs of values that lie side by side along the dimension that is summed over.
#pragma once
#include "mlp_tile.h"
#include "transpose.h"

namespace fieldfit {

#if defined(__AVX512BF16__)

using Half = uint16_t;  // the bits of a bfloat16
using Pair = uint32_t;  // two of them, the first one low

FF_LANE __m256i narrowed(FloatV x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x); }
FF_LANE FloatV widened(const Half* p) {
  __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (FloatV)_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16);
}
FF_LANE void store_half(Half* p, FloatV x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrowed(x)); }
FF_LANE __m512bh load_pairs(const void* p) { return (__m512bh)_mm512_loadu_si512(p); }

inline void narrow_rows(const float* from, int64_t n, Half* to) {
  for (int64_t i = 0; i < n; i += kLanes) store_half(to + i, load(from + i));
}

// Pairs of rows: to[i, j] = (from[2 i, j], from[2 i + 1, j]); `width` is a multiple of kLanes, `n` even.
inline void pair_rows(const Half* from, int n, int width, Pair* to) {
  for (int i = 0; i < n; i += 2) {
    const Half* a = from + static_cast<int64_t>(i) * width;
    for (int j = 0; j < width; j += kLanes) {
      __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + j)));
      __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + width + j)));
      _mm512_storeu_si512(to + static_cast<int64_t>(i / 2) * width + j, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}

// c[rows, columns] from pairs a(r, k) at a[r * ar + k * ak] and pairs b, row-major; k counts pairs.
struct PairProduct {
  const Pair* a;
  int64_t ar, ak;
  const Pair* b;
  int ldb;
  void* c;  // float32 with End::kStore, else bfloat16
  int ldc;
  int k_end;
  const float* row = nullptr;
  const Half* gate = nullptr;
};

#if defined(__AMX_BF16__)

constexpr int kPairRows = 32;  // rows that products take at a time
constexpr int kPairDepth = 16;  // and pairs

// The tile registers, each of 16 rows of 64 bytes: 0 to 3 for sums, 4 and 5 for a, 6 and 7 for b.
struct TileConfiguration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Configures the tiles of its thread while one of these lives there.
class Tiles {
 public:
  Tiles() {
    TileConfiguration configuration;
    if (living()++ == 0) _tile_loadconfig(&configuration);
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
  ~Tiles() {
    if (--living() == 0) _tile_release();
  }

 private:
  static int& living() {
    thread_local int count = 0;
    return count;
  }
};

// Sums of 32 rows and one or two columns of tiles, from a [32, k] row-major and b [k, columns].
template <bool Two>
FF_LANE void multiply_tiles(const Pair* a, int64_t lda, const Pair* b, int64_t ldb, int k_end) {
  for (int k = 0; k < k_end; k += kPairDepth) {
    _tile_loadd(4, a + k, lda * 4);
    _tile_loadd(6, b + k * ldb, ldb * 4);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + 16 * lda + k, lda * 4);
    _tile_dpbf16ps(2, 5, 6);
    if (Two) {
      _tile_loadd(7, b + k * ldb + 16, ldb * 4);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
}

template <bool Two>
FF_LANE void store_tiles(float* c, int64_t ldc) {
  _tile_stored(0, c, ldc * 4);
  _tile_stored(2, c + 16 * ldc, ldc * 4);
  if (Two) {
    _tile_stored(1, c + 16, ldc * 4);
    _tile_stored(3, c + 16 * ldc + 16, ldc * 4);
  }
}

template <bool Two, Start S, End E>
FF_LANE void tile_block(const PairProduct& p, int64_t r0, int64_t j, int k_end) {
  constexpr int kColumns = Two ? 32 : 16;
  _tile_zero(0);
  _tile_zero(2);
  if (Two) {
    _tile_zero(1);
    _tile_zero(3);
  }
  multiply_tiles<Two>(p.a + r0 * p.ar, p.ar, p.b + j, p.ldb, k_end);
  float* wide = static_cast<float*>(p.c) + r0 * p.ldc + j;
  if (E == End::kStore && S == Start::kZero) return store_tiles<Two>(wide, p.ldc);
  alignas(64) float sums[32 * kColumns];
  store_tiles<Two>(sums, kColumns);
  for (int r = 0; r < 32; ++r) {
    for (int v = 0; v < kColumns; v += kLanes) {
      FloatV x = load(sums + r * kColumns + v);
      int64_t at = (r0 + r) * p.ldc + j + v;
      if (S == Start::kRow) x = x + load(p.row + j + v);
      if (E == End::kStore) store(static_cast<float*>(p.c) + at, x);
      if (E == End::kRectify) store_half(static_cast<Half*>(p.c) + at, maximum(x, FloatV{}));
      if (E == End::kMask) store_half(static_cast<Half*>(p.c) + at, select(widened(p.gate + at) > FloatV{}, x, FloatV{}));
    }
  }
}

// `rows` is a multiple of 32, `columns` of 16; a and b have zeros up to a multiple of 16 pairs.
template <Start S, End E>
inline void pair_product(const PairProduct& p, int rows, int columns) {
  int k_end = (p.k_end + kPairDepth - 1) / kPairDepth * kPairDepth, j = 0;
  for (; j + 32 <= columns; j += 32) {
    for (int r = 0; r < rows; r += 32) tile_block<true, S, E>(p, r, j, k_end);
  }
  for (; j < columns; j += 16) {
    for (int r = 0; r < rows; r += 32) tile_block<false, S, E>(p, r, j, k_end);
  }
}

// to[16 columns, 16 rows] from [16 rows, 16 columns].
FF_LANE void transpose_16(const Pair* from, int64_t stride, Pair* to, int64_t to_stride) {
  __m512i r[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(from + i * stride);
  transpose(r);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * to_stride, r[i]);
}

template <bool Two>
FF_LANE void add_tiles(const Pair* a, int64_t lda, const Pair* b, int64_t ldb, int k_end, float* c, int64_t ldc, int tall) {
  _tile_loadd(0, c, ldc * 4);
  if (Two) _tile_loadd(1, c + 16, ldc * 4);
  if (tall) {
    _tile_loadd(2, c + 16 * ldc, ldc * 4);
    if (Two) _tile_loadd(3, c + 16 * ldc + 16, ldc * 4);
  }
  for (int k = 0; k < k_end; k += kPairDepth) {
    _tile_loadd(4, a + k, lda * 4);
    _tile_loadd(6, b + k * ldb, ldb * 4);
    _tile_dpbf16ps(0, 4, 6);
    if (Two) {
      _tile_loadd(7, b + k * ldb + 16, ldb * 4);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (tall) {
      _tile_loadd(5, a + 16 * lda + k, lda * 4);
      _tile_dpbf16ps(2, 5, 6);
      if (Two) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, ldc * 4);
  if (Two) _tile_stored(1, c + 16, ldc * 4);
  if (tall) {
    _tile_stored(2, c + 16 * ldc, ldc * 4);
    if (Two) _tile_stored(3, c + 16 * ldc + 16, ldc * 4);
  }
}

// c[rows, columns] += a^T b over pairs of rows: a [k_end, lda] and b [k_end, columns], row-major; c has rows up to lda, a
// multiple of 16, as `columns` is; `scratch` has room for a.
inline void pair_product_add(const Pair* a, int lda, const Pair* b, int columns, float* c, int k_end, int rows, Pair* scratch) {
  for (int k = 0; k < k_end; k += 16) {
    for (int r = 0; r < rows; r += 16) transpose_16(a + static_cast<int64_t>(k) * lda + r, lda, scratch + static_cast<int64_t>(r) * k_end + k, k_end);
  }
  for (int r = 0; r < rows; r += 32) {
    const Pair* of = scratch + static_cast<int64_t>(r) * k_end;
    float* to = c + static_cast<int64_t>(r) * columns;
    int j = 0, tall = r + 16 < rows;
    for (; j + 32 <= columns; j += 32) add_tiles<true>(of, k_end, b + j, columns, k_end, to + j, columns, tall);
    if (j < columns) add_tiles<false>(of, k_end, b + j, columns, k_end, to + j, columns, tall);
  }
}

#else

constexpr int kPairRows = 12;
constexpr int kPairDepth = 1;

struct Tiles {};

template <int R, int V, Start S, End E>
FF_LANE void pair_block(const PairProduct& p, int64_t r0, int64_t j) {
  const Pair* a = p.a + r0 * p.ar;
  const Pair* b = p.b + j;
  float* wide = static_cast<float*>(p.c) + r0 * p.ldc + j;
  Half* half = static_cast<Half*>(p.c) + r0 * p.ldc + j;
  __m512 acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      acc[r][v] = S == Start::kAdd   ? _mm512_loadu_ps(wide + r * p.ldc + v * kLanes)
                  : S == Start::kRow ? _mm512_loadu_ps(p.row + j + v * kLanes)
                                     : _mm512_setzero_ps();
    }
  }
  for (int k = 0; k < p.k_end; ++k) {
    __m512bh bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load_pairs(b + static_cast<int64_t>(k) * p.ldb + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      __m512bh av = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r * p.ar + k * p.ak]));
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], av, bv[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      FloatV x = (FloatV)acc[r][v];
      if (E == End::kStore) store(wide + r * p.ldc + v * kLanes, x);
      if (E == End::kRectify) store_half(half + r * p.ldc + v * kLanes, maximum(x, FloatV{}));
      if (E == End::kMask) {
        FloatV gate = widened(p.gate + (r0 + r) * p.ldc + j + v * kLanes);
        store_half(half + r * p.ldc + v * kLanes, select(gate > FloatV{}, x, FloatV{}));
      }
    }
  }
}

template <int R, int V, Start S, End E>
inline int pair_columns(const PairProduct& p, int rows, int columns, int j) {
  for (; j + V * kLanes <= columns; j += V * kLanes) {
    for (int r = 0; r < rows; r += R) pair_block<R, V, S, E>(p, r, j);
  }
  return j;
}

template <Start S, End E>
inline void pair_product(const PairProduct& p, int rows, int columns) {
  int j = pair_columns<kRows, kVectors, S, E>(p, rows, columns, 0);
  j = pair_columns<12, 2, S, E>(p, rows, columns, j);
  pair_columns<12, 1, S, E>(p, rows, columns, j);
}

// c[rows, columns] += a^T b over pairs of rows: a [k_end, rows] and b [k_end, columns], row-major; `rows` is a multiple of 4.
inline void pair_product_add(const Pair* a, int lda, const Pair* b, int columns, float* c, int k_end, int rows, Pair*) {
  PairProduct p{a, 1, lda, b, columns, c, columns, k_end};

  int j = pair_columns<4, kVectors, Start::kAdd, End::kStore>(p, rows, columns, 0);
  if (rows % 8 == 0) {
    j = pair_columns<8, 2, Start::kAdd, End::kStore>(p, rows, columns, j);
    pair_columns<8, 1, Start::kAdd, End::kStore>(p, rows, columns, j);
  } else {
    pair_columns<4, 1, Start::kAdd, End::kStore>(p, rows, columns, j);
  }
}

#endif

// As product_narrow; k_end is a multiple of 32.
inline void pair_product_narrow(const Half* a, const Half* b, float* c, int ldc, int rows, int k_end) {
  for (int r = 0; r < rows; r += 4) {
    FloatV acc[4][kNarrow] = {};
    for (int k = 0; k < k_end; k += 2 * kLanes) {
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        __m512bh av = load_pairs(a + static_cast<int64_t>(r + s) * k_end + k);
#pragma GCC unroll 4
        for (int o = 0; o < kNarrow; ++o) acc[s][o] = (FloatV)_mm512_dpbf16_ps((__m512)acc[s][o], av, load_pairs(b + o * k_end + k));
      }
    }
    FloatV sums = sums_of(acc);
    for (int s = 0; s < 4; ++s) memcpy(c + (r + s) * ldc, reinterpret_cast<float*>(&sums) + s * kNarrow, sizeof(float) * kNarrow);
  }
}

#endif

}  // namespace fieldfit
