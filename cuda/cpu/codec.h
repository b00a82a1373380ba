// The image codec's model on a CPU: a pyramid of latents, the context network that says how likely each is, and the
// synthesis network that makes pixels of them.
//
// Level i of the pyramid has ceil(height / 2^i) rows. Values of a row lie side by side, and vectors run along rows.
#pragma once
#include <cstdint>
#include <vector>

#include "mlp_tile.h"

namespace fieldfit {

constexpr int kLevels = 7;
constexpr int kCausal = 16;               // neighbours of the same level that come before a value
constexpr int kContext = kCausal + 4;     // and the values of the coarser level around it
constexpr int kContextHidden = 16;
constexpr int kTaps = 4;                  // of the filter that doubles a level's size
constexpr int kMaxChannels = 4;
constexpr int kStrip = 256;               // values of a row that networks work on at a time
constexpr float kLeastLogScale = -3.0f, kMostLogScale = 4.875f;

// Where the causal neighbours lie: rows above, then columns to the left.
struct Neighbour {
  int dy, dx;
};
constexpr Neighbour kNeighbours[kCausal] = {{0, -1},  {0, -2},  {0, -3},  {-1, -3}, {-1, -2}, {-1, -1}, {-1, 0}, {-1, 1},
                                            {-1, 2},  {-1, 3},  {-2, -2}, {-2, -1}, {-2, 0},  {-2, 1},  {-2, 2}, {-3, 0}};

// A plane with margins of its own, so that neighbours can be read everywhere; rows begin on a cache line.
struct Plane {
  static constexpr int kRowsAround = 4, kColumnsBefore = 16;
  int height = 0, width = 0, stride = 0;
  float* origin = nullptr;

  Plane() = default;
  Plane(int h, int w) : height(h), width(w), stride((w + 15) / 16 * 16 + 2 * kColumnsBefore) {}
  size_t size() const { return static_cast<size_t>(height + 2 * kRowsAround) * stride; }
  void place(float* at) { origin = at + kRowsAround * static_cast<size_t>(stride) + kColumnsBefore; }
  float* row(int y) const { return origin + static_cast<int64_t>(y) * stride; }
};

// Planes that share one piece of memory, which begins as zeros.
class Planes {
 public:
  void add(int height, int width) { planes_.emplace_back(height, width); }
  void allocate() {
    size_t total = 0;
    for (const Plane& p : planes_) total += p.size();
    bytes_ = total * sizeof(float);
    memory_ = Aligned(bytes_);
    float* at = reinterpret_cast<float*>(memory_.data());
    for (Plane& p : planes_) {
      p.place(at);
      at += p.size();
    }
  }
  void clear() { memset(memory_.data(), 0, bytes_); }
  const Plane& operator[](size_t i) const { return planes_[i]; }
  size_t count() const { return planes_.size(); }

 private:
  std::vector<Plane> planes_;
  Aligned memory_{0};
  size_t bytes_ = 0;
};

struct CodecShape {
  int height, width, channels, hidden;  // hidden: neurons of the synthesis network
  int known;  // planes that the synthesis sees beside the latents: 0, or a prediction of each channel, which it adds to

  int rows(int level) const { return (height + (1 << level) - 1) >> level; }
  int columns(int level) const { return (width + (1 << level) - 1) >> level; }
  int64_t latents() const {
    int64_t n = 0;
    for (int i = 0; i < kLevels; ++i) n += static_cast<int64_t>(rows(i)) * columns(i);
    return n;
  }
  // W1 [16, 20], b1 [levels, 16], W2 [16, 16], b2 [16], W3 [2, 16], b3 [2]
  static constexpr int context_size() {
    return kContextHidden * kContext + kLevels * kContextHidden + kContextHidden * kContextHidden + kContextHidden +
           2 * kContextHidden + 2;
  }
  int inputs() const { return kLevels + known; }
  // filters [levels - 1, 4], W1 [hidden, inputs], b1, W2 [channels, hidden], b2, then twice K [channels, channels, 3, 3], c [channels]
  int synthesis_size() const {
    return (kLevels - 1) * kTaps + hidden * (inputs() + 1) + channels * (hidden + 1) + 2 * channels * (9 * channels + 1);
  }
};

// What a fit needs at every step; keeps its memory from one call to the next.
class CodecModel {
 public:
  explicit CodecModel(const CodecShape& shape);

  // Bits of each level under the context network; adds `weight` times their gradients, which may be left out, both or that
  // by weights alone.
  void rate(const float* latents, const float* context, float weight, double* bits, float* d_latents, float* d_context);
  // Sum of squared differences between the synthesis and `target` [channels, height, width]; adds `weight` times its gradients.
  // `known` [known, height, width], if the shape has any.
  double distortion(const float* latents, const float* synthesis, const float* known, const float* target, float weight,
                    float* d_latents, float* d_synthesis);

  const CodecShape shape;

 private:
  void load(const float* latents);
  // Index in the pyramid of the level `source`'s latents at the size of `level`; what is known comes behind those of level 0.
  int at(int level, int source) const {
    return level * kLevels - level * (level - 1) / 2 + source - level + (level ? shape.known : 0);
  }
  void spread_parents();
  void collect_parents(int n_threads, float* d_latents);
  void upsample(const float* filters);
  void upsample_backward(const float* filters, float* d_filters);

  Planes latents_, parents_;
  std::vector<Planes> d_latents_, d_parents_;  // of each thread
  Planes pyramid_, d_pyramid_;  // of level i: the latents of level i, then those of all coarser ones, doubled until they are as large
  Planes first_, second_, third_, d_second_, d_third_;  // the image before, between and after the filters, and cotangents
};

// Calls with the number of channels as a constant.
template <class Do>
inline auto with_channels(int channels, Do run) {
  switch (channels) {
    case 1:
      return run(std::integral_constant<int, 1>{});
    case 2:
      return run(std::integral_constant<int, 2>{});
    case 3:
      return run(std::integral_constant<int, 3>{});
    default:
      return run(std::integral_constant<int, 4>{});
  }
}

// Latents with the noise of a fit, or rounded, and the derivative of what they became.
struct Perturbation {
  bool round;         // the value itself is rounded; `slope` is still that of soft rounding
  float temperature;  // of soft rounding; small is hard
  float shape;        // of Kumaraswamy's distribution of the noise; 1 is uniform
  uint32_t seed;
};
void perturb(const Perturbation&, int64_t n, const float* latents, float* out, float* slope);

}  // namespace fieldfit
