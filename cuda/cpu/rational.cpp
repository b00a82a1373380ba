// The rational activation, and a linear layer of it; lanes are channels. Memory is read and written once; gradients of the
// coefficients are summed in registers over a tile of rows, then in double by thread, then over threads in their order (the
// idea of FlashKAT, without atomics).
#include "../rational.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kan.h"
#include "mlp_tile.h"
#include "threads.h"

namespace fieldfit {
namespace {

constexpr int kRowTile = 48;             // of a layer: products take multiples of 12
constexpr int kStreamed = 16;            // of the activation alone, and fetched ahead: a channel's values lie too far apart to be guessed
constexpr int64_t kLeastValues = 16384;  // of a thread

#if defined(__AVX512F__)
FloatV load_first(const float* p, int lanes) { return (FloatV)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << lanes) - 1), p); }
void store_first(float* p, FloatV v, int lanes) { _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1 << lanes) - 1), (__m512)v); }
#else
FloatV load_first(const float* p, int lanes) {
  FloatV v{};
  memcpy(&v, p, sizeof(float) * lanes);
  return v;
}
void store_first(float* p, FloatV v, int lanes) { memcpy(p, &v, sizeof(float) * lanes); }
#endif

// Coefficients by their number and channel, [kCoefficients, pad], so that a vector of channels may span groups.
class Coefficients {
 public:
  explicit Coefficients(int width) : pad(padded(width)), width_(width), by_channel_(static_cast<size_t>(kCoefficients) * pad) {}
  float& at(int k, int channel) { return by_channel_[k * pad + channel]; }

  // Calls f(channel, lanes, coefficients) for all vectors of channels.
  template <class Call>
  FF_LANE void for_each(Call call) const {
    for (int c = 0; c < width_; c += kLanes) {
      FloatV k[kCoefficients];
      for (int i = 0; i < kCoefficients; ++i) k[i] = load(&by_channel_[i * pad + c]);
      call(c, std::min(kLanes, width_ - c), k);
    }
  }

  const int pad;

 private:
  int width_;
  std::vector<float> by_channel_;
};

// The vectors of a row: whole ones, and the last one if it is shorter.
struct Whole {
  FloatV load(const float* p) const { return fieldfit::load(p); }
  void store(float* p, FloatV v) const { fieldfit::store(p, v); }
};
struct First {
  int lanes;
  FloatV load(const float* p) const { return load_first(p, lanes); }
  void store(float* p, FloatV v) const { store_first(p, v, lanes); }
};

// Calls f(channel, coefficients, vector) for all vectors of channels.
template <class Call>
FF_LANE void for_each_vector(const Coefficients& of, Call call) {
  of.for_each([&](int c, int lanes, const FloatV* k) {
    if (lanes == kLanes) {
      call(c, k, Whole{});
    } else {
      call(c, k, First{lanes});
    }
  });
}

// F of `rows` rows of x, `stride` apart, to rows `to_stride` apart.
void activate_rows(const Coefficients& of, const float* x, int stride, int rows, float* to, int to_stride) {
  for_each_vector(of, [&](int c, const FloatV* coefficients, auto vector) {
    FloatV k[kCoefficients];
    std::copy_n(coefficients, kCoefficients, k);
    for (int i = 0; i < rows; ++i) {
      __builtin_prefetch(x + (i + kStreamed) * stride + c);
      vector.store(to + i * to_stride + c, rational(vector.load(x + i * stride + c), k, k + kNumerator));
    }
  });
}

// d_x, if it is wanted, from cotangents d of rows of F; adds what those of the coefficients get to sums [kCoefficients, pad].
void rows_vjp(const Coefficients& of, const float* x, int stride, int rows, const float* d, int d_stride, float* d_x, double* sums) {
  for_each_vector(of, [&](int c, const FloatV* coefficients, auto vector) {
    FloatV k[kCoefficients], d_k[kCoefficients], of_numerator[kRowTile], of_denominator[kRowTile];
    std::copy_n(coefficients, kCoefficients, k);
    for (FloatV& sum : d_k) sum = splat<FloatV>(0.0f);
    auto row = [&](int i) {
      __builtin_prefetch(x + (i + kStreamed) * stride + c);
      __builtin_prefetch(d + (i + kStreamed) * d_stride + c);
      if (d_x) __builtin_prefetch(d_x + (i + kStreamed) * stride + c, 1);
      FloatV v = vector.load(x + i * stride + c);
      return rational_vjp(v, k, k + kNumerator, vector.load(d + i * d_stride + c), of_numerator[i], of_denominator[i]);
    };
    if (d_x) {
      for (int i = 0; i < rows; ++i) vector.store(d_x + i * stride + c, row(i));
    } else {
      for (int i = 0; i < rows; ++i) row(i);
    }
    for (int i = 0; i < rows; ++i) {  // another pass, since there are registers for coefficients or for their sums
      rational_coefficients_vjp(vector.load(x + i * stride + c), of_numerator[i], of_denominator[i], d_k, d_k + kNumerator);
    }
    for (int i = 0; i < kCoefficients; ++i) {
      for (int l = 0; l < kLanes; ++l) sums[i * of.pad + c + l] += d_k[i][l];
    }
  });
}

