// Perceptron on tensor cores: halves with 32-bit sums, forward and backward. The backward pass leaves inputs and
// cotangents of every layer in `scratch`, transposed as the weight gradients' products read them; those are then sums
// over samples. Cotangents are scaled by a power of two so that the largest of d_out is near 2^7, and scaled back at
// the end.
#include "mlp_block.cuh"
#include "network.cuh"

#ifndef FF_IN
#define FF_IN 32
#define FF_WIDTH 64
#define FF_HIDDEN 2
#define FF_OUT 4
#define FF_ACTIVATION 1
#define FF_OUTPUT_ACTIVATION 0
#define FF_BIAS 0
#endif

namespace fieldfit {
namespace {

using Net = Network<FF_IN, FF_WIDTH, FF_HIDDEN, FF_OUT, FF_ACTIVATION, FF_OUTPUT_ACTIVATION, FF_BIAS != 0>;

constexpr bool kKeepZ = FF_ACTIVATION == kSilu || FF_ACTIVATION == kSine;

// Where fragments of layer l begin, for `tiles` tiles of 16 samples: inputs h of each layer, then cotangents d of each,
// then z.
struct Scratch {
  uint4* data;
  int64_t tiles;

  FF_LANE uint4* at(int64_t before, int of_layer, int64_t tile, int i) const {
    return data + ((tiles * before + tile * of_layer + i) * 32 + lane_index());
  }
  FF_LANE uint4* h(int l, int64_t tile, int i) const {
    return l == 0 ? at(0, Net::kIn, tile, i) : at(Net::kIn + (l - 1) * Net::kWidth, Net::kWidth, tile, i);
  }
  FF_LANE uint4* d(int l, int64_t tile, int i) const {  // of the output of layer l
    constexpr int before = Net::kIn + FF_HIDDEN * Net::kWidth;
    return at(before + l * Net::kWidth, l == FF_HIDDEN ? Net::kOut : Net::kWidth, tile, i);
  }
  FF_LANE uint4* z(int l, int64_t tile, int i) const {  // of hidden layer l = 1 ...
    constexpr int before = Net::kIn + 2 * FF_HIDDEN * Net::kWidth + Net::kOut;
    return at(before + (l - 1) * Net::kWidth, Net::kWidth, tile, i);
  }
};

FF_LANE float loss_scale(const float* largest, bool inverse) {
#if defined(FF_SHIM)
  int exponent = static_cast<int>(shim::bits(*largest) >> 23);
#else
  int exponent = static_cast<int>(__float_as_uint(*largest) >> 23);
#endif
  int scaled = 261 - exponent;  // the exponent, biased, of 2^7 over the power of two of `largest`
  scaled = scaled < 1 ? 1 : scaled > 253 ? 253 : scaled;
  return bits_to_float((inverse ? 254 - scaled : scaled) << 23);
}

FF_LANE void load_fragments(const MlpRows& rows, int64_t tile, Fragment* a) {
  int64_t row = tile * 16 + fragment_row();
  // Whole tiles of inputs that lie in pairs; the same for all threads.
  if (rows.x_dim == FF_IN && FF_IN % 16 == 0 && (reinterpret_cast<uintptr_t>(rows.x) & 7u) == 0u &&
      (tile + 1) * 16 <= rows.n) {
    FF_UNROLL
    for (int i = 0; i < Net::kIn; ++i) {
      FF_UNROLL
      for (int j = 0; j < 4; ++j) {
        const float* at = rows.x + (row + (j & 1) * 8) * FF_IN + i * 16 + fragment_column() + (j >> 1) * 8;
        float2 pair = *reinterpret_cast<const float2*>(at);
        a[i].w[j] = pack_halves(pair.x, pair.y);
      }
    }
    return;
  }
  FF_UNROLL
  for (int i = 0; i < Net::kIn; ++i) {
    FF_UNROLL
    for (int j = 0; j < 4; ++j) {
      int k = i * 16 + fragment_column() + (j >> 1) * 8;
      a[i].w[j] = pack_halves(rows.at(row + (j & 1) * 8, k), rows.at(row + (j & 1) * 8, k + 1));
    }
  }
}

}  // namespace

// Shared memory: Net's weights.
FF_KERNEL(128, 3)
mlp_tensor_forward(int n, const float* params, const float* x, int x_dim, const float* aux, int aux_dim, int aux_rows,
                   const int32_t* index, float* out) {
  FF_SHARED(uint2, weights);
  Net::load(params, weights);
  __syncthreads();
  MlpRows rows{n, x, x_dim, aux, index, aux_dim, aux_rows};
  int64_t tiles = (static_cast<int64_t>(n) + 15) / 16;
  for (int64_t tile = thread_index() >> 5; tile < tiles; tile += thread_count() >> 5) {
    Fragment a[Net::kIn];
    load_fragments(rows, tile, a);
    auto ignore = [](int, int, const Fragment&, const Fragment&) {};
    Net::forward(a, weights, ignore, [&](int m, float* z) {
      FF_UNROLL
      for (int i = 0; i < 4; ++i) {
        int64_t row = tile * 16 + fragment_row() + (i >> 1) * 8;
        int j = m * 8 + fragment_column() + (i & 1);
        if (row < n && j < FF_OUT) out[row * FF_OUT + j] = activate(FF_OUTPUT_ACTIVATION, z[i]);
      }
    });
  }
}

// Writes d_x, unless it is null, and the scratch. Shared memory: Net's weights, then those of its layers transposed.
FF_KERNEL(128, FF_WIDTH > 64 ? 2 : 4)
mlp_tensor_backward(int n, const float* params, const float* x, int x_dim, const float* aux, int aux_dim, int aux_rows,
                    const int32_t* index, const float* d_out, const float* largest, float* d_x, uint4* scratch) {
  FF_SHARED(uint2, weights);
  uint2* turned = weights + Net::kWeights + (Net::kBias + 1) / 2;
  constexpr int kTurnedFirst = Net::kWidth * Net::kIn * 64;
  Net::load(params, weights);
  pack_layer(params, FF_IN, FF_WIDTH, Net::kWidth, 2 * Net::kIn, true, turned);
  for (int l = 1; l < FF_HIDDEN; ++l) {
    uint2* to = turned + kTurnedFirst + (l - 1) * Net::kMiddle;
    pack_layer(Net::layer(params, l), FF_WIDTH, FF_WIDTH, Net::kWidth, 2 * Net::kWidth, true, to);
  }
  uint2* last = turned + kTurnedFirst + (FF_HIDDEN - 1) * Net::kMiddle;
  pack_layer(Net::layer(params, FF_HIDDEN), FF_WIDTH, FF_OUT, Net::kOut, 2 * Net::kWidth, true, last);
  __syncthreads();
  MlpRows rows{n, x, x_dim, aux, index, aux_dim, aux_rows};
  int64_t tiles = (static_cast<int64_t>(n) + 15) / 16;
  Scratch kept{scratch, tiles};
  float scale = loss_scale(largest, false), unscale = loss_scale(largest, true);
  for (int64_t tile = thread_index() >> 5; tile < tiles; tile += thread_count() >> 5) {
    Fragment a[Net::kIn], d_last[Net::kOut];
    load_fragments(rows, tile, a);
    FF_UNROLL
    for (int i = 0; i < Net::kIn; ++i) *kept.h(0, tile, i) = transpose_tiles(a[i]);
    FF_UNROLL
    for (int i = 0; i < Net::kOut; ++i) d_last[i] = Fragment{{0u, 0u, 0u, 0u}};
    auto keep = [&](int l, int i, const Fragment& h, const Fragment& z) {
      *kept.h(l, tile, i) = transpose_tiles(h);
      if constexpr (kKeepZ) *kept.z(l, tile, i) = uint4{z.w[0], z.w[1], z.w[2], z.w[3]};
    };
    Net::forward(a, weights, keep, [&](int m, float* z) {
      FF_UNROLL
      for (int i = 0; i < 4; ++i) {
        int64_t row = tile * 16 + fragment_row() + (i >> 1) * 8;
        int j = m * 8 + fragment_column() + (i & 1);
        float d = row < n && j < FF_OUT ? d_out[row * FF_OUT + j] * scale : 0.0f;
        z[i] = activate_vjp(FF_OUTPUT_ACTIVATION, z[i], activate(FF_OUTPUT_ACTIVATION, z[i]), d);
      }
      d_last[m >> 1].w[(m & 1) * 2] = pack_halves(z[0], z[1]);
      d_last[m >> 1].w[(m & 1) * 2 + 1] = pack_halves(z[2], z[3]);
    });
    FF_UNROLL
    for (int i = 0; i < Net::kOut; ++i) *kept.d(FF_HIDDEN, tile, i) = transpose_tiles(d_last[i]);

    Fragment d[Net::kWidth];
    // d of the output of layer l - 1 from a product with what came out of layer l.
    auto through_activation = [&](int l, int m, float* c, Fragment* to) {
      Fragment h = transpose_tiles(*kept.h(l, tile, m >> 1)), z = h;
      if constexpr (kKeepZ) {
        uint4 w = *kept.z(l, tile, m >> 1);
        z = Fragment{{w.x, w.y, w.z, w.w}};
      }
      FF_UNROLL
      for (int i = 0; i < 2; ++i) {
        float h0, h1, z0, z1;
        unpack_halves(h.w[(m & 1) * 2 + i], h0, h1);
        unpack_halves(z.w[(m & 1) * 2 + i], z0, z1);
        to[m >> 1].w[(m & 1) * 2 + i] = pack_halves(activate_vjp(FF_ACTIVATION, z0, h0, c[2 * i]),
                                                    activate_vjp(FF_ACTIVATION, z1, h1, c[2 * i + 1]));
      }
      if (m & 1) *kept.d(l - 1, tile, m >> 1) = transpose_tiles(to[m >> 1]);
    };
    warp_product<Net::kOut, 2 * Net::kWidth>(d_last, last, nullptr,
                                             [&](int m, float* c) { through_activation(FF_HIDDEN, m, c, d); });
#if !defined(FF_SHIM)
#pragma unroll 1
#endif
    for (int l = FF_HIDDEN - 1; l >= 1; --l) {
      Fragment next[Net::kWidth];
      warp_product<Net::kWidth, 2 * Net::kWidth>(d, turned + kTurnedFirst + (l - 1) * Net::kMiddle, nullptr,
                                                 [&](int m, float* c) { through_activation(l, m, c, next); });
      FF_UNROLL
      for (int i = 0; i < Net::kWidth; ++i) d[i] = next[i];
    }
    if (!d_x) continue;
    warp_product<Net::kWidth, 2 * Net::kIn>(d, turned, nullptr, [&](int m, float* c) {
      FF_UNROLL
      for (int i = 0; i < 4; ++i) {
        int64_t row = tile * 16 + fragment_row() + (i >> 1) * 8;
        int k = m * 8 + fragment_column() + (i & 1);
        if (row < n && k < x_dim) d_x[row * x_dim + k] = c[i] * unscale;
      }
    });
  }
}

// d_w [out, in] = sum over samples of d h, for one layer's 16 outputs and up to 64 inputs by each warp, over the share
// blockIdx.x of the samples, into slices[blockIdx.x]. Jobs are counted over all layers; blockIdx.y holds four of them.
FF_KERNEL(128, 4)
mlp_tensor_weights(int n, const float* largest, const uint4* scratch, float* slices) {
  int job = static_cast<int>(blockIdx.y) * 4 + warp_index(), l = 0, groups = 0;
  for (; l <= FF_HIDDEN; ++l) {
    groups = ((l == 0 ? Net::kIn : Net::kWidth) + 3) / 4;
    int jobs = groups * (l == FF_HIDDEN ? Net::kOut : Net::kWidth);
    if (job < jobs) break;
    job -= jobs;
  }
  if (l > FF_HIDDEN) return;
  int i = job / groups, first = job % groups * 4;
  int k_tiles = l == 0 ? Net::kIn : Net::kWidth;
  int64_t tiles = (static_cast<int64_t>(n) + 15) / 16;
  Scratch kept{const_cast<uint4*>(scratch), tiles};
  int64_t begin = tiles * blockIdx.x / gridDim.x, end = tiles * (blockIdx.x + 1) / gridDim.x;
  float c[8][4] = {}, bias[4] = {};
  for (int64_t tile = begin; tile < end; ++tile) {
    uint4 d = *kept.d(l, tile, i);
    Fragment a = {{d.x, d.z, d.y, d.w}};  // tiles of the transpose change places too
    FF_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (first + j >= k_tiles) continue;
      uint4 h = *kept.h(l, tile, first + j);
      multiply_add(c[2 * j], a, uint2{h.x, h.y});
      multiply_add(c[2 * j + 1], a, uint2{h.z, h.w});
    }
    if (FF_BIAS && first == 0) multiply_add(bias, a, uint2{0x3c003c00u, 0x3c003c00u});  // a column of ones
  }
  int in = l == 0 ? FF_IN : FF_WIDTH, out = l == FF_HIDDEN ? FF_OUT : FF_WIDTH;
  float unscale = loss_scale(largest, true);
  float* to = slices + static_cast<int64_t>(blockIdx.x) * Net::kSize + (Net::layer(slices, l) - slices);
  FF_UNROLL
  for (int m = 0; m < 8; ++m) {
    FF_UNROLL
    for (int v = 0; v < 4; ++v) {
      int j = i * 16 + fragment_row() + (v >> 1) * 8, k = (first * 2 + m) * 8 + fragment_column() + (v & 1);
      if (j < out && k < in) to[j * in + k] = c[m][v] * unscale;
    }
  }
  if (FF_BIAS && first == 0 && fragment_column() == 0) {
    for (int v = 0; v < 2; ++v) {
      int j = i * 16 + fragment_row() + v * 8;
      if (j < out) to[in * out + j] = bias[2 * v] * unscale;
    }
  }
}

}  // namespace fieldfit
