// How far off the coarse cells are that hold an occupied one, so that rays cross empty space in long steps.
#pragma once
#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels.h"

namespace fieldfit {

constexpr int kMostRoom = 8;  // coarse cells that are looked at around one

class CoarseOccupancy {
 public:
  MarchRule rule;  // with room

  explicit CoarseOccupancy(const MarchRule& fine) : rule(fine) {
    int n = (fine.resolution + kCoarse - 1) / kCoarse;
    std::vector<uint8_t> empty(static_cast<size_t>(n) * n * n, 1);
    if (fine.resolution % 32 == 0) {
      fold_rows(fine.occupancy, fine.resolution, empty.data());
    } else {
      fold_cells(fine.occupancy, fine.resolution, empty.data());
    }
    room_ = measured(std::move(empty), n);
    rule.room = room_->data();
  }

 private:
  using Cells = std::vector<uint8_t>;
  std::shared_ptr<const Cells> room_;

  // Where rows of cells are whole words: the words of all rows of a coarse row, one over another, then groups of kCoarse bits.
  void fold_rows(const uint32_t* fine, int r, uint8_t* out) {
    static_assert(kCoarse == 4, "fold() makes one bit of four");
    int n = r / kCoarse, words = r / 32;
    std::vector<uint32_t> row(words);
    for (int z = 0; z < n; ++z) {
      for (int y = 0; y < n; ++y) {
        std::fill(row.begin(), row.end(), 0);
        for (int i = 0; i < kCoarse * kCoarse; ++i) {
          const uint32_t* from = fine + (static_cast<size_t>(z * kCoarse + i / kCoarse) * r + y * kCoarse + i % kCoarse) * words;
          for (int w = 0; w < words; ++w) row[w] |= from[w];
        }
        for (uint32_t word : row) {
          uint8_t some = fold(word);  // of eight coarse cells
          for (int b = 0; b < 8; ++b) *out++ = !(some >> b & 1);
        }
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

  void fold_cells(const uint32_t* fine, int r, uint8_t* empty) {
    int n = (r + kCoarse - 1) / kCoarse;
    int64_t cells = static_cast<int64_t>(r) * r * r;
    for (int64_t first = 0; first < cells; first += 32) {
      for (uint32_t word = fine[first / 32]; word; word &= word - 1) {
        int64_t cell = first + __builtin_ctz(word);
        if (cell >= cells) return;
        int x = static_cast<int>(cell % r), y = static_cast<int>(cell / r % r), z = static_cast<int>(cell / r / r);
        empty[(static_cast<size_t>(z / kCoarse) * n + y / kCoarse) * n + x / kCoarse] = 0;
      }
    }
  }

  // Distances of the cells; they are kept, since many batches of rays march between two changes of the occupancy.
  static std::shared_ptr<const Cells> measured(Cells empty, int n) {
    struct Last {
      std::mutex mutex;
      Cells empty;
      std::shared_ptr<const Cells> room;
    };
    static Last* last = new Last;  // never destroyed: threads may outlive static objects
    std::lock_guard<std::mutex> lock(last->mutex);
    if (!last->room || last->empty != empty) {
      last->room = std::make_shared<const Cells>(measure(empty, n));
      last->empty = std::move(empty);
    }
    return last->room;
  }

  // What is near an occupied coarse cell grows by one to all sides, again and again; what has not been reached is farther off.
  static Cells measure(const Cells& empty, int n) {
    int64_t row = n, plane = row * n;
    Cells room = empty, near(empty.size()), grown(empty.size());
    std::transform(empty.begin(), empty.end(), near.begin(), [](uint8_t is_empty) { return !is_empty; });
    for (int d = 1; d < kMostRoom; ++d) {
      for (int64_t i = 0; i < plane; ++i) grow_row(near.data() + i * row, n, grown.data() + i * row);
      for (int64_t z = 0; z < n; ++z) grow(grown.data() + z * plane, n, row, n, near.data() + z * plane);
      grow(near.data(), plane, plane, n, grown.data());
      near.swap(grown);
      for (size_t i = 0; i < room.size(); ++i) room[i] += !near[i];
    }
    return room;
  }

  static void grow_row(const uint8_t* __restrict from, int n, uint8_t* __restrict to) {
    for (int i = 1; i + 1 < n; ++i) to[i] = from[i - 1] | from[i] | from[i + 1];
    to[0] = from[0] | from[n > 1];
    to[n - 1] = from[n - 1] | from[std::max(n - 2, 0)];
  }

  // Each of `count` lines of `length` values, `step` apart, joined with the lines before and behind it.
  static void grow(const uint8_t* from, int64_t length, int64_t step, int count, uint8_t* __restrict to) {
    for (int k = 0; k < count; ++k) {
      const uint8_t *here = from + k * step, *before = k > 0 ? here - step : here, *behind = k + 1 < count ? here + step : here;
      for (int64_t i = 0; i < length; ++i) to[k * step + i] = before[i] | here[i] | behind[i];
    }
  }
};

}  // namespace fieldfit
