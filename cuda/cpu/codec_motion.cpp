// Prediction by displaced blocks, the search for displacements, and how they are written.
#include "codec_motion.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "threads.h"

namespace fieldfit {
namespace {

// Cubic interpolation at quarters, in 64ths.
constexpr int32_t kCubic[4][4] = {{0, 64, 0, 0}, {-4, 54, 16, -2}, {-4, 36, 36, -4}, {-2, 16, 54, -4}};
constexpr int kFirstStep = 64;  // of a search, in quarters
constexpr int kPasses = 3;      // of it: prices follow what was found

struct Block {
  int y, x, height, width;
};

Block block_at(int height, int width, int row, int column) {
  int y = row * kBlock, x = column * kBlock;
  return {y, x, std::min(kBlock, height - y), std::min(kBlock, width - x)};
}

int limited(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }

// A displaced block of a plane: to [kBlock, kBlock].
void displaced(const int32_t* plane, int height, int width, const Block& b, const int32_t* motion, int32_t* to) {
  int y0 = b.y + (motion[0] >> 2), x0 = b.x + (motion[1] >> 2), fy = motion[0] & 3, fx = motion[1] & 3;
  int32_t rows[kBlock + 3][kBlock], padded[kBlock + 3];
  bool inside = x0 >= 1 && x0 + kBlock + 2 <= width;
  for (int r = fy ? 0 : 1; r < b.height + (fy ? 3 : 1); ++r) {
    const int32_t* row = plane + static_cast<int64_t>(limited(y0 + r - 1, 0, height - 1)) * width;
    const int32_t* source = row + x0 - 1;
    if (!inside) {
      for (int k = 0; k < kBlock + 3; ++k) padded[k] = row[limited(x0 + k - 1, 0, width - 1)];
      source = padded;
    }
    if (fx == 0) {
      memcpy(rows[r], source + 1, sizeof(rows[r]));
    } else {
      const int32_t* w = kCubic[fx];
      for (int k = 0; k < kBlock; ++k) {
        rows[r][k] = (w[0] * source[k] + w[1] * source[k + 1] + w[2] * source[k + 2] + w[3] * source[k + 3] + 32) >> 6;
      }
    }
  }
  const int32_t* w = kCubic[fy];
  for (int r = 0; r < b.height; ++r) {
    for (int k = 0; k < kBlock; ++k) {
      int32_t v = fy == 0 ? rows[r + 1][k] : (w[0] * rows[r][k] + w[1] * rows[r + 1][k] + w[2] * rows[r + 2][k] + w[3] * rows[r + 3][k] + 32) >> 6;
      to[r * kBlock + k] = limited(v, 0, 16 << kValueBits);
    }
  }
}

void mean(const int32_t* a, const int32_t* b, int32_t* to) {
  for (int k = 0; k < kBlock * kBlock; ++k) to[k] = (a[k] + b[k] + 1) >> 1;
}

int median(int a, int b, int c) { return std::max(std::min(a, b), std::min(std::max(a, b), c)); }

struct Expected {
  int32_t motion[2];
  int kind;  // by what the neighbours differ
};

// Displacement from a frame, by those of the blocks to the left, above, and above to the right; zero where there is none.
Expected expected(const int32_t* motion, int columns, int row, int column, int frame) {
  static const int32_t none[kMotion] = {};
  const int32_t* at = motion + kMotion * (static_cast<int64_t>(row) * columns + column);
  const int32_t* left = column > 0 ? at - kMotion : none;
  const int32_t* above = row > 0 ? at - kMotion * columns : none;
  const int32_t* right = row > 0 && column + 1 < columns ? above + kMotion : none;
  Expected e{};
  int differ = 0;
  for (int i = 0; i < 2; ++i) {
    int k = 1 + 2 * frame + i;
    e.motion[i] = median(left[k], above[k], right[k]);
    differ += std::abs(left[k] - above[k]) + std::abs(above[k] - right[k]);
  }
  e.kind = differ == 0 ? 0 : differ <= 4 ? 1 : differ <= 16 ? 2 : 3;
  return e;
}

// The sources of the blocks to the left and above, as one number.
int neighbours(const int32_t* motion, int columns, int row, int column) {
  const int32_t* at = motion + kMotion * (static_cast<int64_t>(row) * columns + column);
  int left = column > 0 ? at[-kMotion] : kSources, above = row > 0 ? at[-kMotion * columns] : kSources;
  return left * (kSources + 1) + above;
}

constexpr int kKinds = 4, kLengths = 12;

struct Models {
  AdaptiveBit both[16], second[16], same[2][kKinds], zero[2], length[2][kLengths];
};

// Goes through all numbers of all blocks as decisions: code(model, bit) and plain(bits, number of bits).
template <class Code, class Plain>
bool walk_motion(int rows, int columns, int references, int32_t* motion, Code code, Plain plain) {
  Models models;
  auto magnitude = [&](int i, int value) {  // from 1 on, as Elias's gamma code
    int length = 0, all = value;
    for (; all >> (length + 1); ++length) {}
    int k = 0;
    for (; k < kLengths - 1; ++k) {
      if (!code(models.length[i][k], k < length)) break;
    }
    return (1 << k) | plain(all & ((1 << k) - 1), k);
  };
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      int32_t* at = motion + kMotion * (static_cast<int64_t>(row) * columns + column);
      if (references == 2) {
        int n = neighbours(motion, columns, row, column);
        int both = code(models.both[n], at[0] == kBoth);
        at[0] = both ? kBoth : code(models.second[n], at[0] == kSecond) ? kSecond : kFirst;
      } else {
        at[0] = kFirst;
      }
      for (int f = 0; f < 2; ++f) {
        int32_t* d = at + 1 + 2 * f;
        Expected e = expected(motion, columns, row, column, f);
        if (at[0] == 1 - f || f >= references) {
          std::copy_n(e.motion, 2, d);
          continue;
        }
        int away[2] = {d[0] - e.motion[0], d[1] - e.motion[1]};
        if (code(models.same[f][e.kind], away[0] == 0 && away[1] == 0)) {
          away[0] = away[1] = 0;
        } else {
          int zero = code(models.zero[0], away[0] == 0);
          for (int i = zero; i < 2; ++i) {
            if (i == 1 && !zero && code(models.zero[1], away[1] == 0)) {
              away[1] = 0;
              break;
            }
            int sign = plain(away[i] < 0, 1), size = magnitude(i, std::abs(away[i]));
            away[i] = sign ? -size : size;
          }
          if (zero) away[0] = 0;
        }
        for (int i = 0; i < 2; ++i) {
          d[i] = e.motion[i] + away[i];
          if (std::abs(d[i]) > kMostMotion) return false;
        }
      }
    }
  }
  return true;
}

