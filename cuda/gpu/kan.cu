// Layers of learned functions: the rational activation, a thread for each value; and layers whose functions have a basis, a
// block for each tile of samples, whose terms lie in the block's own part of `scratch`.
#include "../bases.h"
#include "../rational.h"
#include "mlp_block.cuh"

namespace fieldfit {
namespace {

FF_LANE void load_coefficients(const float* numerator, const float* denominator, float* a, float* b) {
  for (int i = 0; i < kNumerator; ++i) a[i] = numerator[i];
  for (int j = 0; j < kDenominator; ++j) b[j] = abs_(denominator[j]);
}

}  // namespace

// n points of `width` channels, `group` of which share a denominator.
FF_KERNEL(256, 4)
rational_forward(int n, int width, int group, const float* x, const float* numerator, const float* denominator,
                 float* out) {
  int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(n) * width) return;
  float a[kNumerator], b[kDenominator];
  load_coefficients(numerator, denominator + static_cast<int>(i % width) / group * kDenominator, a, b);
  out[i] = rational(x[i], a, b);
}

// Blocks (share, group). Each sums the gradients of a and |b| over its share of the group's values in a slice of its own.
FF_KERNEL(128, 4)
rational_backward(int n, int width, int group, const float* x, const float* numerator, const float* denominator,
                  const float* d_out, float* d_x, float* slices) {
  FF_SHARED(float, sums);  // [warps, kCoefficients]
  float a[kNumerator], b[kDenominator], d[kCoefficients] = {};
  load_coefficients(numerator, denominator + blockIdx.y * kDenominator, a, b);
  int64_t first = static_cast<int64_t>(blockIdx.y) * group, count = static_cast<int64_t>(n) * group;
  for (int64_t e = thread_index(); e < count; e += thread_count()) {
    int64_t at = e / group * width + first + e % group;
    float of_numerator, of_denominator;
    d_x[at] = rational_vjp(x[at], a, b, d_out[at], of_numerator, of_denominator);
    rational_coefficients_vjp(x[at], of_numerator, of_denominator, d, d + kNumerator);
  }
  FF_UNROLL
  for (int k = 0; k < kCoefficients; ++k) {
    float sum = warp_sum(d[k]);
    if (lane_index() == 0) sums[warp_index() * kCoefficients + k] = sum;
  }
  __syncthreads();
  int k = static_cast<int>(threadIdx.x);
  if (k >= kCoefficients) return;
  float sum = 0.0f;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) sum += sums[w * kCoefficients + k];
  slices[(static_cast<int64_t>(blockIdx.x) * gridDim.y + blockIdx.y) * kCoefficients + k] = sum;
}

// n_out sums of the terms of n_in values: the functions of a basis and, where there is one term more, SiLU.
struct BasisTerms {
  int n_in, n_out, terms;
  Basis basis;

  FF_LANE int size() const { return n_in * terms; }
  FF_LANE const float* knots_of(int i, const float* knots) const {
    return knots + static_cast<int64_t>(i) * basis.knots() * kSplineRow;
  }
};

namespace {

// Terms of samples first .. first + kRows as columns of `to`, those of samples past the end are of zeros.
FF_LANE void all_terms(const BasisTerms& of, const float* knots, int n, const float* x, int64_t first, float* to) {
  for (int e = static_cast<int>(threadIdx.x); e < kRows * of.n_in; e += kThreads) {
    int r = e % kRows, i = e / kRows;
    float v = first + r < n ? x[(first + r) * of.n_in + i] : 0.0f;
    float* column = to + static_cast<int64_t>(i) * of.terms * kStride + r;
    basis_terms(of.basis, of.knots_of(i, knots), v, [&](int g, float value) { column[g * kStride] = value; });
    if (of.terms > of.basis.count) column[of.basis.count * kStride] = activate(kSilu, v);
  }
}

// d_x from terms and their cotangents.
FF_LANE void all_terms_vjp(const BasisTerms& of, const float* knots, int n, const float* x, int64_t first,
                           const float* terms, const float* d_terms, float* d_x) {
  for (int e = static_cast<int>(threadIdx.x); e < kRows * of.n_in; e += kThreads) {
    int r = e / of.n_in, i = e % of.n_in, last = of.basis.count;
    if (first + r >= n) continue;
    float v = x[(first + r) * of.n_in + i];
    int64_t at = static_cast<int64_t>(i) * of.terms * kStride + r;
    auto term = [&](int g) { return terms[at + g * kStride]; };
    auto cotangent = [&](int g) { return d_terms[at + g * kStride]; };
    float d = basis_vjp(of.basis, of.knots_of(i, knots), v, term, cotangent);
    if (of.terms > last) d += activate_vjp(kSilu, v, term(last), cotangent(last));
    d_x[(first + r) * of.n_in + i] = d;
  }
}

}  // namespace

// Scratch of a block: the terms. Shared memory: the weight tile.
FF_KERNEL(kThreads, 2)
basis_layer_forward(int n, const __grid_constant__ BasisTerms of, const float* knots, const float* x, const float* weight,
                    const float* bias, float* scratch, int kept, float* out) {
  FF_SHARED(float, tile);
  float* terms = scratch + static_cast<int64_t>(blockIdx.x) * kept;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRows; first < n;
       first += static_cast<int64_t>(gridDim.x) * kRows) {
    all_terms(of, knots, n, x, first, terms);
    product(weight, of.size(), 1, bias, of.size(), of.n_out, terms, tile, [&](int j, int r, float v) {
      if (first + r < n) out[(first + r) * of.n_out + j] = v;
    });
    __syncthreads();  // nobody reads the terms any more
  }
}

// Writes d_x (or not, where it is null) and the block's share of d_weight into slices[blockIdx.x].
// Scratch of a block: the terms, their cotangents, those of the outputs. Shared memory: the weight tile.
FF_KERNEL(kThreads, 2)
basis_layer_backward(int n, const __grid_constant__ BasisTerms of, const float* knots, const float* x,
                     const float* weight, float* scratch, int kept, const float* d_out, float* d_x, float* slices) {
  FF_SHARED(float, tile);
  int size = of.size();
  float* terms = scratch + static_cast<int64_t>(blockIdx.x) * kept;
  float* d_terms = terms + size * kStride;
  float* d = d_terms + size * kStride;
  float* slice = slices + static_cast<int64_t>(blockIdx.x) * size * of.n_out;
  int64_t begin = static_cast<int64_t>(blockIdx.x) * kRows;
  MlpRows cotangents{n, d_out, of.n_out, nullptr, nullptr, 0, 0};
  for (int64_t first = begin; first < n; first += static_cast<int64_t>(gridDim.x) * kRows) {
    all_terms(of, knots, n, x, first, terms);
    load_tile(cotangents, first, of.n_out, d);
    __syncthreads();  // both are complete
    weight_gradient(d, terms, of.n_out, size, slice, first == begin);
    if (d_x) {
      product(weight, 1, size, nullptr, of.n_out, size, d, tile,
              [&](int k, int r, float v) { d_terms[k * kStride + r] = v; });
      __syncthreads();  // cotangents of all terms are there
      all_terms_vjp(of, knots, n, x, first, terms, d_terms, d_x);
    }
    __syncthreads();  // nobody reads this tile any more
  }
}

}  // namespace fieldfit
