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
    for (int64_t first = 0; first < cells; first += 32) {
      uint32_t word = fine.occupancy[first / 32];
      while (word) {
        int64_t i = first + __builtin_ctz(word);
        if (i >= cells) break;
        int x = static_cast<int>(i % r), y = static_cast<int>(i / r % r), z = static_cast<int>(i / r / r);
        int within = std::min(std::min(kCoarse - x % kCoarse, r - x), static_cast<int>(first + 32 - i));
        size_t block = (static_cast<size_t>(z / kCoarse) * n + y / kCoarse) * n + x / kCoarse;
        bits[block / 32] |= 1u << (block % 32);
        int past = static_cast<int>(i - first) + within;  // the rest of the block's row says nothing new
        word = past < 32 ? word >> past << past : 0;
      }
    }
    rule.coarse = bits.data();
  }
};

}  // namespace fieldfit
