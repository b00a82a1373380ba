// Bases of functions of one value, on lanes: what layers of learned functions multiply by their weights. A term of number
// g comes as a call to(g, value), so that it is written where the caller keeps terms.
#pragma once
#include "bumps.h"

namespace fieldfit {

enum BasisKind : int { kSplines, kGaussians, kPolynomials, kWaves, kSlopes, kHats };  // fields/kernels/shapes.py

constexpr int kSplineRow = 4;      // of a knot: its place, and 1 over the distance to the first, second and third after it
constexpr float kHatScale = 0.867325070584f;  // 2 / (sqrt(3) pi^(1/4))

// `count` functions. Bumps and wavelets have centres `first` + g `spacing`; waves repeat after `spacing`.
struct Basis {
  int kind, count;
  float first, spacing;

  FF_LANE int knots() const { return kind == kSplines ? count + 4 : 0; }  // rows of a table, for each input
};

// Cubic B-splines by the recurrence of de Boor, all of them in one pass over the intervals; outside the grid each goes on
// as the straight line that touches it at the border. Calls to(g, value, slope).
template <class F, class To>
FF_LANE void splines(F x, int count, const float* knots, To to) {
  auto knot = [&](int j) { return splat<F>(knots[j * kSplineRow]); };
  auto inverse = [&](int j, int order) { return splat<F>(knots[j * kSplineRow + order]); };
  F inside = minimum(maximum(x, knot(3)), knot(count)), zero = splat<F>(0.0f);
  F beyond = x - inside, p1 = zero, p2 = zero, p3 = zero;  // values of the last interval over their supports
  for (int j = 0; j < count + 3; ++j) {
    F to_end = knot(j + 1) - inside;
    F c1 = select(inside >= knot(j), select(inside < knot(j + 1), inverse(j, 1), zero), zero), c2 = zero, c3 = zero;
    if (j >= 1) c2 = inverse(j - 1, 2) * fma(inside - knot(j - 1), p1, to_end * c1);
    if (j >= 2) c3 = inverse(j - 2, 3) * fma(inside - knot(j - 2), p2, to_end * c2);
    if (j >= 3) {
      F slope = splat<F>(3.0f) * (p3 - c3);
      to(j - 3, fma(slope, beyond, fma(inside - knot(j - 3), p3, to_end * c3)), slope);
    }
    p1 = c1;
    p2 = c2;
    p3 = c3;
  }
}

// A place on the unit circle, and what turns it by an angle: sines and cosines of multiples come by turning again, with
// errors that grow with the multiple only.
template <class F>
struct Turn {
  F cosine, sine;

  FF_LANE Turn then(const Turn& by) const {
    return {fma(cosine, by.cosine, -(sine * by.sine)), fma(sine, by.cosine, cosine * by.sine)};
  }
};

// By the angle whose cosine is tanh(x); its sine is 1 / cosh(x).
template <class F>
FF_LANE Turn<F> turn_of_tanh(F x) {
  F one = splat<F>(1.0f), e = exp_(-abs_(x)), inverse = reciprocal(fma(e, e, one)), t = (one - e * e) * inverse;
  return {select(x < splat<F>(0.0f), -t, t), (e + e) * inverse};
}

// By pi v: the reduction is exact, however large v is.
template <class F>
FF_LANE Turn<F> turn_of(F v) {
  F w = v - splat<F>(2.0f) * floor_(fma(v, splat<F>(0.5f), splat<F>(0.5f)));
  return {sin_pi(splat<F>(0.5f) - abs_(w)), sin_pi(w)};
}

// All terms at x; `knots` [count + 4, kSplineRow] are those of this input, and of splines only.
template <class F, class To>
FF_LANE void basis_terms(const Basis& b, const float* knots, F x, To to) {
  switch (b.kind) {
    case kSplines:
      splines(x, b.count, knots, [&](int g, F value, F) { to(g, value); });
      return;
    case kGaussians: {
      F u = place(x, b.first, b.spacing, b.count);
      for (int g = 0; g < b.count; g += kBumps) {
        F phi[kBumps];
        bumps(u - splat<F>(static_cast<float>(g)), phi);
        for (int k = 0; k < kBumps; ++k) {
          if (g + k < b.count) to(g + k, phi[k]);
        }
      }
      return;
    }
    case kPolynomials: {  // T_n(tanh x) = cos(n a) with tanh x = cos a
      Turn<F> by = turn_of_tanh(x), now{splat<F>(1.0f), splat<F>(0.0f)};
      for (int n = 0; n < b.count; ++n) {
        to(n, now.cosine);
        now = now.then(by);
      }
      return;
    }
    case kWaves: {  // sines of 1 .. count / 2 periods, then cosines
      int half = b.count / 2;
      Turn<F> by = turn_of(x * splat<F>(2 / b.spacing)), now = by;
      for (int k = 0; k < half; ++k) {
        to(k, now.sine);
        to(half + k, now.cosine);
        now = now.then(by);
      }
      return;
    }
    default: {  // derivatives of Gaussians
      F u = place(x, b.first, b.spacing, b.count);
      for (int g = 0; g < b.count; ++g) {
        F v = u - splat<F>(static_cast<float>(g)), v2 = v * v, e = exp_(splat<F>(-0.5f) * v2);
        to(g, b.kind == kSlopes ? -(v * e) : splat<F>(kHatScale) * (splat<F>(1.0f) - v2) * e);
      }
    }
  }
}

// d_x from the terms phi(g) at x and their cotangents d(g).
template <class F, class Phi, class Of>
FF_LANE F basis_vjp(const Basis& b, const float* knots, F x, Phi phi, Of d) {
  F sum = splat<F>(0.0f);
  switch (b.kind) {
    case kSplines:
      splines(x, b.count, knots, [&](int g, F, F slope) { sum = fma(d(g), slope, sum); });
      return sum;
    case kGaussians: {
      F u = place(x, b.first, b.spacing, b.count);
      for (int g = 0; g < b.count; ++g) sum = fma(d(g) * phi(g), u - splat<F>(static_cast<float>(g)), sum);
      return sum * splat<F>(-2 / b.spacing);
    }
    case kPolynomials: {  // d cos(n a) / dx = n sin(n a) / cosh x
      Turn<F> by = turn_of_tanh(x), now = by;
      for (int n = 1; n < b.count; ++n) {
        sum = fma(d(n) * splat<F>(static_cast<float>(n)), now.sine, sum);
        now = now.then(by);
      }
      return sum * by.sine;
    }
    case kWaves: {
      int half = b.count / 2;
      for (int k = 0; k < half; ++k) {
        F turn = fma(d(k), phi(half + k), -(d(half + k) * phi(k)));
        sum = fma(splat<F>(static_cast<float>(k + 1)), turn, sum);
      }
      return sum * splat<F>(6.28318530717958648f / b.spacing);
    }
    default: {
      F u = place(x, b.first, b.spacing, b.count);
      for (int g = 0; g < b.count; ++g) {
        F v = u - splat<F>(static_cast<float>(g)), v2 = v * v, e = exp_(splat<F>(-0.5f) * v2);
        F slope = b.kind == kSlopes ? v2 - splat<F>(1.0f) : splat<F>(kHatScale) * v * (v2 - splat<F>(3.0f));
        sum = fma(d(g) * e, slope, sum);
      }
      return sum * splat<F>(1 / b.spacing);
    }
  }
}

}  // namespace fieldfit