// Of search: about what writing costs, by how often a displacement was as expected, of each frame and kind.
struct Prices {
  float same[2][kKinds], other[2][kKinds];

  Prices() {
    for (int f = 0; f < 2; ++f) {
      for (int k = 0; k < kKinds; ++k) set(f, k, 8.0f - static_cast<float>(k), 1.0f + static_cast<float>(k));
    }
  }
  void set(int f, int k, float yes, float no) {
    same[f][k] = log2f((yes + no) / yes);
    other[f][k] = log2f((yes + no) / no) + 2.0f;
  }
  float of(const int32_t* motion, const Expected& e, int f) const {
    int y = std::abs(motion[0] - e.motion[0]), x = std::abs(motion[1] - e.motion[1]);
    if (y + x == 0) return same[f][e.kind];
    return other[f][e.kind] + 1.6f * (log2f(1.0f + static_cast<float>(y)) + log2f(1.0f + static_cast<float>(x)));
  }
};

// Prices of what was found.
Prices prices_of(int rows, int columns, int references, const int32_t* motion) {
  float counts[2][kKinds][2];
  std::fill_n(&counts[0][0][0], 2 * kKinds * 2, 0.5f);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      const int32_t* at = motion + kMotion * (static_cast<int64_t>(row) * columns + column);
      for (int f = 0; f < references; ++f) {
        if (at[0] == 1 - f) continue;
        Expected e = expected(motion, columns, row, column, f);
        const int32_t* d = at + 1 + 2 * f;
        counts[f][e.kind][d[0] != e.motion[0] || d[1] != e.motion[1]] += 1.0f;
      }
    }
  }
  Prices prices;
  for (int f = 0; f < 2; ++f) {
    for (int k = 0; k < kKinds; ++k) prices.set(f, k, counts[f][k][0], counts[f][k][1]);
  }
  return prices;
}

