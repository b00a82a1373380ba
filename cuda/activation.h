// Activation functions of the networks, each beside its vjp.
#pragma once
#include "functions.h"

namespace fieldfit {

enum Activation : int { kIdentity = 0, kRelu = 1, kSilu = 2, kSine = 3, kSigmoid = 4, kExp = 5 };

// `kSine` computes sin(x): a frequency factor (SIREN's omega) is part of the weights that come before it.
// `kExp` is clamped to exp(15), as every radiance field does, so that one step cannot overflow.
template <class F>
FF_LANE F activate(int kind, F z) {
  switch (kind) {
    case kRelu:
      return maximum(z, splat<F>(0.0f));
    case kSilu:
      return z * sigmoid(z);
    case kSine:
      return sin_(z);
    case kSigmoid:
      return sigmoid(z);
    case kExp:
      return exp_(minimum(z, splat<F>(15.0f)));
    default:
      return z;
  }
}

// d_z from the cotangent d_h, the input z and the output h = activate(z).
// The clamp of `kExp` still passes gradients, so that a saturated density can come back.
template <class F>
FF_LANE F activate_vjp(int kind, F z, F h, F d_h) {
  switch (kind) {
    case kRelu:
      return select(z > splat<F>(0.0f), d_h, splat<F>(0.0f));
    case kSilu: {
      F s = sigmoid(z);
      return d_h * s * (splat<F>(1.0f) + z * (splat<F>(1.0f) - s));
    }
    case kSine:
      return d_h * cos_(z);
    case kSigmoid:
      return d_h * h * (splat<F>(1.0f) - h);
    case kExp:
      return d_h * h;
    default:
      return d_h;
  }
}

}  // namespace fieldfit
