// The perceptron on a tile of samples that stays in the first-level cache: register-blocked matrix products whose lanes
// are output features (forward, d_x) or input columns (d_W), so that one micro-kernel serves all three.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "../activation.h"
#include "kernels.h"

namespace fieldfit {

constexpr int kTile = 96;  // samples; a multiple of every row block below
constexpr int kVectors = kLanes == 16 ? 4 : 2;
constexpr int kRows = 6;

inline int padded(int dim) { return (dim + kLanes - 1) / kLanes * kLanes; }

// c[R, V lanes] (+)= a b, with a(r, k) at a[r * ar + k * ak] and b row-major; `init` is one row to start from.
template <int R, int V>
FF_LANE void product_block(const float* a, int64_t ar, int64_t ak, const float* b, int ldb, float* c, int ldc, int k_end,
                           const float* init, bool accumulate) {
  FloatV acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      acc[r][v] = accumulate ? load(c + r * ldc + v * kLanes) : init ? load(init + v * kLanes) : FloatV{};
    }
  }
  for (int k = 0; k < k_end; ++k) {
    FloatV bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load(b + k * ldb + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      FloatV av = splat<FloatV>(a[r * ar + k * ak]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + r * ldc + v * kLanes, acc[r][v]);
  }
}

// R rows at a time over all columns (a multiple of kLanes); rows is a multiple of R.
template <int R, int V>
inline void product_columns(int rows, int columns, const float* a, int64_t ar, int64_t ak, const float* b, int ldb,
                            float* c, int ldc, int k_end, const float* init, bool accumulate) {
  int j = 0;
  for (; j + V * kLanes <= columns; j += V * kLanes) {
    for (int r = 0; r < rows; r += R) {
      product_block<R, V>(a + r * ar, ar, ak, b + j, ldb, c + static_cast<int64_t>(r) * ldc + j, ldc, k_end,
                          init ? init + j : nullptr, accumulate);
    }
  }
  for (; j < columns; j += kLanes) {
    for (int r = 0; r < rows; r += R) {
      product_block<R, 1>(a + r * ar, ar, ak, b + j, ldb, c + static_cast<int64_t>(r) * ldc + j, ldc, k_end,
                          init ? init + j : nullptr, accumulate);
    }
  }
}

inline void product(int rows, int columns, const float* a, int64_t ar, int64_t ak, const float* b, int ldb, float* c,
                    int ldc, int k_end, const float* init, bool accumulate) {
  if (columns == kLanes) {
    product_columns<12, 1>(rows, columns, a, ar, ak, b, ldb, c, ldc, k_end, init, accumulate);
  } else {
    product_columns<kRows, kVectors>(rows, columns, a, ar, ak, b, ldb, c, ldc, k_end, init, accumulate);
  }
}

// Weights in the two orders that the passes read, padded with zeros to whole vectors.
struct PackedMlp {
  const Mlp& mlp;
  int pad[kMaxLayers + 1];
  std::vector<float> storage;
  const float* forward[kMaxLayers];   // [in, pad(out)]
  const float* backward[kMaxLayers];  // [out, pad(in)]
  const float* bias[kMaxLayers];      // [pad(out)] or null

  explicit PackedMlp(const Mlp& m) : mlp(m) {
    size_t total = 0;
    for (int l = 0; l <= m.layers; ++l) pad[l] = padded(m.dims[l]);
    for (int l = 0; l < m.layers; ++l) {
      total += static_cast<size_t>(m.dims[l]) * pad[l + 1] + static_cast<size_t>(m.dims[l + 1]) * pad[l] + pad[l + 1];
    }
    storage.assign(total, 0.0f);
    float* to = storage.data();
    const float* from = m.params;
    for (int l = 0; l < m.layers; ++l) {
      int in = m.dims[l], out = m.dims[l + 1];
      float* f = to;
      float* b = f + static_cast<size_t>(in) * pad[l + 1];
      float* bias_row = b + static_cast<size_t>(out) * pad[l];
      to = bias_row + pad[l + 1];
      for (int j = 0; j < out; ++j) {
        for (int k = 0; k < in; ++k) {
          f[static_cast<size_t>(k) * pad[l + 1] + j] = from[static_cast<size_t>(j) * in + k];
          b[static_cast<size_t>(j) * pad[l] + k] = from[static_cast<size_t>(j) * in + k];
        }
      }
      from += static_cast<size_t>(in) * out;
      bias[l] = nullptr;
      if (m.bias) {
        memcpy(bias_row, from, sizeof(float) * out);
        bias[l] = bias_row;
        from += out;
      }
      forward[l] = f;
      backward[l] = b;
    }
  }
};

