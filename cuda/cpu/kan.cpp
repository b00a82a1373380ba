// Layers of learned functions: basis and product in one pass over tiles of samples, lanes along the samples. The values of
// the basis exist for a few inputs of a tile at a time, and are computed again in the backward pass.
#include "kan.h"

#include <memory>
#include <vector>

#include "mlp_tile.h"
#include "threads.h"
#include "transpose.h"

namespace fieldfit {
namespace {

constexpr int kPoints = 48;   // samples of a tile, a multiple of three vectors
constexpr int kInputs = 4;    // inputs of a chunk are a multiple of this, so that their terms are one of four
constexpr int kChunk = 112;   // terms of a chunk, about: with as many cotangents they stay in the first cache
static_assert(kPoints % (3 * kLanes) == 0);

int up_to(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// c[rows, kPoints] = or += a b with rows a multiple of 4 and lanes along the samples.
template <Start S>
void along_samples(const Product& p, int rows) {
  int r = 0;
  if constexpr (kLanes == 16) {
    for (; r + 8 <= rows; r += 8) product_block<8, 3, S, End::kStore>(p, r, 0);
  }
  for (; r < rows; r += 4) {
    for (int j = 0; j < kPoints; j += 3 * kLanes) product_block<4, 3, S, End::kStore>(p, r, j);
  }
}

// Weights and sizes, padded with zeros, shared by threads.
struct Packed {
  const BasisLayer& layer;
  int k, pad_k, pad_o, inputs;   // terms in all, with room behind; outputs; inputs of a chunk
  Aligned weight{0}, bias{0};    // [up_to(n_out, 4), pad_k], [up_to(n_out, 4)]

  explicit Packed(const BasisLayer& l) : layer(l), k(l.n_in * l.terms), pad_k(up_to(l.n_in, kInputs) * l.terms), pad_o(up_to(l.n_out, 4)) {
    inputs = std::max(kInputs, kChunk / l.terms / kInputs * kInputs);
    weight = Aligned(sizeof(float) * pad_o * pad_k);
    bias = Aligned(sizeof(float) * pad_o);
    for (int o = 0; o < l.n_out; ++o) {
      memcpy(weights() + static_cast<size_t>(o) * pad_k, l.weight + static_cast<size_t>(o) * k, sizeof(float) * k);
      reinterpret_cast<float*>(bias.data())[o] = l.bias[o];
    }
  }
  float* weights() const { return reinterpret_cast<float*>(weight.data()); }
  const float* biases() const { return reinterpret_cast<const float*>(bias.data()); }
  int chunk_inputs(int i) const { return std::min(inputs, layer.n_in - i); }
};

// body(basis, terms of an input), both known to the compiler for up to `N` bumps with a SiLU, so that it unrolls them.
template <int N = kBumps, class Body>
FF_LANE void with_basis(const BasisLayer& l, Body body) {
  if constexpr (N == 0) {
    body(l.basis, l.terms);
  } else if (l.basis.kind == kGaussians && l.basis.count == N && l.terms == N + 1) {
    body(Basis{kGaussians, N, l.basis.first, l.basis.spacing}, N + 1);
  } else {
    with_basis<N - 1>(l, body);
  }
}

// The scratch of one thread; samples are columns.
class Tile {
 public:
  explicit Tile(const Packed& p) : p_(p) {
    int in = up_to(p.layer.n_in, kInputs), terms = p.inputs * p.layer.terms;
    size_t columns = 2 * static_cast<size_t>(in) + p.pad_o + 2 * static_cast<size_t>(terms);
    storage_ = Aligned(sizeof(float) * kPoints * columns);
    x = reinterpret_cast<float*>(storage_.data());
    d_x = x + static_cast<size_t>(in) * kPoints;
    out = d_x + static_cast<size_t>(in) * kPoints;
    basis = out + static_cast<size_t>(p.pad_o) * kPoints;
    d_basis = basis + static_cast<size_t>(terms) * kPoints;
  }

  // Terms of inputs i .. of this chunk.
  void evaluate(int i) {
    const BasisLayer& l = p_.layer;
    int n = p_.chunk_inputs(i);
    with_basis(l, [&](const Basis& b, int terms) __attribute__((always_inline)) {
      for (int input = i; input < i + n; ++input) {
        const float* z_row = x + input * kPoints;
        float *to = basis + (input - i) * terms * kPoints, *s_row = d_x + input * kPoints;
        for (int j = 0; j < kPoints; j += kLanes) {
          FloatV z = load(z_row + j);
          basis_terms(b, knots(input), z, [&](int g, FloatV value) { store(to + g * kPoints + j, value); });
          if (terms == b.count) continue;
          FloatV most = splat<FloatV>(86.0f), s = reciprocal(splat<FloatV>(1.0f) + exp_within(minimum(maximum(-z, -most), most)));
          store(to + b.count * kPoints + j, z * s);
          store(s_row + j, s);  // until there is a cotangent
        }
      }
    });
  }

  // Cotangents of the chunk's inputs, from those of its terms.
  void evaluate_vjp(int i) {
    const BasisLayer& l = p_.layer;
    int n = p_.chunk_inputs(i);
    with_basis(l, [&](const Basis& b, int terms) __attribute__((always_inline)) {
      for (int input = i; input < i + n; ++input) {
        const float *z_row = x + input * kPoints, *phi = basis + (input - i) * terms * kPoints, *d_phi = d_basis + (phi - basis);
        float* d_row = d_x + input * kPoints;
        for (int j = 0; j < kPoints; j += kLanes) {
          auto term = [&](int g) { return load(phi + g * kPoints + j); };
          auto cotangent = [&](int g) { return load(d_phi + g * kPoints + j); };
          FloatV d = basis_vjp(b, knots(input), load(z_row + j), term, cotangent);
          if (terms > b.count) {
            FloatV s = load(d_row + j), slope = fma(term(b.count), splat<FloatV>(1.0f) - s, s);
            d = fma(cotangent(b.count), slope, d);
          }
          store(d_row + j, d);
        }
      }
    });
  }

  float *x, *d_x;         // [inputs, kPoints]; where there is no cotangent yet, the sigmoid of x, if there is a SiLU
  float* out;             // [pad(out), kPoints], values or their cotangents
  float *basis, *d_basis;  // [terms of a chunk, kPoints]

 private:
  const float* knots(int i) const {
    const BasisLayer& l = p_.layer;
    return l.knots ? l.knots + static_cast<int64_t>(i) * l.basis.knots() * kSplineRow : nullptr;
  }

  const Packed& p_;
  Aligned storage_{0};
};

}  // namespace

void basis_layer_forward(const BasisLayer& l, float* out) {
  Packed packed(l);
  int n_threads = threads_for(l.n, 2 * kPoints);
#pragma omp parallel num_threads(n_threads)
  {
    Tile tile(packed);
    Range mine = share(l.n, omp_get_thread_num(), omp_get_num_threads(), kPoints);
    for (int64_t at = mine.begin; at < mine.end; at += kPoints) {
      int n = static_cast<int>(std::min<int64_t>(kPoints, mine.end - at));
      rows_to_columns(l.x + at * l.n_in, l.n_in, n, tile.x, kPoints);
      for (int o = 0; o < packed.pad_o; ++o) std::fill_n(tile.out + o * kPoints, kPoints, packed.biases()[o]);
      for (int i = 0; i < l.n_in; i += packed.inputs) {
        tile.evaluate(i);
        along_samples<Start::kAdd>({packed.weights() + i * l.terms, packed.pad_k, 1, tile.basis, kPoints, tile.out, kPoints, packed.chunk_inputs(i) * l.terms}, packed.pad_o);
      }
      columns_to_rows(tile.out, kPoints, l.n_out, n, out + at * l.n_out);
    }
  }
}

void basis_layer_backward(const BasisLayer& l, const float* d_out, float* d_x, float* d_weight, float* d_bias) {
  Packed packed(l);
  int n_threads = threads_for(l.n, 2 * kPoints);
  int columns = padded(l.n_out);
  size_t of_weights = static_cast<size_t>(packed.pad_k) * columns, size = of_weights + columns;
  std::vector<Aligned> sums(n_threads);  // [pad(k) + 1, columns] each, the last row of the bias
#pragma omp parallel num_threads(n_threads)
  {
    int thread = omp_get_thread_num();
    Tile tile(packed);
    sums[thread] = Aligned(sizeof(float) * size);
    float* sum = reinterpret_cast<float*>(sums[thread].data());
    Aligned rows(sizeof(float) * kPoints * columns);
    float* padded_rows = reinterpret_cast<float*>(rows.data());
    Range mine = share(l.n, thread, omp_get_num_threads(), kPoints);
    for (int64_t at = mine.begin; at < mine.end; at += kPoints) {
      int n = static_cast<int>(std::min<int64_t>(kPoints, mine.end - at));
      const float* d = d_out + at * l.n_out;
      rows_to_columns(l.x + at * l.n_in, l.n_in, n, tile.x, kPoints);
      rows_to_columns(d, l.n_out, n, tile.out, kPoints);
      const float* d_rows = l.n_out == columns ? d : padded_rows;
      if (d_rows != d) {
        for (int r = 0; r < n; ++r) memcpy(padded_rows + r * columns, d + static_cast<int64_t>(r) * l.n_out, sizeof(float) * l.n_out);
      }
      add_rows(d_rows, columns, n, columns, sum + of_weights);
      for (int i = 0; i < l.n_in; i += packed.inputs) {
        int terms = up_to(packed.chunk_inputs(i), kInputs) * l.terms;  // those of inputs that do not exist go nowhere
        tile.evaluate(i);
        product_add({tile.basis, kPoints, 1, d_rows, columns, sum + static_cast<size_t>(i) * l.terms * columns, columns, n}, terms, columns);
        if (!d_x) continue;
        along_samples<Start::kZero>({packed.weights() + i * l.terms, 1, packed.pad_k, tile.out, kPoints, tile.d_basis, kPoints, l.n_out}, terms);
        tile.evaluate_vjp(i);
      }
      if (d_x) columns_to_rows(tile.d_x, kPoints, l.n_in, n, d_x + at * l.n_in);
    }
  }
  auto total = [&](size_t at) {
    float t = 0;
    for (const Aligned& of : sums) t += reinterpret_cast<const float*>(of.data())[at];
    return t;
  };
  for (int o = 0; o < l.n_out; ++o) {
    d_bias[o] = total(of_weights + o);
    for (int k = 0; k < packed.k; ++k) d_weight[static_cast<size_t>(o) * packed.k + k] = total(static_cast<size_t>(k) * columns + o);
  }
}

}  // namespace fieldfit
