// Coordinate-aware modulation (Lee et al. 2024): where a coordinate lies on an axis of a low-resolution grid, and what its
// scale and shift do to a normalised feature; each beside its vjp.
#pragma once
#include "activation.h"

namespace fieldfit {

constexpr int kMaxAxes = 6;
constexpr float kNormEps = 1e-5f;  // added to the variance of features

struct ModulationAxis {
  int32_t vertices;  // >= 1
  int32_t wraps;     // whether 0 and 1 are the same place; then no vertex lies at 1
};

// The vertices around a coordinate, how far it lies from the first towards the second, and the derivative of that.
template <class F>
struct AxisPlace {
  Int<F> first, second;
  F fraction, slope;
};

// Coordinates outside of [0, 1] are held at the borders, or wrap. What is not a number lies at the first vertex.
template <class F>
FF_LANE AxisPlace<F> locate(F x, ModulationAxis axis) {
  F zero = splat<F>(0.0f), one = splat<F>(1.0f), count = splat<F>(static_cast<float>(axis.vertices));
  AxisPlace<F> place;
  if (axis.wraps) {
    F p = (x - floor_(x)) * count;
    F cell = minimum(maximum(floor_(p), zero), count - one);  // p may round up to `count`
    F next = cell + one;
    place.first = to_int(cell);
    place.second = to_int(select(next < count, next, zero));
    place.fraction = p - cell;
    place.slope = count;
    return place;
  }
  F last = count - one;
  F p = minimum(maximum(x, zero), one) * last;
  F cell = minimum(floor_(p), maximum(last - one, zero));
  place.first = to_int(cell);
  place.second = to_int(minimum(cell + one, last));
  place.fraction = p - cell;
  place.slope = select(x < zero, zero, select(x > one, zero, last));
  return place;
}

// From a normalised feature to the layer's output.
template <class F>
FF_LANE F modulate(int activation, F y, F scale, F shift) {
  return activate(activation, fma(scale, y, shift));
}

// The cotangent of scale y + shift; that of y is `scale` times it, that of the scale y times it. Relu and silu only,
// whose derivatives do not read the output.
template <class F>
FF_LANE F modulate_vjp(int activation, F y, F scale, F shift, F d_h) {
  F z = fma(scale, y, shift);
  return activate_vjp(activation, z, z, d_h);
}

// The cotangent of f from that of y = (f - mean(f)) r with r = 1 / sqrt(variance(f) + eps), given the means over channels
// of d_y and of d_y y.
template <class F>
FF_LANE F normalise_vjp(F y, F r, F d_y, F mean_d_y, F mean_d_y_y) {
  return r * (d_y - mean_d_y - y * mean_d_y_y);
}

}  // namespace fieldfit
