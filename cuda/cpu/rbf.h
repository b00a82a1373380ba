// The interface of the layer of Gaussian neurons (rbf.cpp).
#pragma once
#include <cstdint>

#include "tape.h"

namespace fieldfit {

// y = W phi + w0 with phi_k = exp(-1/2 sum_d exp(b_kd) (x_d - c_kd)^2 / D).
struct Rbf {
  int features;                // D
  int neurons;                 // K
  int outputs;                 // O
  const float* centers;        // [K, D]
  const float* log_precision;  // [K, D]
  const float* weight;         // [O, K]
  const float* bias;           // [O]
};

struct RbfGradients {
  float* centers;
  float* log_precision;
  float* weight;
  float* bias;
};

// With a tape, the forward pass leaves phi there for the backward pass, which computes it again without.
void rbf_forward(const Rbf&, int64_t n, const float* x, float* out, Tape* tape);
// All gradients are written; d_x [n, D] may be null.
void rbf_backward(const Rbf&, int64_t n, const float* x, const Tape* tape, const float* d_out, float* d_x, const RbfGradients&);

}  // namespace fieldfit
