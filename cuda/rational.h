// The safe Pade activation F = P / Q of rational networks (Molina et al. 2020; GR-KAN: Yang & Wang 2024, form A):
// P = a0 + a1 x + ... + a5 x^5, Q = 1 + b1 |x| + ... + b4 |x|^4 with b >= 0, so that Q >= 1.
#pragma once
#include "lane.h"

namespace fieldfit {

constexpr int kNumerator = 6, kDenominator = 4, kCoefficients = kNumerator + kDenominator;

template <class F>
FF_LANE F rational(F x, const F* a, const F* b) {
  F y = abs_(x), p = a[5], q = b[3];
  for (int i = 4; i >= 0; --i) p = fma(p, x, a[i]);
  for (int j = 2; j >= 0; --j) q = fma(q, y, b[j]);
  return p / fma(q, y, splat<F>(1.0f));
}

// d_x from the cotangent d of F(x), and for rational_coefficients_vjp d / Q and that times F. |x|'s slope at 0 is 0.
template <class F>
FF_LANE F rational_vjp(F x, const F* a, const F* b, F d, F& of_numerator, F& of_denominator) {
  F y = abs_(x);
  F p = a[5], slope_p = splat<F>(0.0f), q = b[3], slope_q = splat<F>(0.0f);
  for (int i = 4; i >= 0; --i) {
    slope_p = fma(slope_p, x, p);
    p = fma(p, x, a[i]);
  }
  for (int j = 2; j >= 0; --j) {
    slope_q = fma(slope_q, y, q);
    q = fma(q, y, b[j]);
  }
  slope_q = fma(slope_q, y, q);
  F inverse = splat<F>(1.0f) / fma(q, y, splat<F>(1.0f));
  F f = p * inverse;
  of_numerator = d * inverse;
  of_denominator = of_numerator * f;
  slope_q = select(x > splat<F>(0.0f), slope_q, select(x < splat<F>(0.0f), -slope_q, splat<F>(0.0f)));
  return of_numerator * (slope_p - f * slope_q);
}

// Adds to d_a and d_b, from what rational_vjp found.
template <class F>
FF_LANE void rational_coefficients_vjp(F x, F of_numerator, F of_denominator, F* d_a, F* d_b) {
  F y = abs_(x);
  for (int i = 0; i < kNumerator; ++i) {
    d_a[i] = d_a[i] + of_numerator;
    of_numerator = of_numerator * x;
  }
  for (int j = 0; j < kDenominator; ++j) {
    of_denominator = of_denominator * y;
    d_b[j] = d_b[j] - of_denominator;
  }
}

}  // namespace fieldfit