// Sums of coefficient gradients by thread, [threads][kCoefficients, pad].
class Sums {
 public:
  Sums(int n_threads, int pad) : pad_(pad), values_(static_cast<size_t>(n_threads) * kCoefficients * pad) {}
  double* of(int thread) { return &values_[static_cast<size_t>(thread) * kCoefficients * pad_]; }
  double total(int k, int channel) const {
    double s = 0;
    for (size_t at = static_cast<size_t>(k) * pad_ + channel; at < values_.size(); at += static_cast<size_t>(kCoefficients) * pad_) s += values_[at];
    return s;
  }

 private:
  int pad_;
  std::vector<double> values_;
};

// Of x, where what is given is for x times a scale.
Coefficients coefficients_of(const Rational& r) {
  Coefficients found(r.width);
  int size = r.width / r.groups;
  for (int c = 0; c < r.width; ++c) {
    float power = 1;
    for (int i = 0; i < kNumerator; ++i, power *= r.scale) {
      found.at(i, c) = r.numerator[i] * power;
      if (i < kDenominator) found.at(kNumerator + i, c) = std::abs(r.denominator[c / size * kDenominator + i]) * power * r.scale;
    }
  }
  return found;
}

void write_coefficients(const Rational& r, const Sums& sums, float* d_numerator, float* d_denominator) {
  double power = 1;
  for (int i = 0; i < kNumerator; ++i, power *= r.scale) {
    double s = 0;
    for (int c = 0; c < r.width; ++c) s += sums.total(i, c);
    d_numerator[i] = static_cast<float>(s * power);
  }
  int size = r.width / r.groups;
  for (int k = 0; k < r.groups * kDenominator; ++k) {
    int j = k % kDenominator;
    double s = 0;
    for (int c = 0; c < size; ++c) s += sums.total(kNumerator + j, k / kDenominator * size + c);
    float b = r.denominator[k], of_b = static_cast<float>(s * std::pow(r.scale, j + 1));
    d_denominator[k] = b > 0 ? of_b : b < 0 ? -of_b : 0.0f;
  }
}

// Calls f(first, rows) for the tiles of this thread's share.
template <class Call>
void for_each_tile(int64_t n, int tile, Call call) {
  Range mine = share(n, omp_get_thread_num(), omp_get_num_threads(), tile);
  for (int64_t row = mine.begin; row < mine.end; row += tile) call(row, static_cast<int>(std::min<int64_t>(tile, mine.end - row)));
}

// Weights in both orders, padded with zeros, shared by threads.
struct Packed {
  int pad_in, pad_out;
  Coefficients coefficients;
  Aligned storage;
  float *transposed, *weight, *bias;  // [n_in, pad_out], [n_out, pad_in], [pad_out]

  explicit Packed(const RationalLayer& l) : pad_in(padded(l.activation.width)), pad_out(padded(l.n_out)), coefficients(coefficients_of(l.activation)) {
    int n_in = l.activation.width;
    size_t forward = static_cast<size_t>(n_in) * pad_out, backward = static_cast<size_t>(l.n_out) * pad_in;
    storage = Aligned(sizeof(float) * (forward + backward + pad_out));
    transposed = reinterpret_cast<float*>(storage.data());
    weight = transposed + forward;
    bias = weight + backward;
    for (int o = 0; o < l.n_out; ++o) {
      bias[o] = l.bias[o];
      for (int i = 0; i < n_in; ++i) {
        float w = l.weight[static_cast<int64_t>(o) * n_in + i];
        transposed[static_cast<size_t>(i) * pad_out + o] = weight[static_cast<size_t>(o) * pad_in + i] = w;
      }
    }
  }
};

}  // namespace

void rational_forward(const Rational& r, float* out) {
  Coefficients coefficients = coefficients_of(r);
#pragma omp parallel num_threads(threads_for(r.n * r.width, kLeastValues))
  for_each_tile(r.n, kStreamed, [&](int64_t first, int rows) {
    activate_rows(coefficients, r.x + first * r.width, r.width, rows, out + first * r.width, r.width);
  });
}

