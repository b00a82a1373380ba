// The rational activation: memory is read and written once; gradients of the coefficients are summed in registers over a
// tile of rows, then in double by thread, then over threads in their order (the idea of FlashKAT, without atomics).
#include "../rational.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kan.h"
#include "threads.h"

namespace fieldfit {
namespace {

constexpr int kRowTile = 64;
constexpr int64_t kLeastValues = 16384;  // of a thread

FloatV load_first(const float* p, int lanes) {
  FloatV v{};
  memcpy(&v, p, sizeof(float) * lanes);
  return v;
}
void store_first(float* p, FloatV v, int lanes) { memcpy(p, &v, sizeof(float) * lanes); }

// |denominator| by power and channel, [4][padded width], so that a vector of channels may span groups.
struct Coefficients {
  int pad;
  std::vector<float> by_channel;
  FloatV a[kNumerator];

  explicit Coefficients(const Rational& r)
      : pad((r.width + kLanes - 1) / kLanes * kLanes), by_channel(static_cast<size_t>(kDenominator) * pad) {
    for (int i = 0; i < kNumerator; ++i) a[i] = splat<FloatV>(r.numerator[i]);
    int size = r.width / r.groups;
    for (int j = 0; j < kDenominator; ++j) {
      for (int c = 0; c < r.width; ++c) by_channel[j * pad + c] = std::abs(r.denominator[c / size * kDenominator + j]);
    }
  }
  void of(int channel, FloatV* b) const {
    for (int j = 0; j < kDenominator; ++j) b[j] = load(&by_channel[j * pad + channel]);
  }
};

// Calls f(row, rows, channel, lanes) for tiles of rows and vectors of channels of this thread's share.
template <class Call>
void for_each_block(const Rational& r, int part, int parts, Call call) {
  Range mine = share(r.n, part, parts, kRowTile);
  for (int64_t row = mine.begin; row < mine.end; row += kRowTile) {
    int rows = static_cast<int>(std::min<int64_t>(kRowTile, mine.end - row));
    for (int c = 0; c < r.width; c += kLanes) call(row, rows, c, std::min(kLanes, r.width - c));
  }
}

}  // namespace

void rational_forward(const Rational& r, float* out) {
  Coefficients coefficients(r);
  int n_threads = threads_for(r.n * r.width, kLeastValues);
#pragma omp parallel num_threads(n_threads)
  {
    FloatV a[kNumerator];
    std::copy_n(coefficients.a, kNumerator, a);
    for_each_block(r, omp_get_thread_num(), omp_get_num_threads(), [&](int64_t row, int rows, int c, int lanes) {
      FloatV b[kDenominator];
      coefficients.of(c, b);
      const float* x = r.x + row * r.width + c;
      float* to = out + row * r.width + c;
      if (lanes == kLanes) {
        for (int i = 0; i < rows; ++i) store(to + i * r.width, rational(load(x + i * r.width), a, b));
      } else {
        for (int i = 0; i < rows; ++i) store_first(to + i * r.width, rational(load_first(x + i * r.width, lanes), a, b), lanes);
      }
    });
  }
}

void rational_backward(const Rational& r, const float* d_out, float* d_x, float* d_numerator, float* d_denominator) {
  constexpr int kSums = kNumerator + kDenominator;
  Coefficients coefficients(r);
  int n_threads = threads_for(r.n * r.width, kLeastValues);
  size_t pad = coefficients.pad;
  std::vector<double> sums(n_threads * kSums * pad);  // [threads][coefficient][channel]
#pragma omp parallel num_threads(n_threads)
  {
    int thread = omp_get_thread_num();
    double* mine = &sums[thread * kSums * pad];
    FloatV a[kNumerator];
    std::copy_n(coefficients.a, kNumerator, a);
    for_each_block(r, thread, omp_get_num_threads(), [&](int64_t row, int rows, int c, int lanes) {
      FloatV b[kDenominator], d_a[kNumerator] = {}, d_b[kDenominator] = {};
      coefficients.of(c, b);
      int64_t at = row * r.width + c;
      if (lanes == kLanes) {
        for (int i = 0; i < rows; ++i, at += r.width) store(d_x + at, rational_vjp(load(r.x + at), a, b, load(d_out + at), d_a, d_b));
      } else {
        for (int i = 0; i < rows; ++i, at += r.width) {
          store_first(d_x + at, rational_vjp(load_first(r.x + at, lanes), a, b, load_first(d_out + at, lanes), d_a, d_b), lanes);
        }
      }
      for (int i = 0; i < kSums; ++i) {
        FloatV v = i < kNumerator ? d_a[i] : d_b[i - kNumerator];
        for (int l = 0; l < kLanes; ++l) mine[i * pad + c + l] += v[l];
      }
    });
  }
  auto total = [&](int i, int channel) {
    double s = 0;
    for (int t = 0; t < n_threads; ++t) s += sums[(t * kSums + i) * pad + channel];
    return s;
  };
  for (int i = 0; i < kNumerator; ++i) {
    double s = 0;
    for (int c = 0; c < r.width; ++c) s += total(i, c);
    d_numerator[i] = static_cast<float>(s);
  }
  int size = r.width / r.groups;
  for (int k = 0; k < r.groups * kDenominator; ++k) {
    double s = 0;
    for (int c = 0; c < size; ++c) s += total(kNumerator + k % kDenominator, k / kDenominator * size + c);
    float b = r.denominator[k];
    d_denominator[k] = b > 0 ? static_cast<float>(s) : b < 0 ? static_cast<float>(-s) : 0.0f;
  }
}

}  // namespace fieldfit