// Activations of one tile: h[0] is the input, h[l] the output of layer l; z[l] what its activation saw.
struct MlpTile {
  std::vector<float> storage;
  float* h[kMaxLayers + 1];
  float* z[kMaxLayers + 1];
  float* gradient[2];

  MlpTile(const PackedMlp& p, bool keep) {
    int layers = p.mlp.layers;
    int widest = *std::max_element(p.pad, p.pad + layers + 1);
    bool keep_z = keep && needs_input(p.mlp.activation);
    size_t total = 0;
    for (int l = 0; l <= layers; ++l) total += static_cast<size_t>(kTile) * p.pad[l] * (keep_z ? 2 : 1);
    storage.assign(total + (keep ? 2 * static_cast<size_t>(kTile) * widest : 0) + 16, 0.0f);
    uintptr_t start = (reinterpret_cast<uintptr_t>(storage.data()) + 63) / 64 * 64;
    float* to = reinterpret_cast<float*>(start);
    for (int l = 0; l <= layers; ++l) {
      h[l] = to;
      to += static_cast<size_t>(kTile) * p.pad[l];
      z[l] = h[l];
      if (keep_z) {
        z[l] = to;
        to += static_cast<size_t>(kTile) * p.pad[l];
      }
    }
    gradient[0] = to;
    gradient[1] = keep ? to + static_cast<size_t>(kTile) * widest : to;
  }

  // Whether the vjp reads the activation's input, and not only the sign of its output.
  static bool needs_input(int activation) { return activation == kSilu || activation == kSine; }
};

inline void activate_rows(int kind, int64_t n, const float* z, float* h) {
  if (kind == kIdentity) {
    if (h != z) memcpy(h, z, sizeof(float) * n);
    return;
  }
  if (kind == kRelu) {
    for (int64_t i = 0; i < n; i += kLanes) store(h + i, maximum(load(z + i), FloatV{}));
    return;
  }
  for (int64_t i = 0; i < n; i += kLanes) store(h + i, activate(kind, load(z + i)));
}

// Samples begin .. begin + n into rows of pad(in) floats: x, then the auxiliary row, then zeros.
inline void load_rows(const MlpInput& in, int64_t begin, int n, int pad, float* rows) {
  for (int i = 0; i < n; ++i) {
    float* row = rows + static_cast<size_t>(i) * pad;
    int64_t s = begin + i;
    memcpy(row, in.x + s * in.x_dim, sizeof(float) * in.x_dim);
    if (in.aux) memcpy(row + in.x_dim, in.aux + (in.index ? in.index[s] : s) * in.aux_dim, sizeof(float) * in.aux_dim);
  }
}

inline int round_rows(int n) { return (n + 11) / 12 * 12; }

// All layers on rows already in tile.h[0].
inline void mlp_tile_forward(const PackedMlp& p, MlpTile& t, int n) {
  int rows = round_rows(n), layers = p.mlp.layers;
  for (int l = 0; l < layers; ++l) {
    product(rows, p.pad[l + 1], t.h[l], p.pad[l], 1, p.forward[l], p.pad[l + 1], t.z[l + 1], p.pad[l + 1], p.mlp.dims[l],
            p.bias[l], false);
    int kind = l + 1 == layers ? p.mlp.output_activation : p.mlp.activation;
    activate_rows(kind, static_cast<int64_t>(rows) * p.pad[l + 1], t.z[l + 1], t.h[l + 1]);
  }
}

}  // namespace fieldfit
