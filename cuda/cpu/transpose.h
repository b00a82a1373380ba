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
  for (int r = 0; r < n; ++r) {
    for (int c = 0; c < width; ++c) to[c * points + r] = from[static_cast<int64_t>(r) * width + c];
  }
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
  for (int r = 0; r < n; ++r) {
    for (int c = 0; c < width; ++c) to[static_cast<int64_t>(r) * width + c] = from[c * points + r];
  }
#endif
}

}  // namespace fieldfit
