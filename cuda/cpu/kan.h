// What layers of learned functions compute on a CPU; rows are samples, all arrays float32, row-major.
#pragma once
#include <cstdint>

#include "../bases.h"
#include "../rational.h"

namespace fieldfit {

// The rational activation of rows of `width` channels, `groups` of equal size, at `scale` times their values.
struct Rational {
  int64_t n;
  int width, groups;
  const float* x;            // [n, width]
  const float* numerator;    // [6], shared
  const float* denominator;  // [groups, 4], of either sign
  float scale = 1;
};

void rational_forward(const Rational& r, float* out);
// d_numerator [6] and d_denominator [groups, 4] are overwritten.
void rational_backward(const Rational& r, const float* d_out, float* d_x, float* d_numerator, float* d_denominator);

// A linear layer of the activation.
struct RationalLayer {
  Rational activation;
  int n_out;
  const float* weight;  // [n_out, width]
  const float* bias;    // [n_out]
};

// Gradients; all but d_x [n, inputs], which may be null, are overwritten.
struct RationalGradients {
  float *d_x, *d_numerator, *d_denominator, *d_weight, *d_bias;
};

void rational_layer_forward(const RationalLayer& l, float* out);
void rational_layer_backward(const RationalLayer& l, const float* d_out, const RationalGradients& to);

// out[n, o] = bias[o] + sum_i sum_t weight[o, i, t] B_t(x[n, i]): the functions of a basis, and silu(x) as the last term
// where there is one term more than these.
struct BasisLayer {
  int64_t n;
  int n_in, n_out, terms;
  Basis basis;
  const float* knots;   // [n_in, basis.knots(), kSplineRow], of splines only
  const float* x;       // [n, n_in]
  const float* weight;  // [n_out, n_in, terms]
  const float* bias;    // [n_out]
};

void basis_layer_forward(const BasisLayer& l, float* out);
// d_x [n, n_in] may be null; d_weight and d_bias are overwritten.
void basis_layer_backward(const BasisLayer& l, const float* d_out, float* d_x, float* d_weight, float* d_bias);

}  // namespace fieldfit
