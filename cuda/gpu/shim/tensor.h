// The matrix operations of a warp as PTX defines them, by lanes that look at each other's words.
#pragma once
#include "shim.h"

namespace shim {

inline uint32_t pack_halves(float low, float high) {
  _Float16 h[2] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
  uint32_t word;
  memcpy(&word, h, 4);
  return word;
}

inline void unpack_halves(uint32_t word, float& low, float& high) {
  _Float16 h[2];
  memcpy(h, &word, 4);
  low = static_cast<float>(h[0]);
  high = static_cast<float>(h[1]);
}

inline float half_at(uint32_t word, unsigned which) {
  float h[2];
  unpack_halves(word, h[0], h[1]);
  return h[which];
}

// mma.m16n8k16, row-major left, column-major right: element (row, k) of the left operand is in lane 4 (row % 8) + k % 8
// / 2, word row / 8 + 2 (k / 8); element (k, column) of the right one in lane 4 column + k % 8 / 2, word k / 8.
inline void multiply_add(float* c, const uint32_t* a, uint2 b) {
  uint32_t mine[6] = {a[0], a[1], a[2], a[3], b.x, b.y};
  unsigned g = lane() / 4, t = lane() % 4;
  exchange(mine, 6, [&](auto of) {
    for (unsigned i = 0; i < 4; ++i) {
      unsigned row = g + 8 * (i / 2), column = 2 * t + i % 2;
      float sum = c[i];
      for (unsigned k = 0; k < 16; ++k) {
        unsigned pair = k % 8 / 2;
        float left = half_at(of(4 * (row % 8) + pair, static_cast<int>(row / 8 + 2 * (k / 8))), k % 2);
        float right = half_at(of(4 * column + pair, static_cast<int>(4 + k / 8)), k % 2);
        sum += left * right;
      }
      c[i] = sum;
    }
    return 0;
  });
}

inline uint32_t transpose_tile(uint32_t word) {
  unsigned g = lane() / 4, t = lane() % 4;
  return exchange(&word, 1, [&](auto of) {
    // (row g, columns 2t, 2t + 1) of the transpose: rows 2t, 2t + 1 at column g.
    return pack_halves(half_at(of(4 * (2 * t) + g / 2, 0), g % 2), half_at(of(4 * (2 * t + 1) + g / 2, 0), g % 2));
  });
}

}  // namespace shim
