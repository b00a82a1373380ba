// A perceptron in float32 over a tile of samples, by a whole block: activations stay in shared memory, weights pass
// through it in tiles. Activations are feature-major, [features, kStride], so that a thread reads its samples as one
// vector.
#pragma once
#include "../activation.h"
#include "device.cuh"

#ifndef FF_SIDE  // a block has FF_SIDE^2 threads
#define FF_SIDE 16
#endif
#ifndef FF_ROWS  // samples of a tile, a multiple of FF_SIDE and of 4
#define FF_ROWS 32
#endif

namespace fieldfit {

constexpr int kSide = FF_SIDE;
constexpr int kThreads = kSide * kSide;
constexpr int kRows = FF_ROWS;
constexpr int kStride = kRows + 4;
constexpr int kOwnRows = kRows / kSide;
constexpr int kColumns = 4 * kSide;  // outputs of one pass
constexpr int kDepth = 16;           // inputs of one weight tile
constexpr int kTileStride = kColumns + 4;
constexpr int kTileSize = kDepth * kTileStride;

constexpr int kMaxLayers = 16;

// Layers as the CPU kernels have them: per layer W [out, in], then b [out] if bias.
struct MlpLayers {
  int layers;
  int dims[kMaxLayers + 1];
  int activation, output_activation;
  int bias;

  FF_LANE int kind(int layer) const { return layer + 1 == layers ? output_activation : activation; }
  FF_LANE int size(int layer) const { return dims[layer + 1] * (dims[layer] + (bias ? 1 : 0)); }
  FF_LANE int widest() const {
    int w = 0;
    for (int l = 0; l <= layers; ++l) w = dims[l] > w ? dims[l] : w;
    return w;
  }
};

// Rows of x, each with a row of aux behind it where there is one.
struct MlpRows {
  int n;
  const float* x;
  int x_dim;
  const float* aux;      // or null
  const int32_t* index;  // which row of aux, or null for the sample's own
  int aux_dim, aux_rows;

