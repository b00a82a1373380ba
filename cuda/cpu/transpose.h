// Rows of samples to columns and back.
#pragma once
#include <algorithm>
#include <cstdint>

#include "../lane.h"

namespace fieldfit {

#if defined(__AVX512F__)
// 16 x 16 values of 32 bits in registers.
FF_LANE void transpose(__m512i* r) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // r[4 g + i] has in its quarter q column 4 q + i of rows 4 g .. 4 g + 3
    __m512i low01 = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x44), high01 = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xee);
    __m512i low23 = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x44), high23 = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xee);
    r[i] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    r[4 + i] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    r[8 + i] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
}
#else
#if defined(__AVX2__)
// 8 x 8 of the values below; rows lie `from_step` and `to_step` apart.
FF_LANE void transpose_block(const float* from, int64_t from_step, float* to, int64_t to_step) {
  __m256 r[8], t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // halves of rows i and 4 + i, so that the rest stays within halves
    __m256 a = _mm256_loadu_ps(from + i * from_step), b = _mm256_loadu_ps(from + (4 + i) * from_step);
    r[i] = _mm256_permute2f128_ps(a, b, 0x20);
    r[4 + i] = _mm256_permute2f128_ps(a, b, 0x31);
  }
#pragma GCC unroll 2
  for (int h = 0; h < 8; h += 4) {
    t[h] = _mm256_unpacklo_ps(r[h], r[h + 2]);
    t[h + 1] = _mm256_unpackhi_ps(r[h], r[h + 2]);
    t[h + 2] = _mm256_unpacklo_ps(r[h + 1], r[h + 3]);
    t[h + 3] = _mm256_unpackhi_ps(r[h + 1], r[h + 3]);
    _mm256_storeu_ps(to + h * to_step, _mm256_unpacklo_ps(t[h], t[h + 2]));
    _mm256_storeu_ps(to + (h + 1) * to_step, _mm256_unpackhi_ps(t[h], t[h + 2]));
    _mm256_storeu_ps(to + (h + 2) * to_step, _mm256_unpacklo_ps(t[h + 1], t[h + 3]));
    _mm256_storeu_ps(to + (h + 3) * to_step, _mm256_unpackhi_ps(t[h + 1], t[h + 3]));
  }
}
#endif

// to[c, r] = from[r, c]; rows lie `from_step` and `to_step` apart.
inline void transpose(const float* from, int64_t from_step, int rows, int columns, float* to, int64_t to_step) {
#if defined(__AVX2__)
  if (rows >= 8 && columns >= 8) {
    for (int r = 0; r < rows; r += 8) {
      int64_t row = std::min(r, rows - 8);  // the last blocks of each way begin within those before
      for (int c = 0; c < columns; c += 8) {
        int64_t column = std::min(c, columns - 8);
        transpose_block(from + row * from_step + column, from_step, to + column * to_step + row, to_step);
      }
    }
    return;
  }
#endif
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) to[c * to_step + r] = from[r * from_step + c];
  }
}
#endif

// to[c, r] = from[r, c] for the first n of `points` rows of `width` values, and zeros behind; `points` is a multiple of kLanes.
inline void rows_to_columns(const float* from, int width, int n, float* to, int points) {
#if defined(__AVX512F__)
  for (int r = 0; r < points; r += 16) {
    for (int c = 0; c < width; c += 16) {
      int some = std::min(16, width - c);
      __mmask16 lanes = static_cast<__mmask16>((1u << some) - 1);
      __m512i v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        v[i] = r + i < n ? _mm512_maskz_loadu_epi32(lanes, from + static_cast<int64_t>(r + i) * width + c) : _mm512_setzero_si512();
      }
      transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (i < some) _mm512_storeu_si512(to + static_cast<int64_t>(c + i) * points + r, v[i]);
      }
    }
  }
#else
  transpose(from, width, n, width, to, points);
  if (n == points) return;
  for (int c = 0; c < width; ++c) std::fill(to + c * points + n, to + (c + 1) * points, 0.0f);
#endif
}

// The inverse, of the first n rows.
inline void columns_to_rows(const float* from, int points, int width, int n, float* to) {
#if defined(__AVX512F__)
  for (int r = 0; r < n; r += 16) {
    for (int c = 0; c < width; c += 16) {
      int some = std::min(16, width - c);
      __mmask16 lanes = static_cast<__mmask16>((1u << some) - 1);
      __m512i v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) v[i] = i < some ? _mm512_loadu_si512(from + static_cast<int64_t>(c + i) * points + r) : _mm512_setzero_si512();
      transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (r + i < n) _mm512_mask_storeu_epi32(to + static_cast<int64_t>(r + i) * width + c, lanes, v[i]);
      }
    }
  }
#else
  transpose(from, points, width, n, to, width);
#endif
}

}  // namespace fieldfit
