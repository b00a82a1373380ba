// The cost in nats of a value that is known to within a half, under a Laplace distribution, and its derivatives.
//
// With d = |y - mu| and u = 1 / b:   p = P(y - 1/2 < X < y + 1/2),
//   d >= 1/2:  p = exp(-(d - 1/2) u) (1 - exp(-u)) / 2
//   d <  1/2:  p = 1 - (exp(-(1/2 - d) u) + exp(-(1/2 + d) u)) / 2
#pragma once
#include "functions.h"

namespace fieldfit {

template <class F>
struct LaplaceCost {
  F nats, d_y, d_mu, d_log_b;
};

constexpr float kLeastProbability = 1e-7f;  // what the coder gives to every value, however unlikely

template <class F>
FF_LANE LaplaceCost<F> laplace_cost(F y, F mu, F log_b) {
  F zero = splat<F>(0.0f), half = splat<F>(0.5f), one = splat<F>(1.0f);
  F u = exp_(-log_b), offset = y - mu, d = abs_(offset);
  F e = exp_(-u);
  F far_log = -(d - half) * u + log_(half * (one - e));
  F far_by_d = -u, far_by_u = half - d + e / (one - e);
  F near = minimum(d, half);
  F a = exp_(-(half - near) * u), b = exp_(-(half + near) * u);
  F p = one - half * (a + b) + splat<F>(kLeastProbability);
  F near_by_d = -half * u * (a - b) / p;
  F near_by_u = half * ((half - near) * a + (half + near) * b) / p;
  Mask<F> is_far = d >= half;
  F by_d = select(is_far, far_by_d, near_by_d), by_u = select(is_far, far_by_u, near_by_u);
  F d_y = select(offset < zero, by_d, -by_d);
  return {-select(is_far, far_log, log_(p)), d_y, -d_y, by_u * u};
}

}  // namespace fieldfit