  FF_LANE float at(int64_t i, int k) const {
    if (i >= n) return 0.0f;
    if (k < x_dim) return x[i * x_dim + k];
    if (k >= x_dim + aux_dim) return 0.0f;
    int64_t row = index ? index[i] : i;
    row = row < 0 ? 0 : row >= aux_rows ? aux_rows - 1 : row;
    return aux[row * aux_dim + (k - x_dim)];
  }
};

// Samples first .. first + kRows as columns of `to`; those past the end are zeros.
FF_LANE void load_tile(const MlpRows& rows, int64_t first, int dim, float* to) {
  for (int e = static_cast<int>(threadIdx.x); e < kRows * dim; e += kThreads) {
    int r = e / dim, k = e % dim;
    to[k * kStride + r] = rows.at(first + r, k);
  }
}

// finish(j, r, value) for value = bias_j + sum_k w(j, k) in(k, r), with w(j, k) at w[j * stride_out + k * stride_in].
template <class Finish>
FF_LANE void product(const float* w, int stride_out, int stride_in, const float* bias, int n_in, int n_out,
                     const float* in, float* tile, Finish finish) {
  int column = static_cast<int>(threadIdx.x) % kSide, row = static_cast<int>(threadIdx.x) / kSide;
  for (int first = 0; first < n_out; first += kColumns) {
    float acc[4][kOwnRows];
    for (int c = 0; c < 4; ++c) {
      int j = first + column * 4 + c;
      for (int r = 0; r < kOwnRows; ++r) acc[c][r] = bias && j < n_out ? bias[j] : 0.0f;
    }
    for (int begin = 0; begin < n_in; begin += kDepth) {
      __syncthreads();  // `in` is complete, and nobody reads the tile any more
      for (int e = static_cast<int>(threadIdx.x); e < kDepth * kColumns; e += kThreads) {
        int k = stride_in == 1 ? e % kDepth : e / kColumns;
        int j = stride_in == 1 ? e / kDepth : e % kColumns;
        bool inside = begin + k < n_in && first + j < n_out;
        tile[k * kTileStride + j] = inside ? w[(first + j) * stride_out + (begin + k) * stride_in] : 0.0f;
      }
      __syncthreads();
      int depth = n_in - begin < kDepth ? n_in - begin : kDepth;
      for (int k = 0; k < depth; ++k) {
        const float* own = in + (begin + k) * kStride + row * kOwnRows;
        float4 b = *reinterpret_cast<const float4*>(tile + k * kTileStride + column * 4);
        FF_UNROLL
        for (int r = 0; r < kOwnRows; ++r) {
          acc[0][r] = fma(b.x, own[r], acc[0][r]);
          acc[1][r] = fma(b.y, own[r], acc[1][r]);
          acc[2][r] = fma(b.z, own[r], acc[2][r]);
          acc[3][r] = fma(b.w, own[r], acc[3][r]);
        }
      }
    }
    FF_UNROLL
    for (int c = 0; c < 4; ++c) {
      int j = first + column * 4 + c;
      if (j >= n_out) continue;
      FF_UNROLL
      for (int r = 0; r < kOwnRows; ++r) finish(j, row * kOwnRows + r, acc[c][r]);
    }
  }
}

// All layers on a tile in `from`; finish(j, r, value) gets the output. `from` and `other` are overwritten in turns.
template <class Finish>
FF_LANE void mlp_tile(const MlpLayers& mlp, const float* params, float* from, float* other, float* tile,
                      Finish finish) {
  for (int l = 0; l < mlp.layers; ++l) {
    int in = mlp.dims[l], out = mlp.dims[l + 1], kind = mlp.kind(l);
    const float* bias = mlp.bias ? params + in * out : nullptr;
    bool last = l + 1 == mlp.layers;
    product(params, in, 1, bias, in, out, from, tile, [&](int j, int r, float z) {
      float h = activate(kind, z);
      if (last) {
        finish(j, r, h);
      } else {
        other[j * kStride + r] = h;
      }
    });
    params += mlp.size(l);
    float* swap = from;
    from = other;
    other = swap;
  }
}

// to[j, k] += sum_r d(j, r) h(k, r), or = where it is the block's first tile.
FF_LANE void weight_gradient(const float* d, const float* h, int n_out, int n_in, float* to, bool first) {
  int column = static_cast<int>(threadIdx.x) % kSide, row = static_cast<int>(threadIdx.x) / kSide;
  for (int jk = 0, inner = (n_in + kColumns - 1) / kColumns; jk < inner * ((n_out + kColumns - 1) / kColumns); ++jk) {
    int j0 = jk / inner * kColumns + row, k0 = jk % inner * kColumns + column;
    float acc[4][4] = {};
    for (int r = 0; r < kRows; r += 4) {
      float4 a[4], b[4];
      FF_UNROLL
      for (int i = 0; i < 4; ++i) {
        int j = j0 + i * kSide, k = k0 + i * kSide;
        a[i] = *reinterpret_cast<const float4*>(d + (j < n_out ? j : n_out - 1) * kStride + r);
        b[i] = *reinterpret_cast<const float4*>(h + (k < n_in ? k : n_in - 1) * kStride + r);
      }
      FF_UNROLL
      for (int i = 0; i < 4; ++i) {
        FF_UNROLL
        for (int m = 0; m < 4; ++m) {
          acc[i][m] = fma(a[i].x, b[m].x, fma(a[i].y, b[m].y, fma(a[i].z, b[m].z, fma(a[i].w, b[m].w, acc[i][m]))));
        }
      }
    }
    FF_UNROLL
    for (int i = 0; i < 4; ++i) {
      FF_UNROLL
      for (int m = 0; m < 4; ++m) {
        int j = j0 + i * kSide, k = k0 + m * kSide;
        if (j >= n_out || k >= n_in) continue;
        float* at = to + j * n_in + k;
        *at = first ? acc[i][m] : *at + acc[i][m];
      }
    }
  }
}

FF_LANE void bias_gradient(const float* d, int n_out, float* to, bool first) {
  for (int j = static_cast<int>(threadIdx.x); j < n_out; j += kThreads) {
    float sum = first ? 0.0f : to[j];
    for (int r = 0; r < kRows; ++r) sum += d[j * kStride + r];
    to[j] = sum;
  }
}

}  // namespace fieldfit
