// A modulated perceptron on a tile of samples that stays in the cache.
#pragma once
#include "cam.h"
#include "mlp_tile.h"
#include "panels.h"

namespace fieldfit {

constexpr int kTogether = 4;  // rows whose sums are found side by side, so that none waits for its own

// Weights and grids in the orders that the passes read, shared by threads.
class PackedCam {
 public:
  explicit PackedCam(const Cam& c);

  int layers() const { return cam.mlp.layers; }
  int dim(int l) const { return cam.mlp.dims[l]; }
  int stride(int l) const { return row_stride(dim(l)); }  // of the rows that go into layer l
  int64_t grid_size() const { return cam.entries() * 2 * grid_row; }
  bool keeps_outputs() const { return cam.mlp.output_activation != kIdentity; }
  size_t layer_floats() const { return static_cast<size_t>(kTile) * (padded(cam.hidden()) + 1); }  // rows, then a root of each
  size_t kept_floats() const {
    return static_cast<size_t>(layers() - 1) * layer_floats() + (keeps_outputs() ? static_cast<size_t>(kTile) * stride(layers()) : 0);
  }

  const Cam cam;
  int grid_row;                   // values of a scale or a shift, padded
  const float* forward[kMaxLayers];   // panels of [in, out]
  const float* backward[kMaxLayers];  // panels of [out, in]
  const float* bias[kMaxLayers];      // [padded(out)]
  const float* grids[kMaxLayers];     // [entries, 2, grid_row]

 private:
  Aligned storage_{0};
};

// Gradients that one thread has added up.
struct CamSums {
  std::vector<float> storage;
  float* weights[kMaxLayers];  // [out, row_stride(in)], out rounded up to a multiple of 4
  float* bias[kMaxLayers];     // [padded(out)]
  float* grids[kMaxLayers];    // as PackedCam's
  explicit CamSums(const PackedCam& p);
};

// The vertices around a sample, their weights and the cotangents of these.
struct Corners {
  int32_t* index;
  float *weight, *d_weight;
};

// The scratch of one thread.
class CamTile {
 public:
  explicit CamTile(const PackedCam& packed);

  // Samples `at` [n, n_axes]; before both passes.
  void locate_all(const float* at, int n);
  // All layers on `input`; returns [n, stride(layers)]. What the backward pass needs goes to `kept`, or stays here if null.
  const float* run(int n, float* kept);
  // From cotangents in `d_out`, overwritten; returns those of the input [n, stride(0)] if asked to.
  const float* run_back(int n, float* kept, CamSums& to, bool input_gradient, bool at_gradient);
  // Cotangents of one sample's coordinates, after run_back.
  void at_vjp(int i, const float* at, float* d_at) const;

  float* input;  // [kTile, stride(0)] to fill
  float* d_out;  // [kTile, stride(layers)] to fill

 private:
  Corners corners(int i) { return {&index_[i * n_corners_], &weight_[i * n_corners_], &d_weight_[i * n_corners_]}; }
  float* normalised(float* kept, int l) const { return kept + l * p_.layer_floats(); }
  float* roots(float* kept, int l) const { return normalised(kept, l) + static_cast<size_t>(kTile) * padded(p_.cam.hidden()); }
  float* outputs(float* kept) const { return p_.keeps_outputs() ? normalised(kept, p_.layers() - 1) : values_; }
  template <bool Each>
  void fetch(int l, int i, int r);
  template <int R>
  void find_norms(const float* z, FloatV* mean, FloatV* root) const;
  template <int R, bool Each, int Kind>
  void forward_rows(int l, int i, float* kept);
  template <int R, bool Each, int Kind>
  void activate_rows(int l, int i, const float* y);
  template <int R, bool Each, int Kind>
  void rows_vjp(int l, int i, float* kept, float* d, float* d_grid, bool at_gradient);
  template <bool Each>
  void scatter(int l, Corners at, int r, float* d_grid, bool at_gradient);
  template <class Call>
  void for_rows(int n, Call call) const;

  const PackedCam& p_;
  Aligned scratch_{0};
  int n_corners_;
  std::vector<int32_t> index_;           // [kTile, n_corners_]
  std::vector<float> weight_, d_weight_;  // the same
  float *own_, *product_, *hidden_, *values_, *gradient_[2];
  float *scale_, *shift_;      // of samples at work together: a row each, or one value each where there is one for all channels
  float *d_scale_, *d_shift_;  // the same
  float last_lanes_[kLanes];   // one where the last vector of a row holds a channel, zero behind
};

}  // namespace fieldfit
