// Spherical harmonics and frequency encodings: a thread for each direction, coordinate, or coordinate and frequency.
#include "../functions.h"
#include "../harmonics.h"
#include "device.cuh"

namespace fieldfit {

FF_KERNEL(256, 4) harmonics(int degree, int n, const float* d, float* out) {
  int i = thread_index();
  if (i >= n) return;
  const float* v = d + static_cast<int64_t>(i) * 3;
  float y[16];
  harmonics_of(degree, v[0], v[1], v[2], y);
  int count = degree * degree;
  FF_UNROLL
  for (int k = 0; k < 16; ++k) {
    if (k < count) out[static_cast<int64_t>(i) * count + k] = y[k];
  }
}

// out[i, k] = (sin, cos)(2^k pi x_i) for each of `values` coordinates.
FF_KERNEL(256, 4) frequency(int n_frequencies, int values, const float* x, float* out) {
  int64_t total = static_cast<int64_t>(values) * n_frequencies;
  int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= total) return;
  int k = static_cast<int>(j % n_frequencies);
  float phase = x[j / n_frequencies] * static_cast<float>(1u << k);
  *reinterpret_cast<float2*>(out + j * 2) = float2{sin_pi(phase), cos_pi(phase)};
}

FF_KERNEL(256, 4)
frequency_backward(int n_frequencies, int values, const float* x, const float* d_out, float* d_x) {
  int i = thread_index();
  if (i >= values) return;
  float total = 0.0f;
  for (int k = 0; k < n_frequencies; ++k) {
    float factor = static_cast<float>(1u << k);
    float phase = x[i] * factor;
    float2 d = *reinterpret_cast<const float2*>(d_out + (static_cast<int64_t>(i) * n_frequencies + k) * 2);
    total = fma(d.x * cos_pi(phase) - d.y * sin_pi(phase), factor * 3.14159265358979324f, total);
  }
  d_x[i] = total;
}

}  // namespace fieldfit