std::vector<int32_t> brightness(const int32_t* frame, int channels, int64_t n) {
  std::vector<int32_t> to(frame, frame + n);
  if (channels >= 3) {
    for (int64_t i = 0; i < n; ++i) to[i] = (frame[i] + 2 * frame[n + i] + frame[2 * n + i] + 2) >> 2;
  }
  return to;
}

// The displacement of one block from one frame, and what that frame then gives.
struct Found {
  int32_t motion[2], block[kBlock * kBlock];
  float cost, bits;
};

// One pass over all blocks.
void search_once(const References& from, const int32_t* wanted, float weight, const Prices& prices, int32_t* motion) {
  int rows = from.block_rows(), columns = from.block_columns();
  int64_t plane = static_cast<int64_t>(from.height) * from.width;
  std::vector<int32_t> frames[2], target = brightness(wanted, from.channels, plane);
  for (int f = 0; f < from.count(); ++f) frames[f] = brightness(from.frames[f], from.channels, plane);
  std::vector<int32_t> guesses(motion, motion + kMotion * static_cast<int64_t>(rows) * columns);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      Block b = block_at(from.height, from.width, row, column);
      int64_t index = kMotion * (static_cast<int64_t>(row) * columns + column);
      int32_t* at = motion + index;
      auto difference = [&](const int32_t* block) {
        int32_t sum = 0;
        for (int r = 0; r < b.height; ++r) {
          const int32_t* row_of = target.data() + static_cast<int64_t>(b.y + r) * from.width + b.x;
          for (int k = 0; k < b.width; ++k) sum += std::abs(block[r * kBlock + k] - row_of[k]);
        }
        return static_cast<float>(sum);
      };
      Found found[2];
      for (int f = 0; f < from.count(); ++f) {
        Found& best = found[f];
        Expected e = expected(motion, columns, row, column, f);
        best.cost = INFINITY;
        auto attempt = [&](int dy, int dx) {
          if (std::abs(dy) > kMostMotion || std::abs(dx) > kMostMotion) return false;
          int32_t tried[2] = {dy, dx}, block[kBlock * kBlock];
          float bits = prices.of(tried, e, f);
          if (weight * bits >= best.cost) return false;
          displaced(frames[f].data(), from.height, from.width, b, tried, block);
          float cost = weight * bits + difference(block);
          if (cost >= best.cost) return false;
          best.cost = cost;
          best.bits = bits;
          std::copy_n(tried, 2, best.motion);
          std::copy_n(block, kBlock * kBlock, best.block);
          return true;
        };
        int k = 1 + 2 * f;
        attempt(e.motion[0], e.motion[1]);
        attempt(0, 0);
        attempt(guesses[index + k], guesses[index + k + 1]);
        if (column > 0) attempt(at[k - kMotion], at[k + 1 - kMotion]);
        if (row > 0) attempt(at[k - kMotion * columns], at[k + 1 - kMotion * columns]);
        for (int step = kFirstStep; step >= 1; step /= 2) {
          for (bool moved = true; moved;) {
            int y = best.motion[0], x = best.motion[1];
            moved = false;
            for (auto [dy, dx] : {std::pair{-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-1, -1}, {-1, 1}, {1, -1}, {1, 1}}) {
              moved |= attempt(y + step * dy, x + step * dx);
            }
            if (step > 4) break;
          }
        }
      }
      at[0] = kFirst;
      if (from.count() == 2) {
        int left = column > 0 ? at[-kMotion] : kBoth, above = row > 0 ? at[-kMotion * columns] : kBoth;
        auto with_source = [&](int source, float cost) { return cost + weight * (source == left || source == above ? 0.6f : 2.5f); };
        int32_t both[kBlock * kBlock];
        mean(found[0].block, found[1].block, both);
        float costs[kSources] = {found[0].cost, found[1].cost, difference(both) + weight * (found[0].bits + found[1].bits)};
        for (int s = kSecond; s < kSources; ++s) {
          if (with_source(s, costs[s]) < with_source(at[0], costs[at[0]])) at[0] = s;
        }
      }
      for (int f = 0; f < 2; ++f) {
        bool used = f < from.count() && at[0] != 1 - f;
        std::copy_n(used ? found[f].motion : expected(motion, columns, row, column, f).motion, 2, at + 1 + 2 * f);
      }
    }
  }
}

}  // namespace

