// A modulated perceptron on a tile of samples that stays in the cache.
#pragma once
#include "cam.h"
#include "mlp_tile.h"
#include "panels.h"

namespace fieldfit {

// Takes from each column its mean over the rows.
void centre(float* values, int rows, int columns);

// Weights and grids in the orders that the passes read, shared by threads. Where features are normalised, hidden layers' weights
// and biases are without their mean over the channels, so that products come out with a mean of zero; gradients of such weights
// are without their mean too, and nothing else in the backward pass has to know of it.
class PackedCam {
 public:
  explicit PackedCam(const Cam& c);

  int layers() const { return cam.mlp.layers; }
  int dim(int l) const { return cam.mlp.dims[l]; }
  int stride(int l) const { return row_stride(dim(l)); }  // of the rows that go into layer l
  int64_t grid_size() const { return cam.entries() * 2 * grid_row; }
  bool keeps_outputs() const { return cam.mlp.output_activation != kIdentity; }
  bool centred(int l) const { return cam.normalised && l + 1 < layers(); }
  size_t layer_floats() const { return static_cast<size_t>(kTile) * (padded(cam.hidden()) + 3); }  // products, then of each row what Layer names
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

// What the backward pass needs of a hidden layer: its products, and of each row what makes their variance one; where one scale
// and shift do for all channels, also that times the scale, and the shift.
struct Layer {
  float *z, *root, *gain, *shift;
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
  Layer layer(float* kept, int l) const {
    float* z = kept + l * p_.layer_floats();
    float* root = z + static_cast<size_t>(kTile) * padded(p_.cam.hidden());
    return {z, root, root + kTile, root + 2 * kTile};
  }
  float* outputs(float* kept) const { return p_.keeps_outputs() ? kept + static_cast<size_t>(p_.layers() - 1) * p_.layer_floats() : values_; }
  void find_roots(const Layer& of, int rows) const;
  void fetch(int l, const Layer& of, int rows) const;
  template <bool Each>
  struct Modulation;
  template <bool Each, int Kind>
  void activate_rows(int l, const Layer& of, int rows);
  template <bool Each, int Kind>
  void activate_rows_vjp(int l, const Layer& of, float* d, int n) const;
  void shared_vjp(int l, const Layer& of, float* d, float* d_grid, int n, bool at_gradient);
  void each_vjp(int l, const Layer& of, float* d, float* d_grid, int n, bool at_gradient);
  template <class Call>
  void of_kind(Call call) const;

  const PackedCam& p_;
  Aligned scratch_{0};
  int n_corners_;
  // The vertices around samples, their weights and the cotangents of these, [n_corners_, kTile].
  std::vector<int32_t> index_;
  std::vector<float> weight_, d_weight_;
  float *own_, *hidden_, *values_, *gradient_[2];
};

}  // namespace fieldfit
