// A perceptron with equal hidden layers whose products run on tensor cores, sizes known to the compiler. A warp takes
// 16 samples at a time; their activations stay in registers, and all weights of the block in shared memory, as halves
// in the order in which lanes read them.
#pragma once
#include "../activation.h"
#include "tensor.cuh"

namespace fieldfit {

// Right operands of a layer, k_tiles x n_tiles of 16 x 8: the weights w [n_out, n_in] for forward products (k: inputs),
// or their transpose (k: outputs). Zeros beyond the layer's sizes. By all threads of the block.
FF_LANE void pack_layer(const float* w, int n_in, int n_out, int k_tiles, int n_tiles, bool transposed, uint2* to) {
  for (int e = static_cast<int>(threadIdx.x); e < k_tiles * n_tiles * 32; e += static_cast<int>(blockDim.x)) {
    int lane = e & 31, tile = e >> 5;
    int k = tile % k_tiles * 16 + (lane & 3) * 2, n = tile / k_tiles * 8 + (lane >> 2);
    float v[4];
    FF_UNROLL
    for (int i = 0; i < 4; ++i) {
      int at = k + (i & 1) + (i >> 1) * 8;
      int in = transposed ? n : at, out = transposed ? at : n;
      v[i] = in < n_in && out < n_out ? w[out * n_in + in] : 0.0f;
    }
    to[e] = uint2{pack_halves(v[0], v[1]), pack_halves(v[2], v[3])};
  }
}

// finish(n, c) for each of N columns of 8 of a product with K tiles of 16 inputs. Four columns at a time, so that a
// matrix operation need not wait for the one before it; with 128 inputs the registers for that are better used
// otherwise (measured).
template <int K, int N, class Finish>
FF_LANE void warp_product(const Fragment* a, const uint2* weights, const float* bias, Finish finish) {
  constexpr int kTogether = K >= 8 ? 1 : N < 4 ? N : 4;
  FF_UNROLL
  for (int first = 0; first < N; first += kTogether) {
    float c[kTogether][4] = {};
    FF_UNROLL
    for (int j = 0; j < kTogether; ++j) {
      if (!bias || first + j >= N) continue;
      c[j][0] = c[j][2] = bias[(first + j) * 8 + fragment_column()];
      c[j][1] = c[j][3] = bias[(first + j) * 8 + fragment_column() + 1];
    }
    FF_UNROLL
    for (int k = 0; k < K; ++k) {
      FF_UNROLL
      for (int j = 0; j < kTogether; ++j) {
        if (first + j < N) multiply_add(c[j], a[k], weights[((first + j) * K + k) * 32 + lane_index()]);
      }
    }
    FF_UNROLL
    for (int j = 0; j < kTogether; ++j) {
      if (first + j < N) finish(first + j, c[j]);
    }
  }
}

template <int In, int Width, int Hidden, int Out, int Act, int OutAct, bool Bias>
struct Network {
  static_assert(Width % 16 == 0 && Hidden >= 1, "tensor cores take hidden layers of whole tiles");
  // Tiles of 16, and of 8 where outputs are columns.
  static constexpr int kIn = (In + 15) / 16, kWidth = Width / 16, kOut = (Out + 15) / 16, kOut8 = (Out + 7) / 8;
  static constexpr int kFirst = kIn * kWidth * 64, kMiddle = kWidth * kWidth * 64, kLast = kWidth * kOut8 * 32;
  static constexpr int kWeights = kFirst + (Hidden - 1) * kMiddle + kLast;  // of uint2
  static constexpr int kBias = Bias ? Hidden * Width + kOut8 * 8 : 0;       // of float
  static constexpr int kStep = Width * (Width + (Bias ? 1 : 0));            // parameters of a middle layer
  static constexpr int kFirstSize = Width * (In + (Bias ? 1 : 0));
  static constexpr int kSize = kFirstSize + (Hidden - 1) * kStep + Out * (Width + (Bias ? 1 : 0));

  static FF_LANE const float* layer(const float* params, int l) {
    return l == 0 ? params : params + kFirstSize + (l - 1) * kStep;
  }

  static FF_LANE void load(const float* params, uint2* to) {
    float* bias = reinterpret_cast<float*>(to + kWeights);
    for (int l = 0; l <= Hidden; ++l) {
      const float* w = layer(params, l);
      int in = l == 0 ? In : Width, out = l == Hidden ? Out : Width;
      int k = l == 0 ? kIn : kWidth, n = l == Hidden ? kOut8 : 2 * kWidth;
      pack_layer(w, in, out, k, n, false, to);
      to += k * n * 32;
      if constexpr (Bias) {
        for (int j = static_cast<int>(threadIdx.x); j < n * 8; j += static_cast<int>(blockDim.x)) {
          bias[j] = j < out ? w[in * out + j] : 0.0f;
        }
        bias += n * 8;
      }
    }
  }

  // a [kWidth] = act(product), and keep(n, h, z) with each fragment of it.
  template <int K, class Keep>
  static FF_LANE void hidden(const Fragment* from, const uint2* weights, const float* bias, Fragment* to, Keep keep) {
    Fragment z;
    warp_product<K, 2 * kWidth>(from, weights, bias, [&](int n, float* c) {
      Fragment& f = to[n >> 1];
      int half = (n & 1) * 2;
      z.w[half] = pack_halves(c[0], c[1]);
      z.w[half + 1] = pack_halves(c[2], c[3]);
      for (int i = 0; i < 4; ++i) c[i] = activate(Act, c[i]);
      f.w[half] = pack_halves(c[0], c[1]);
      f.w[half + 1] = pack_halves(c[2], c[3]);
      if (n & 1) keep(n >> 1, f, z);
    });
  }

  // From inputs a [kIn]: keep(l, i, h, z) for every fragment of hidden layer l = 1 ..., finish(n, z) for columns 8 n of
  // the output, before its activation.
  template <class Keep, class Finish>
  static FF_LANE void forward(const Fragment* inputs, const uint2* weights, Keep keep, Finish finish) {
    const float* bias = Bias ? reinterpret_cast<const float*>(weights + kWeights) : nullptr;
    Fragment a[kWidth];
    hidden<kIn>(inputs, weights, bias, a, [&](int i, const Fragment& h, const Fragment& z) { keep(1, i, h, z); });
    weights += kFirst;
#if !defined(FF_SHIM)
#pragma unroll 1
#endif
    for (int l = 1; l < Hidden; ++l) {
      if constexpr (Bias) bias += Width;
      Fragment b[kWidth];
      hidden<kWidth>(a, weights, bias, b, [&](int i, const Fragment& h, const Fragment& z) { keep(l + 1, i, h, z); });
      FF_UNROLL
      for (int i = 0; i < kWidth; ++i) a[i] = b[i];
      weights += kMiddle;
    }
    if constexpr (Bias) bias += Width;
    warp_product<kWidth, kOut8>(a, weights, bias, finish);
  }
};

}  // namespace fieldfit
