// Perceptrons with coordinate-aware modulation: the interface of the kernel.
#pragma once
#include "../modulation.h"
#include "kernels.h"

namespace fieldfit {

// Hidden layers h' = act(scale(at) norm(W h + b) + shift(at)), then a plain layer.
struct Cam {
  Mlp mlp;  // with a bias; all hidden layers are equally wide
  int n_axes;
  ModulationAxis axes[kMaxAxes];
  bool each;            // scale and shift of each channel, or one pair for all
  bool normalised;      // over the channels of a sample, without learnt factors
  const float* grids;   // [hidden layers, entries, 2, each ? hidden : 1], entries by axis, the first the quickest

  int hidden() const { return mlp.dims[1]; }
  int channels() const { return each ? hidden() : 1; }
  int64_t entries() const {
    int64_t n = 1;
    for (int a = 0; a < n_axes; ++a) n *= axes[a].vertices;
    return n;
  }
};

struct CamInput {
  MlpInput rows;
  const float* at;  // [n, n_axes]
};

struct CamGradients {
  float* d_x;       // [n, x_dim] or null
  float* d_at;      // [n, n_axes] or null
  float* d_params;  // as params
  float* d_grids;   // as grids, or null
};

// With a tape, the forward pass leaves its products for the backward pass, which computes them again without.
void cam_forward(const Cam&, const CamInput&, float* out, Tape* tape);
void cam_backward(const Cam&, const CamInput&, const Tape* tape, const float* d_out, const CamGradients&);

}  // namespace fieldfit
