// A perceptron on a tile of samples that stays in the cache, whatever its precision.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../activation.h"
#include "product.h"

namespace fieldfit {

constexpr int kTile = 96;  // samples; a multiple of every row block

inline int round_rows(int n) { return (n + 11) / 12 * 12; }
inline int cleared_rows(int n) { return (n + 31) / 32 * 32 > round_rows(n) ? (n + 31) / 32 * 32 : round_rows(n); }  // at most kTile

// Zeroed memory on a cache line's boundary.
class Aligned {
 public:
  explicit Aligned(size_t bytes = 0) : data_(bytes ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr, &std::free) {
    if (bytes) memset(data_.get(), 0, bytes);
  }
  char* data() const { return static_cast<char*>(data_.get()); }

 private:
  std::unique_ptr<void, void (*)(void*)> data_;
};

struct MlpGradients;

// The scratch of one thread. Rows are float32, padded with zeros.
class MlpTile {
 public:
  virtual ~MlpTile() = default;
  // All layers on `rows` [n, pad(in)], readable up to cleared_rows(n); returns [n, pad(out)]. What the backward pass needs
  // goes to `kept`, of kept_bytes(), or stays here until the next call if null.
  virtual const float* forward(const float* rows, int n, void* kept) = 0;
  // From cotangents [n, pad(out)], overwritten, with rows of zeros up to cleared_rows(n); adds to the gradients, and returns
  // the cotangents of the input [n, pad(in)] if asked to.
  virtual const float* backward(const float* rows, int n, void* kept, float* d_out, MlpGradients& to, bool input) = 0;

  float* input;   // [kTile, pad(in)] to fill, zeros at first
  float* d_out;   // [kTile, pad(out)] to fill
};

// Weights in the orders and the precision that the passes read, shared by threads.
class PackedMlp {
 public:
  // Rows of layers are padded to a multiple of so many values: products read them in wholes of it.
  PackedMlp(const Mlp& m, int multiple) : mlp(m) {
    for (int l = 0; l <= m.layers; ++l) pad[l] = (m.dims[l] + multiple - 1) / multiple * multiple;
  }
  virtual ~PackedMlp() = default;
  virtual std::unique_ptr<MlpTile> tile() const = 0;
  virtual size_t kept_bytes() const = 0;

  int pad_in() const { return pad[0]; }
  int pad_out() const { return pad[mlp.layers]; }
  int activation(int layer) const { return layer + 1 == mlp.layers ? mlp.output_activation : mlp.activation; }

  const Mlp mlp;
  int pad[kMaxLayers + 1];
};

// Gradients of the weights that one thread has added up: per layer d_W [pad(out), pad(in)], then d_b [pad(out)].
struct MlpGradients {
  std::vector<float> storage;
  float* weights[kMaxLayers];
  float* bias[kMaxLayers];

  explicit MlpGradients(const PackedMlp& p) {
    size_t total = 0;
    for (int l = 0; l < p.mlp.layers; ++l) total += static_cast<size_t>(p.pad[l + 1]) * (p.pad[l] + 1);
    storage.assign(total, 0.0f);
    float* to = storage.data();
    for (int l = 0; l < p.mlp.layers; ++l) {
      weights[l] = to;
      bias[l] = to + static_cast<size_t>(p.pad[l]) * p.pad[l + 1];
      to = bias[l] + p.pad[l + 1];
    }
  }
};

// Sums over threads, in their order, into the layout of the parameters.
void sum_gradients(const PackedMlp& packed, const std::vector<std::unique_ptr<MlpGradients>>& parts, float* d_params);

std::unique_ptr<PackedMlp> pack(const Mlp& mlp);
std::unique_ptr<PackedMlp> pack_float32(const Mlp& mlp);
std::unique_ptr<PackedMlp> pack_bfloat16(const Mlp& mlp);

// Whether the vjp reads the activation's input, and not only its output.
inline bool needs_input(int activation) { return activation == kSilu || activation == kSine; }

// Rows of `width` values from one place to another, where they lie so many values apart.
inline void copy_rows(const float* from, int from_step, float* to, int to_step, int n, int width) {
  auto copy = [&](auto fixed) {
    for (int64_t i = 0; i < n; ++i) memcpy(to + i * to_step, from + i * from_step, sizeof(float) * fixed());
  };
  switch (width) {  // sizes known to the compiler need no calls
    case 1:
      return copy([] { return 1; });
    case 3:
      return copy([] { return 3; });
    case 4:
      return copy([] { return 4; });
    case 16:
      return copy([] { return 16; });
    case 32:
      return copy([] { return 32; });
    default:
      return copy([=] { return width; });
  }
}

// Samples begin .. begin + n as rows: x, then the auxiliary row; what is behind in `rows` stays.
inline void gather_rows(const MlpInput& in, int64_t begin, int n, int step, float* rows) {
  copy_rows(in.x + begin * in.x_dim, in.x_dim, rows, step, n, in.x_dim);
  for (int64_t i = 0; in.aux && i < n; ++i) {
    memcpy(rows + i * step + in.x_dim, in.aux + (in.index ? in.index[begin + i] : begin + i) * in.aux_dim, sizeof(float) * in.aux_dim);
  }
}

// The same, padded with zeros that are in `rows` already. Returns where they are: there, or in x itself where that will do.
inline const float* load_rows(const MlpInput& in, int64_t begin, int n, int pad, float* rows) {
  if (!in.aux && in.x_dim == pad && n == kTile) return in.x + begin * pad;
  gather_rows(in, begin, n, pad, rows);
  return rows;
}

// Rows of `from`, `width` values each, `stride` apart, one after another.
inline void unload_rows(const float* from, int stride, int n, int width, float* to) { copy_rows(from, stride, to, width, n, width); }

}  // namespace fieldfit
