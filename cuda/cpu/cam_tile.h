// A modulated perceptron on a tile of samples that stays in the cache.
#pragma once
#include "cam.h"
#include "mlp_tile.h"
#include "panels.h"

namespace fieldfit {

// Weights and grids in the orders that the passes read, shared by threads.
class PackedCam {
 public:
  explicit PackedCam(const Cam& c);

  int layers() const { return cam.mlp.layers; }
  int dim(int l) const { return cam.mlp.dims[l]; }
  int stride(int l) const { return row_stride(dim(l)); }  // of the rows that go into layer l
  int64_t grid_size() const { return cam.entries() * 2 * grid_row; }
  size_t kept_floats() const {
    return static_cast<size_t>(kTile) * (static_cast<size_t>(layers() - 1) * (stride(1) + 1) + stride(layers()));
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

// The vertices around a sample, and their weights.
struct Corners {
  int32_t index[kMaxCorners];
  float weight[kMaxCorners];
  float d_weight[kMaxCorners];
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
  float* normalised(float* kept, int l) const { return kept + static_cast<size_t>(l) * kTile * (p_.stride(1) + 1); }
  float* roots(float* kept, int l) const { return normalised(kept, l) + static_cast<size_t>(kTile) * p_.stride(1); }
  float* outputs(float* kept) const { return normalised(kept, p_.layers() - 1); }
  void fetch(int l, const Corners& at);
  void normalise_row(float* y, float* root) const;
  void activate_row(const float* y, float* h) const;
  void row_vjp(int l, Corners& at, const float* y, float root, float* d, float* d_grid, bool at_gradient);

  const PackedCam& p_;
  Aligned scratch_{0};
  std::vector<Corners> corners_;
  int n_corners_;
  float *own_, *hidden_, *values_, *gradient_[2];
  float *scale_, *shift_;      // [padded(hidden)] of one sample, filled with one value where there is one for all
  float *d_scale_, *d_shift_;  // the same
  float last_lanes_[kLanes];   // one where the last vector of a row holds a channel, zero behind
};

}  // namespace fieldfit
