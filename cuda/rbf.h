// The Gaussian of a neuron whose distance is measured in feature space, beside its vjp.
#pragma once
#include "functions.h"

namespace fieldfit {

// Features and log precisions are clamped to these, so that no square overflows, however far a fit went astray.
constexpr float kMostFeature = 1e9f;
constexpr float kMostLogPrecision = 40.0f;

// phi from half the squared distance, which rounding may have brought below zero.
template <class F>
FF_LANE F rbf(F half_distance2) {
  return exp_(-maximum(half_distance2, splat<F>(0.0f)));
}

// The cotangent of half the squared distance, from phi and its cotangent.
template <class F>
FF_LANE F rbf_vjp(F phi, F d_phi) {
  return -(phi * d_phi);
}

}  // namespace fieldfit
