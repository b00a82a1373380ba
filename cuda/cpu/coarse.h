// Which coarse cells hold an occupied one, so that rays cross empty space in longer steps.
#pragma once
#include <algorithm>
#include <vector>

#include "kernels.h"

namespace fieldfit {

struct CoarseOccupancy {
  std::vector<uint32_t> bits;
  MarchRule rule;  // with these bits

  explicit CoarseOccupancy(const MarchRule& fine) : rule(fine) {
    int n = (fine.resolution + kCoarse - 1) / kCoarse;
    bits.assign((static_cast<size_t>(n) * n * n + 31) / 32, 0);
    if (fine.resolution % 32 == 0) {
      fold_rows(fine.occupancy, fine.resolution);
    } else {
      fold_cells(fine.occupancy, fine.resolution);
    }
    rule.coarse = bits.data();
  }

 private:
  // Where rows of cells are whole words: the words of all rows of a coarse row, one over another, then groups of kCoarse bits.
  void fold_rows(const uint32_t* fine, int r) {
    static_assert(kCoarse == 4, "fold() makes one bit of four");
    int n = r / kCoarse, words = r / 32;
    std::vector<uint32_t> row(words);
    uint8_t* out = reinterpret_cast<uint8_t*>(bits.data());  // eight coarse cells of each word
    for (int z = 0; z < n; ++z) {
      for (int y = 0; y < n; ++y) {
        std::fill(row.begin(), row.end(), 0);
        for (int i = 0; i < kCoarse * kCoarse; ++i) {
          const uint32_t* from = fine + (static_cast<size_t>(z * kCoarse + i / kCoarse) * r + y * kCoarse + i % kCoarse) * words;
          for (int w = 0; w < words; ++w) row[w] |= from[w];
        }
        for (uint32_t word : row) *out++ = fold(word);
      }
    }
  }

  static uint8_t fold(uint32_t word) {
    word |= word >> 1;
    word = (word | word >> 2) & 0x11111111;
    word = (word | word >> 3) & 0x03030303;
    word = (word | word >> 6) & 0x000f000f;
    return static_cast<uint8_t>(word | word >> 12);
  }

  void fold_cells(const uint32_t* fine, int r) {
    int n = (r + kCoarse - 1) / kCoarse;
    int64_t cells = static_cast<int64_t>(r) * r * r;
    for (int64_t first = 0; first < cells; first += 32) {
      for (uint32_t word = fine[first / 32]; word; word &= word - 1) {
        int64_t cell = first + __builtin_ctz(word);
        if (cell >= cells) return;
        int x = static_cast<int>(cell % r), y = static_cast<int>(cell / r % r), z = static_cast<int>(cell / r / r);
        size_t block = (static_cast<size_t>(z / kCoarse) * n + y / kCoarse) * n + x / kCoarse;
        bits[block / 32] |= 1u << (block % 32);
      }
    }
  }
};

}  // namespace fieldfit
