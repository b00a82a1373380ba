// Prediction of a frame from one or two others by blocks that have moved, in integers.
#pragma once
#include <cstdint>
#include <vector>

#include "codec_integer.h"

namespace fieldfit {

constexpr int kBlock = 8;          // samples along an edge
constexpr int kMostMotion = 1023;  // quarters of a sample
constexpr int kMotion = 5;         // numbers of a block: which frame it comes from, and down and right from the one and the other
enum Source { kFirst, kSecond, kBoth, kSources };

// Frames as values between layers, [channels, height, width], of which the second may be missing.
struct References {
  int height, width, channels;
  const int32_t* frames[2];
  int count() const { return frames[1] ? 2 : 1; }
  int block_rows() const { return (height + kBlock - 1) / kBlock; }
  int block_columns() const { return (width + kBlock - 1) / kBlock; }
};

// What the blocks [rows, columns, kMotion] make of the frames: to [channels, height, width].
void predict(const References&, const int32_t* motion, int32_t* to);
// Blocks that make `wanted` [channels, height, width] of the frames: absolute differences of brightness plus `weight` times
// bits, about. `motion` has guesses, such as those of a frame nearby.
void search_motion(const References&, const int32_t* wanted, float weight, int32_t* motion);
// Range-coded, relative to the median of the neighbours before each block, with probabilities that follow what came before.
std::vector<uint8_t> write_motion(int rows, int columns, int references, const int32_t* motion);
// False where the data are not what an encoder writes.
bool read_motion(int rows, int columns, int references, const uint8_t* data, size_t size, int32_t* motion);

}  // namespace fieldfit
