// The CPU kernels' interface, compiled once per instruction set into a module of its own.
// All arrays are contiguous float32 in row-major order unless said otherwise. Work is split over OpenMP threads in a way
// that depends on the thread count alone, so results are deterministic for a given count.
#pragma once
#include <cstdint>
#include <vector>

#include "../adam.h"
#include "../grid.h"
#include "../march.h"

namespace fieldfit {

constexpr int kMaxLayers = 16;
constexpr int kTouchedEntries = 16;  // table entries that share a mark; levels start at multiples of it

// A perceptron: out = W_L ... act(W_1 [x, aux[index]] + b_1) ... + b_L.
struct Mlp {
  int layers;                // matrices, >= 1
  int dims[kMaxLayers + 1];  // input, hidden ..., output
  int activation;
  int output_activation;
  bool bias;
  const float* params;  // per layer: W [out, in], then b [out] if bias
};

struct MlpInput {
  int64_t n;
  const float* x;  // [n, x_dim]
  int x_dim;
  const float* aux;      // [rows, aux_dim] or null: appended to x, row index[i] to sample i
  const int32_t* index;  // [n], null where aux has one row per sample
  int aux_dim;
};

struct Grid {
  int dim;       // 2, 3 or 4
  int features;  // per level: 1, 2, 4 or 8
  int n_levels;
  const GridLevel* levels;
  const float* table;  // [entries, features], level after level
};

struct RayBatch {
  int64_t n;
  const float* origins;     // [n, 3], unit-cube coordinates
  const float* directions;  // [n, 3], unit length
  const float* jitter;      // [n] in [0, 1), or null for 0.5
};

struct SampleBuffer {
  std::vector<float> t0, t1, x;

  void clear() {
    t0.clear();
    t1.clear();
    x.clear();
  }
  void add(float from, float to, const float* point) {
    t0.push_back(from);
    t1.push_back(to);
    x.insert(x.end(), point, point + 3);
  }
  void append(const SampleBuffer& other) {
    t0.insert(t0.end(), other.t0.begin(), other.t0.end());
    t1.insert(t1.end(), other.t1.begin(), other.t1.end());
    x.insert(x.end(), other.x.begin(), other.x.end());
  }
};

// Packed samples of a batch of rays: those of ray i are offsets[i] .. offsets[i + 1].
struct Samples {
  std::vector<int64_t> offsets;
  SampleBuffer of;           // of.x [s, 3] in field coordinates
  std::vector<int32_t> ray;  // [s]

  // From counts in `offsets` (that of ray i at i + 1) and the samples in parts, in the order of rays.
  void collect(const std::vector<SampleBuffer>& parts) {
    for (size_t i = 1; i < offsets.size(); ++i) offsets[i] += offsets[i - 1];
    size_t total = static_cast<size_t>(offsets.back());
    of.t0.reserve(total);
    of.t1.reserve(total);
    of.x.reserve(total * 3);
    ray.reserve(total);
    for (const SampleBuffer& part : parts) of.append(part);
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      ray.insert(ray.end(), static_cast<size_t>(offsets[i + 1] - offsets[i]), static_cast<int32_t>(i));
    }
  }
};

struct CompositeInput {
  int64_t n_rays;
  const int64_t* offsets;  // [n_rays + 1]
  const float* sigma;      // [s]
  const float* rgb;        // [s, 3]
  const float* t0;         // [s]
  const float* t1;         // [s]
};

struct Rendering {
  float* rgb;      // [n, 3]
  float* opacity;  // [n]
  float* depth;    // [n]
};

// Grid, then a perceptron to a latent whose first value is log density, then one to rgb from the latent and the direction.
struct RadianceModel {
  Grid grid;
  Mlp density;
  Mlp color;
  int harmonics_degree;
};

void mlp_forward(const Mlp&, const MlpInput&, float* out);
void mlp_backward(const Mlp&, const MlpInput&, const float* d_out, float* d_x, float* d_params);
void grid_forward(const Grid&, int64_t n, const float* x, float* out);
void grid_forward_serial(const Grid&, int64_t n, const float* x, float* out);
// d_table is added to, d_x is written; either may be null. `touched`, if any, gets a one for each block of entries added to.
void grid_backward(const Grid&, int64_t n, const float* x, const float* d_out, float* d_table, uint8_t* touched, float* d_x);
void harmonics(int degree, int64_t n, const float* d, float* out);
void frequency(int dim, int n_frequencies, int64_t n, const float* x, float* out);
void frequency_backward(int dim, int n_frequencies, int64_t n, const float* x, const float* d_out, float* d_x);
Samples march(const RayBatch&, const MarchRule&, int max_samples);
// The same, up to where each ray has become opaque; sees the density of the field on the way.
Samples march_visible(const Grid&, const Mlp& density, const RayBatch&, const MarchRule&, float min_transmittance);
void composite_forward(const CompositeInput&, const Rendering&);
void composite_backward(const CompositeInput&, const Rendering& forward, const float* d_rgb, const float* d_opacity,
                        const float* d_depth, float* d_sigma, float* d_sample_rgb);
void adam(const AdamRule&, bool skip_zero, int64_t n, float* param, const float* grad, float* m, float* v);
// The same with `skip_zero` on blocks of kTouchedEntries entries whose mark is set; clears their gradients and marks.
void adam_touched(const AdamRule&, int features, int64_t n_blocks, uint8_t* touched, float* param, float* grad, float* m, float* v);
// Marches, evaluates and composites in one pass; returns the number of samples evaluated.
int64_t render(const RadianceModel&, const RayBatch&, const MarchRule&, float min_transmittance, const Rendering&);

}  // namespace fieldfit
