// Spherical harmonics and frequency encodings over lanes of samples.
#include "../functions.h"
#include "../harmonics.h"
#include "kernels.h"
#include "threads.h"

namespace fieldfit {

void harmonics(int degree, int64_t n, const float* d, float* out) {
  int count = degree * degree;
  int n_threads = threads_for(n, 2048);
#pragma omp parallel for num_threads(n_threads) schedule(static)
  for (int64_t begin = 0; begin < n; begin += kLanes) {
    int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - begin));
    FloatV v[3], y[16];
    for (int l = 0; l < kLanes; ++l) {
      for (int a = 0; a < 3; ++a) v[a][l] = d[(begin + std::min(l, lanes - 1)) * 3 + a];
    }
    harmonics_of(degree, v[0], v[1], v[2], y);
    for (int k = 0; k < count; ++k) {
      for (int l = 0; l < lanes; ++l) out[(begin + l) * count + k] = y[k][l];
    }
  }
}

namespace {

// Calls f(first value, lanes) for vectors of coordinates x[i], taken over all n * dim values.
template <class Call>
void for_each_vector(int64_t values, Call call) {
  int n_threads = threads_for(values, 2048);
#pragma omp parallel for num_threads(n_threads) schedule(static)
  for (int64_t begin = 0; begin < values; begin += kLanes) call(begin, static_cast<int>(std::min<int64_t>(kLanes, values - begin)));
}

FloatV load_some(const float* x, int lanes) {
  FloatV v{};
  for (int l = 0; l < lanes; ++l) v[l] = x[l];
  return v;
}

}  // namespace

// out[i, k] = (sin, cos)(2^k pi x_i) for each coordinate x_i, so that a point of `dim` coordinates has dim * K * 2 values.
void frequency(int dim, int n_frequencies, int64_t n, const float* x, float* out) {
  for_each_vector(n * dim, [=](int64_t begin, int lanes) {
    FloatV v = load_some(x + begin, lanes);
    for (int k = 0; k < n_frequencies; ++k) {
      FloatV phase = v * splat<FloatV>(static_cast<float>(1u << k));
      FloatV s = sin_pi(phase), c = cos_pi(phase);
      for (int l = 0; l < lanes; ++l) {
        float* to = out + ((begin + l) * n_frequencies + k) * 2;
        to[0] = s[l];
        to[1] = c[l];
      }
    }
  });
}

void frequency_backward(int dim, int n_frequencies, int64_t n, const float* x, const float* d_out, float* d_x) {
  for_each_vector(n * dim, [=](int64_t begin, int lanes) {
    FloatV v = load_some(x + begin, lanes), total{};
    for (int k = 0; k < n_frequencies; ++k) {
      float factor = static_cast<float>(1u << k);
      FloatV phase = v * splat<FloatV>(factor), d_s{}, d_c{};
      for (int l = 0; l < lanes; ++l) {
        const float* from = d_out + ((begin + l) * n_frequencies + k) * 2;
        d_s[l] = from[0];
        d_c[l] = from[1];
      }
      FloatV slope = d_s * cos_pi(phase) - d_c * sin_pi(phase);
      total = fma(slope, splat<FloatV>(factor * 3.14159265358979324f), total);
    }
    for (int l = 0; l < lanes; ++l) d_x[begin + l] = total[l];
  });
}

}  // namespace fieldfit
