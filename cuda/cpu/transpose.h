// Rows of samples to columns and back.
#pragma once
#include <algorithm>
#include <cstdint>

#include "../lane.h"

namespace fieldfit {

#if defined(__AVX512F__)
// 16 x 16 values in registers.
inline void transpose(__m512* r) {
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + 2 + j]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {  // of r[4 i + j], quarter q holds column 4 q + j of rows 4 i ..
    __m512 even0 = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88), even1 = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
    __m512 odd0 = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xdd), odd1 = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xdd);
    t[j] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    t[8 + j] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    t[4 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    t[12 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
  std::copy_n(t, 16, r);
}
#endif

// to[c, r] = from[r, c] for the first n of `points` rows of `width` values, and zeros behind; `points` is a multiple of kLanes.
inline void rows_to_columns(const float* from, int width, int n, float* to, int points) {
#if defined(__AVX512F__)
  for (int r = 0; r < points; r += 16) {
    for (int c = 0; c < width; c += 16) {
      int some = std::min(16, width - c);
      __mmask16 lanes = static_cast<__mmask16>((1u << some) - 1);
      __m512 v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        v[i] = r + i < n ? _mm512_maskz_loadu_ps(lanes, from + static_cast<int64_t>(r + i) * width + c) : _mm512_setzero_ps();
      }
      transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (i < some) _mm512_storeu_ps(to + static_cast<int64_t>(c + i) * points + r, v[i]);
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
      __m512 v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) v[i] = i < some ? _mm512_loadu_ps(from + static_cast<int64_t>(c + i) * points + r) : _mm512_setzero_ps();
      transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (r + i < n) _mm512_mask_storeu_ps(to + static_cast<int64_t>(r + i) * width + c, lanes, v[i]);
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
