// Which coarse cells hold an occupied one, so that rays cross empty space in longer steps.
#pragma once
#include <vector>

#include "kernels.h"

namespace fieldfit {

struct CoarseOccupancy {
  std::vector<uint32_t> bits;
  MarchRule rule;  // with these bits

  explicit CoarseOccupancy(const MarchRule& fine) : rule(fine) {
    int r = fine.resolution, n = (r + kCoarse - 1) / kCoarse;
    bits.assign((static_cast<size_t>(n) * n * n + 31) / 32, 0);
    int64_t cells = static_cast<int64_t>(r) * r * r;
    int x0 = 0, y0 = 0, z0 = 0;  // of the word's first cell, counted along: divisions would take longer than all the rest
    for (int64_t first = 0; first < cells; first += 32) {
      uint32_t word = fine.occupancy[first / 32];
      while (word) {
        int k = __builtin_ctz(word);
        if (first + k >= cells) break;
        int x = x0 + k, y = y0, z = z0;
        wrap(r, x, y, z);
        int within = std::min(std::min(kCoarse - x % kCoarse, r - x), 32 - k);
        size_t block = (static_cast<size_t>(z / kCoarse) * n + y / kCoarse) * n + x / kCoarse;
        bits[block / 32] |= 1u << (block % 32);
        int past = k + within;  // the rest of the block's row says nothing new
        word = past < 32 ? word >> past << past : 0;
      }
      x0 += 32;
      wrap(r, x0, y0, z0);
    }
    rule.coarse = bits.data();
  }

 private:
  static void wrap(int r, int& x, int& y, int& z) {
    for (; x >= r; x -= r) {
      if (++y == r) {
        y = 0;
        ++z;
      }
    }
  }
};

}  // namespace fieldfit
