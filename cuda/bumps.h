// Gaussian bumps on an even grid: phi_g(x) = exp(-(u - g)^2), u = (x - first) / spacing (Li 2024, FastKAN).
#pragma once
#include "functions.h"

namespace fieldfit {

constexpr int kBumps = 8;  // that come from one pair of exponentials

// Where x lies among `count` bumps, in spacings from the first; far away it stays where all of them have vanished.
template <class F>
FF_LANE F place(F x, float first, float spacing, int count) {
  F u = (x - splat<F>(first)) * splat<F>(1 / spacing);
  return minimum(maximum(u, splat<F>(-16.0f)), splat<F>(static_cast<float>(count) + 16.0f));
}

// phi[k] = exp(-(v - k)^2) for k = 0 .. 7. With v = 3.5 + w and k = 3.5 + j, that is exp(-w^2) exp(2 j w) exp(-j^2):
// two exponentials for eight bumps. Beyond |w| = 9.3, where they would overflow, every bump is below 3e-15.
template <class F>
FF_LANE void bumps(F v, F* phi) {
  F w = minimum(maximum(v - splat<F>(3.5f), splat<F>(-9.3f)), splat<F>(9.3f));
  F middle = exp_within(-(w * w)), up = exp_within(w), down = reciprocal(up);
  F up2 = up * up, down2 = down * down, right = middle * up, left = middle * down;
  constexpr float kFall[4] = {0.778800783071405f, 0.105399224561864f, 1.93045413622771e-3f, 4.78511739212901e-6f};  // exp(-j^2)
  for (int j = 0; j < 4; ++j) {
    phi[4 + j] = right * splat<F>(kFall[j]);
    phi[3 - j] = left * splat<F>(kFall[j]);
    right = right * up2;
    left = left * down2;
  }
}

}  // namespace fieldfit
