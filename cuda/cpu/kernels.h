// The CPU kernels' interface, compiled once per instruction set into a module of its own.
// All arrays are contiguous float32 in row-major order unless said otherwise. Work is split over OpenMP threads in a way
// that depends on the thread count alone, so results are deterministic for a given count.
#pragma once
#include <cstdint>
#include <vector>

#include "../adam.h"
#include "../grid.h"
#include "../march.h"
#include "stages.h"
#include "tape.h"

namespace fieldfit {

constexpr int kMaxLayers = 16;
#if defined(__AVX512BF16__)
constexpr bool kHasBFloat16 = true;
#else
constexpr bool kHasBFloat16 = false;
#endif
constexpr int kTouchedEntries = 16;  // table entries that share a mark; levels start at multiples of it

// A perceptron: out = W_L ... act(W_1 [x, aux[index]] + b_1) ... + b_L.
struct Mlp {
  int layers;                // matrices, >= 1
  int dims[kMaxLayers + 1];  // input, hidden ..., output
  int activation;
  int output_activation;
  bool bias;
  bool bfloat16;        // products of bfloat16 values, summed in float32, where the processor has them
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
  int dim;       // 1 to 4
  int features;  // per level: 1, 2, 4 or 8
  int n_levels;
  const GridLevel* levels;
  const float* table;  // [entries, features], level after level
};

struct GridPoints {
  const float* axis[4];  // the first point's coordinates
  int64_t stride;        // from one point to the next
};

struct GridCotangents {
  int64_t n;
  GridPoints x;
  const float* d_out;  // [n, levels * features]
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

struct CellVisits {
  int64_t n;
  const int64_t* cells;  // [n], some perhaps more than once
  const float* found;    // [n] densities
  float decay;           // of what a visited cell had, unless that is infinite, which says that it never was visited
};

struct RadianceGradients {
  float* table;      // added to
  uint8_t* touched;  // as in grid_backward
  float* density;    // written
  float* color;      // written
};

// What a block of rays has left for the backward pass: samples in the order in which they were found, those of a ray from near to far.
struct BlockTape {
  int64_t n = 0;
  std::vector<uint8_t> owner;  // [n] ray within the block
  std::vector<float> x[3], t0, t1, sigma;  // [n]
  std::vector<float> features;  // [n, levels * features]; the backward pass puts their cotangents in their place
  std::vector<float> latent;    // [n, latent]
  std::vector<float> rgb;       // [n, 3]
};

class RadianceTape {
 public:
  RadianceTape() = default;
  RadianceTape(const RadianceTape&) = delete;
  RadianceTape& operator=(const RadianceTape&) = delete;
  ~RadianceTape();
  void resize(size_t n_blocks);  // with memory that earlier tapes had, where there is some

  std::vector<BlockTape> blocks;
  int64_t n_rays = -1;  // -1 without contents
  int64_t n_samples = 0;
  StageSeconds forward, backward;
};

// With a tape, the forward pass leaves its activations for the backward pass, which computes them again without.
void mlp_forward(const Mlp&, const MlpInput&, float* out, Tape* tape);
void mlp_backward(const Mlp&, const MlpInput&, const Tape* tape, const float* d_out, float* d_x, float* d_params);
void grid_forward(const Grid&, int64_t n, const float* x, float* out);
void grid_forward_serial(const Grid&, int64_t n, const GridPoints& x, float* out);
// d_table is added to, d_x is written; either may be null. `touched`, if any, gets a one for each block of entries added to.
void grid_backward(const Grid&, int64_t n, const float* x, const float* d_out, float* d_table, uint8_t* touched, float* d_x);
// The table's part of it, for points in several places.
void grid_backward_table(const Grid&, const std::vector<GridCotangents>&, float* d_table, uint8_t* touched);
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
// Places of the bits that are set, in order.
std::vector<int64_t> set_bits(const uint32_t* words, int64_t n_words);
// Brings densities up to date; sets the bits of allowed cells that are above the threshold, or above the mean where that is less.
void visit_cells(const CellVisits&, float threshold, const uint32_t* allowed, int64_t n_cells, float* density, uint32_t* bits);
// Marches, evaluates and composites in one pass; returns the number of samples that rays are made of. With a tape, leaves
// there what the backward pass needs.
int64_t render(const RadianceModel&, const RayBatch&, const MarchRule&, float min_transmittance, const Rendering&, RadianceTape*);
void render_backward(const RadianceModel&, const RayBatch&, RadianceTape&, const Rendering& forward, const Rendering& cotangents,
                     const RadianceGradients&);

}  // namespace fieldfit