void predict(const References& from, const int32_t* motion, int32_t* to) {
  int rows = from.block_rows(), columns = from.block_columns();
  int64_t plane = static_cast<int64_t>(from.height) * from.width;
#pragma omp parallel for schedule(static) num_threads(threads_for(plane, 8192))
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      Block b = block_at(from.height, from.width, row, column);
      const int32_t* at = motion + kMotion * (static_cast<int64_t>(row) * columns + column);
      for (int c = 0; c < from.channels; ++c) {
        int32_t made[2][kBlock * kBlock];
        for (int f = 0; f < from.count(); ++f) {
          if (at[0] != 1 - f) displaced(from.frames[f] + c * plane, from.height, from.width, b, at + 1 + 2 * f, made[f]);
        }
        if (at[0] == kBoth) mean(made[0], made[1], made[0]);
        const int32_t* block = made[at[0] == kSecond];
        for (int r = 0; r < b.height; ++r) std::copy_n(block + r * kBlock, b.width, to + c * plane + static_cast<int64_t>(b.y + r) * from.width + b.x);
      }
    }
  }
}

void search_motion(const References& from, const int32_t* wanted, float weight, int32_t* motion) {
  Prices prices;
  for (int pass = 0; pass < kPasses; ++pass) {
    search_once(from, wanted, weight, prices, motion);
    prices = prices_of(from.block_rows(), from.block_columns(), from.count(), motion);
  }
}

std::vector<uint8_t> write_motion(int rows, int columns, int references, const int32_t* motion) {
  RangeEncoder to;
  std::vector<int32_t> copy(motion, motion + kMotion * static_cast<int64_t>(rows) * columns);
  walk_motion(
      rows, columns, references, copy.data(),
      [&](AdaptiveBit& model, bool bit) {
        to.put(model.interval(bit));
        model.see(bit);
        return bit;
      },
      [&](int value, int bits) {
        for (int k = bits; k-- > 0;) to.put({(value >> k & 1) ? kWhole / 2 : 0, kWhole / 2});
        return value;
      });
  return to.finish();
}

bool read_motion(int rows, int columns, int references, const uint8_t* data, size_t size, int32_t* motion) {
  RangeDecoder from(data, size);
  bool valid = walk_motion(
      rows, columns, references, motion,
      [&](AdaptiveBit& model, bool) {
        bool bit = model.find(from.peek());
        from.take(model.interval(bit));
        model.see(bit);
        return bit;
      },
      [&](int, int bits) {
        int value = 0;
        for (int k = 0; k < bits; ++k) {
          bool bit = from.peek() >= kWhole / 2;
          from.take({bit ? kWhole / 2 : 0, kWhole / 2});
          value = value << 1 | bit;
        }
        return value;
      });
  return valid && from.at_end();
}

}  // namespace fieldfit
