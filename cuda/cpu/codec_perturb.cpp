// What a fit sees of latents: softly rounded values with noise, so that gradients know of the rounding that is to come.
#include "../functions.h"
#include "codec.h"
#include "threads.h"

namespace fieldfit {
namespace {

struct Soft {
  FloatV value, slope;
};

// floor(x) + 1/2 + tanh(r / T) / (2 tanh(1 / (2 T))), r = x - floor(x) - 1/2 (Agustsson & Theis 2020).
FF_LANE Soft soft_round(FloatV x, float inverse_temperature, float scale) {
  FloatV whole = floor_(x), half = splat<FloatV>(0.5f), one = splat<FloatV>(1.0f);
  FloatV r = x - whole - half;
  FloatV e = exp_(splat<FloatV>(-2 * inverse_temperature) * abs_(r));
  FloatV t = (one - e) / (one + e);
  FloatV signed_t = select(r < FloatV{}, -t, t);
  return {whole + half + splat<FloatV>(scale) * signed_t, splat<FloatV>(scale * inverse_temperature) * (one - t * t)};
}

// A number in (0, 1) for each index, from its bits mixed (the finaliser of MurmurHash3).
FF_LANE FloatV uniform(uint32_t seed, int64_t at) {
  UIntV h;
  for (int l = 0; l < kLanes; ++l) h[l] = static_cast<uint32_t>(at) + l;
  h = h * 0x9e3779b9u + seed;
  h ^= h >> 16;
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  h ^= h >> 16;
  return fma(to_float((IntV)(h >> 9)), splat<FloatV>(1.0f / (1 << 23)), splat<FloatV>(0.5f / (1 << 23)));
}

FF_LANE FloatV power(FloatV x, float exponent) { return exp_(log_(x) * splat<FloatV>(exponent)); }

}  // namespace

void perturb(const Perturbation& how, int64_t n, const float* latents, float* out, float* slope) {
  float inverse = 1 / how.temperature, scale = 0.5f / tanhf(0.5f * inverse);
  float a = how.shape, b = (powf(2, a) * (a - 1) + 1) / a;  // the mode is 1/2
  bool uniform_noise = a <= 1.0f;
#pragma omp parallel for schedule(static) num_threads(threads_for(n, 8192))
  for (int64_t i = 0; i < n; i += kLanes) {
    FloatV x;
    int rest = static_cast<int>(std::min<int64_t>(kLanes, n - i));
    if (rest == kLanes) {
      x = load(latents + i);
    } else {
      x = FloatV{};
      for (int l = 0; l < rest; ++l) x[l] = latents[i + l];
    }
    Soft first = soft_round(x, inverse, scale);
    FloatV y, g;
    if (how.round) {
      y = floor_(x + splat<FloatV>(0.5f));
      g = first.slope;
    } else {
      FloatV u = uniform(how.seed, i);
      if (!uniform_noise) {
        FloatV one = splat<FloatV>(1.0f);
        u = power(maximum(one - power(one - u, 1 / b), splat<FloatV>(1e-12f)), 1 / a);
      }
      Soft second = soft_round(first.value + u - splat<FloatV>(0.5f), inverse, scale);
      y = second.value;
      g = first.slope * second.slope;
    }
    if (rest == kLanes) {
      store(out + i, y);
      store(slope + i, g);
    } else {
      for (int l = 0; l < rest; ++l) {
        out[i + l] = y[l];
        slope[i + l] = g[l];
      }
    }
  }
}

}  // namespace fieldfit
