// Layers on strips: a vector holds one feature of neighbouring values, weights are the same in all lanes.
#pragma once
#include "codec.h"

namespace fieldfit {

constexpr int kStripVectors = kLanes == 16 ? 2 : 1;  // that a block of outputs keeps in registers

// Features as rows of up to kStrip values, `stride` apart.
struct Strip {
  float* data;
  int64_t stride;
  float* row(int i) const { return data + i * stride; }
};

template <int O>
FF_LANE void dense_block(const float* w, int ldw, int in, const float* bias, const Strip& x, const Strip& y, int at, bool rectify,
                         const Strip* gate) {
  FloatV acc[O][kStripVectors];
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 2
    for (int v = 0; v < kStripVectors; ++v) acc[o][v] = bias ? splat<FloatV>(bias[o]) : FloatV{};
  }
  for (int i = 0; i < in; ++i) {
    FloatV xv[kStripVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kStripVectors; ++v) xv[v] = load(x.row(i) + at + v * kLanes);
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      FloatV wv = splat<FloatV>(w[i * ldw + o]);
#pragma GCC unroll 2
      for (int v = 0; v < kStripVectors; ++v) acc[o][v] = fma(wv, xv[v], acc[o][v]);
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 2
    for (int v = 0; v < kStripVectors; ++v) {
      FloatV r = acc[o][v];
      if (rectify) r = maximum(r, FloatV{});
      if (gate) r = select(load(gate->row(o) + at + v * kLanes) > FloatV{}, r, FloatV{});
      store(y.row(o) + at + v * kLanes, r);
    }
  }
}

// y = W x + b, rectified if asked, or zero where `gate` is not positive. W is stored by input: [in, out].
inline void dense(const float* w, int in, int out, const float* bias, const Strip& x, const Strip& y, int n, bool rectify,
                  const Strip* gate = nullptr) {
  for (int at = 0; at < n; at += kStripVectors * kLanes) {
    int o = 0;
    auto run = [&](auto block) {
      constexpr int size = decltype(block)::value;
      for (; o + size <= out; o += size) {
        Strip to{y.row(o), y.stride};
        Strip mask = gate ? Strip{gate->row(o), gate->stride} : Strip{};
        dense_block<size>(w + o, out, in, bias ? bias + o : nullptr, x, to, at, rectify, gate ? &mask : nullptr);
      }
    };
    run(std::integral_constant<int, 8>{});
    run(std::integral_constant<int, 4>{});
    run(std::integral_constant<int, 3>{});  // few outputs at once would wait for each other's sums
    run(std::integral_constant<int, 2>{});
    run(std::integral_constant<int, 1>{});
  }
}

// Sums over values of d[o] x[i], one vector of partial sums for each pair: to [out, in].
template <int O, int I>
FF_LANE void outer_block(const Strip& d, const Strip& x, int n, FloatV* to, int ld) {
  FloatV acc[O][I] = {};
  for (int at = 0; at < n; at += kLanes) {
    FloatV xv[I];
#pragma GCC unroll 4
    for (int i = 0; i < I; ++i) xv[i] = load(x.row(i) + at);
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) {
      FloatV dv = load(d.row(o) + at);
#pragma GCC unroll 4
      for (int i = 0; i < I; ++i) acc[o][i] = fma(dv, xv[i], acc[o][i]);
    }
  }
#pragma GCC unroll 4
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 4
    for (int i = 0; i < I; ++i) to[o * ld + i] = to[o * ld + i] + acc[o][i];
  }
}

inline void add_outer(const Strip& d, int out, const Strip& x, int in, int n, FloatV* to) {
  constexpr int kOutputs = kLanes == 16 ? 4 : 2;  // whose sums fit the registers
  int o = 0;
  auto rows = [&](auto outputs) {
    constexpr int O = decltype(outputs)::value;
    for (; o + O <= out; o += O) {
      int i = 0;
      auto columns = [&](auto inputs) {
        constexpr int I = decltype(inputs)::value;
        for (; i + I <= in; i += I) outer_block<O, I>({d.row(o), d.stride}, {x.row(i), x.stride}, n, to + o * in + i, in);
      };
      columns(std::integral_constant<int, 4>{});
      columns(std::integral_constant<int, 3>{});
      columns(std::integral_constant<int, 2>{});
      columns(std::integral_constant<int, 1>{});
    }
  };
  rows(std::integral_constant<int, kOutputs>{});
  if (kOutputs > 3) rows(std::integral_constant<int, 3>{});
  if (kOutputs > 2) rows(std::integral_constant<int, 2>{});
  rows(std::integral_constant<int, 1>{});
}

inline void add_sums(const Strip& d, int out, int n, FloatV* to) {
  for (int o = 0; o < out; ++o) {
    FloatV s = to[o];
    for (int at = 0; at < n; at += kLanes) s = s + load(d.row(o) + at);
    to[o] = s;
  }
}

// W [out, in] by input.
inline void transpose(const float* w, int out, int in, float* to) {
  for (int o = 0; o < out; ++o) {
    for (int i = 0; i < in; ++i) to[i * out + o] = w[o * in + i];
  }
}

// Zeroed vectors.
class Sums {
 public:
  explicit Sums(size_t n) : n_(n), memory_(n * sizeof(FloatV)) {}
  FloatV* data() const { return reinterpret_cast<FloatV*>(memory_.data()); }
  void add_to(float* to, float weight) const {
    for (size_t i = 0; i < n_; ++i) to[i] += weight * sum(data()[i]);
  }

 private:
  size_t n_;
  Aligned memory_;
};

// Zero in the lanes from n on.
FF_LANE FloatV lanes_below(FloatV v, int n) {
  static const auto index = [] {
    IntV i;
    for (int l = 0; l < kLanes; ++l) i[l] = l;
    return i;
  }();
  return n >= kLanes ? v : select(index < n, v, FloatV{});
}

}  // namespace fieldfit
