// Perceptron, forward and backward, over tiles of samples. The backward pass computes a tile's activations again while it
// is in the cache, which is cheaper than to have kept them in memory.
#include "mlp_tile.h"
#include "threads.h"

namespace fieldfit {

void mlp_forward(const Mlp& mlp, const MlpInput& in, float* out) {
  PackedMlp packed(mlp);
  int out_dim = mlp.dims[mlp.layers], out_pad = packed.pad[mlp.layers];
  int n_threads = threads_for(in.n, 4 * kTile);
#pragma omp parallel num_threads(n_threads)
  {
    MlpTile tile(packed, false);
    Range range = share(in.n, omp_get_thread_num(), omp_get_num_threads(), kTile);
    for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
      int n = static_cast<int>(std::min<int64_t>(kTile, range.end - begin));
      load_rows(in, begin, n, packed.pad[0], tile.h[0]);
      mlp_tile_forward(packed, tile, n);
      const float* rows = tile.h[mlp.layers];
      for (int i = 0; i < n; ++i) memcpy(out + (begin + i) * out_dim, rows + i * out_pad, sizeof(float) * out_dim);
    }
  }
}

namespace {

// Gradients of the padded weights of one thread: per layer d_W as [pad(in), pad(out)], then d_b [pad(out)].
struct Gradients {
  std::vector<float> storage;
  float* weights[kMaxLayers];
  float* bias[kMaxLayers];

  void allocate(const PackedMlp& p) {
    size_t total = 0;
    for (int l = 0; l < p.mlp.layers; ++l) total += static_cast<size_t>(p.pad[l] + 1) * p.pad[l + 1];
    storage.assign(total, 0.0f);
    float* to = storage.data();
    for (int l = 0; l < p.mlp.layers; ++l) {
      weights[l] = to;
      bias[l] = to + static_cast<size_t>(p.pad[l]) * p.pad[l + 1];
      to = bias[l] + p.pad[l + 1];
    }
  }
};

void tile_backward(const PackedMlp& p, MlpTile& t, int n, Gradients& g, bool input_gradient) {
  const Mlp& mlp = p.mlp;
  int rows = round_rows(n);
  float* d = t.gradient[0];
  float* d_next = t.gradient[1];
  for (int l = mlp.layers - 1; l >= 0; --l) {
    int in_pad = p.pad[l], out_pad = p.pad[l + 1];
    int kind = l + 1 == mlp.layers ? mlp.output_activation : mlp.activation;
    if (kind != kIdentity) {
      for (int64_t i = 0; i < static_cast<int64_t>(rows) * out_pad; i += kLanes) {
        store(d + i, activate_vjp(kind, load(t.z[l + 1] + i), load(t.h[l + 1] + i), load(d + i)));
      }
    }
    // d_W^T [in, out] = h^T d, rows of h past n are multiplied by zero rows of d.
    if (out_pad == kLanes) {
      product_columns<4, 1>(in_pad, out_pad, t.h[l], 1, in_pad, d, out_pad, g.weights[l], out_pad, n, nullptr, true);
    } else {
      product_columns<4, kVectors>(in_pad, out_pad, t.h[l], 1, in_pad, d, out_pad, g.weights[l], out_pad, n, nullptr, true);
    }
    if (mlp.bias) {
      for (int j = 0; j < out_pad; j += kLanes) {
        FloatV s = load(g.bias[l] + j);
        for (int i = 0; i < n; ++i) s = s + load(d + i * out_pad + j);
        store(g.bias[l] + j, s);
      }
    }
    if (l > 0 || input_gradient) {
      product(rows, in_pad, d, out_pad, 1, p.backward[l], in_pad, d_next, in_pad, mlp.dims[l + 1], nullptr, false);
      std::swap(d, d_next);
    }
  }
  t.gradient[0] = d;
  t.gradient[1] = d_next;
}

}  // namespace

void mlp_backward(const Mlp& mlp, const MlpInput& in, const float* d_out, float* d_x, float* d_params) {
  PackedMlp packed(mlp);
  int out_dim = mlp.dims[mlp.layers], out_pad = packed.pad[mlp.layers], in_pad = packed.pad[0];
  int n_threads = threads_for(in.n, 4 * kTile);
  std::vector<Gradients> gradients(n_threads);
#pragma omp parallel num_threads(n_threads)
  {
    MlpTile tile(packed, true);
    Gradients& g = gradients[omp_get_thread_num()];
    g.allocate(packed);
    Range range = share(in.n, omp_get_thread_num(), omp_get_num_threads(), kTile);
    for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
      int n = static_cast<int>(std::min<int64_t>(kTile, range.end - begin));
      load_rows(in, begin, n, in_pad, tile.h[0]);
      mlp_tile_forward(packed, tile, n);
      float* d = tile.gradient[0];
      int rows = round_rows(n);
      memset(d, 0, sizeof(float) * rows * out_pad);
      for (int i = 0; i < n; ++i) memcpy(d + i * out_pad, d_out + (begin + i) * out_dim, sizeof(float) * out_dim);
      tile_backward(packed, tile, n, g, d_x != nullptr);
      if (d_x) {
        const float* d_in = tile.gradient[0];
        for (int i = 0; i < n; ++i) memcpy(d_x + (begin + i) * in.x_dim, d_in + i * in_pad, sizeof(float) * in.x_dim);
      }
    }
  }
  float* to = d_params;
  for (int l = 0; l < mlp.layers; ++l) {
    int in_dim = mlp.dims[l], out = mlp.dims[l + 1], pad = packed.pad[l + 1];
    for (int j = 0; j < out; ++j) {
      for (int k = 0; k < in_dim; ++k) {
        float s = 0;
        for (const Gradients& g : gradients) s += g.storage.empty() ? 0.0f : g.weights[l][static_cast<size_t>(k) * pad + j];
        to[static_cast<size_t>(j) * in_dim + k] = s;
      }
    }
    to += static_cast<size_t>(in_dim) * out;
    if (mlp.bias) {
      for (int j = 0; j < out; ++j) {
        float s = 0;
        for (const Gradients& g : gradients) s += g.storage.empty() ? 0.0f : g.bias[l][j];
        *to++ = s;
      }
    }
  }
}

}  // namespace fieldfit