void rational_backward(const Rational& r, const float* d_out, float* d_x, float* d_numerator, float* d_denominator) {
  Coefficients coefficients = coefficients_of(r);
  int n_threads = threads_for(r.n * r.width, kLeastValues);
  Sums sums(n_threads, coefficients.pad);
#pragma omp parallel num_threads(n_threads)
  for_each_tile(r.n, kStreamed, [&](int64_t first, int rows) {
    int64_t at = first * r.width;
    rows_vjp(coefficients, r.x + at, r.width, rows, d_out + at, r.width, d_x + at, sums.of(omp_get_thread_num()));
  });
  write_coefficients(r, sums, d_numerator, d_denominator);
}

void rational_layer_forward(const RationalLayer& l, float* out) {
  const Rational& r = l.activation;
  Packed p(l);
#pragma omp parallel num_threads(threads_for(r.n, 2 * kRowTile))
  {
    Aligned scratch(sizeof(float) * kRowTile * (p.pad_in + p.pad_out));
    float *act = reinterpret_cast<float*>(scratch.data()), *to = act + kRowTile * p.pad_in;
    for_each_tile(r.n, kRowTile, [&](int64_t first, int rows) {
      activate_rows(p.coefficients, r.x + first * r.width, r.width, rows, act, p.pad_in);
      product<Start::kRow, End::kStore>({act, p.pad_in, 1, p.transposed, p.pad_out, to, p.pad_out, r.width, p.bias}, round_rows(rows), p.pad_out);
      for (int i = 0; i < rows; ++i) memcpy(out + (first + i) * l.n_out, to + i * p.pad_out, sizeof(float) * l.n_out);
    });
  }
}

void rational_layer_backward(const RationalLayer& l, const float* d_out, const RationalGradients& to) {
  const Rational& r = l.activation;
  Packed p(l);
  int n_threads = threads_for(r.n, 2 * kRowTile);
  Sums sums(n_threads, p.pad_in);
  std::vector<Aligned> of_weight(n_threads), of_bias(n_threads);  // [some_out, pad_in], [pad_out] each
  int some_out = (l.n_out + 3) / 4 * 4;
#pragma omp parallel num_threads(n_threads)
  {
    int thread = omp_get_thread_num();
    of_weight[thread] = Aligned(sizeof(float) * some_out * p.pad_in);
    of_bias[thread] = Aligned(sizeof(float) * p.pad_out);
    float *sum = reinterpret_cast<float*>(of_weight[thread].data()), *bias = reinterpret_cast<float*>(of_bias[thread].data());
    Aligned scratch(sizeof(float) * kRowTile * (2 * p.pad_in + p.pad_out));
    float *act = reinterpret_cast<float*>(scratch.data()), *d_act = act + kRowTile * p.pad_in, *d = d_act + kRowTile * p.pad_in;
    for_each_tile(r.n, kRowTile, [&](int64_t first, int rows) {
      const float* x = r.x + first * r.width;
      for (int i = 0; i < rows; ++i) memcpy(d + i * p.pad_out, d_out + (first + i) * l.n_out, sizeof(float) * l.n_out);
      add_rows(d, p.pad_out, rows, p.pad_out, bias);
      activate_rows(p.coefficients, x, r.width, rows, act, p.pad_in);
      product_add({d, 1, p.pad_out, act, p.pad_in, sum, p.pad_in, rows}, some_out, p.pad_in);
      product<Start::kZero, End::kStore>({d, p.pad_out, 1, p.weight, p.pad_in, d_act, p.pad_in, l.n_out}, round_rows(rows), p.pad_in);
      rows_vjp(p.coefficients, x, r.width, rows, d_act, p.pad_in, to.d_x ? to.d_x + first * r.width : nullptr, sums.of(thread));
    });
  }
  auto total = [](const std::vector<Aligned>& parts, size_t at) {
    float t = 0;
    for (const Aligned& part : parts) t += reinterpret_cast<const float*>(part.data())[at];
    return t;
  };
  for (int o = 0; o < l.n_out; ++o) {
    to.d_bias[o] = total(of_bias, o);
    for (int i = 0; i < r.width; ++i) to.d_weight[static_cast<size_t>(o) * r.width + i] = total(of_weight, static_cast<size_t>(o) * p.pad_in + i);
  }
  write_coefficients(r, sums, to.d_numerator, to.d_denominator);
}

}  // namespace fieldfit
