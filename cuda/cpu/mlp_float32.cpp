// The perceptron in float32.
#include "mlp_tile.h"

namespace fieldfit {
namespace {

constexpr int kLeastRows = 4;  // of the backward weights, so that narrow products can read four

class PackedFloat32 final : public PackedMlp {
 public:
  explicit PackedFloat32(const Mlp& m) : PackedMlp(m, kLanes) {
    size_t total = 0;
    for (int l = 0; l < m.layers; ++l) total += sizes(l);
    storage_ = Aligned(sizeof(float) * total);
    float* to = reinterpret_cast<float*>(storage_.data());
    const float* from = m.params;
    for (int l = 0; l < m.layers; ++l) {
      int in = m.dims[l], out = m.dims[l + 1];
      float* f = to;
      float* b = f + static_cast<size_t>(in) * pad[l + 1];
      float* bias_row = b + static_cast<size_t>(std::max(out, kLeastRows)) * pad[l];
      to += sizes(l);
      for (int j = 0; j < out; ++j) {
        memcpy(b + static_cast<size_t>(j) * pad[l], from + static_cast<size_t>(j) * in, sizeof(float) * in);
        for (int k = 0; k < in; ++k) f[static_cast<size_t>(k) * pad[l + 1] + j] = from[static_cast<size_t>(j) * in + k];
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

  std::unique_ptr<MlpTile> tile() const override;

  bool keeps(int l) const { return l < mlp.layers || mlp.output_activation != kIdentity; }
  bool keeps_input(int l) const { return l > 0 && needs_input(activation(l - 1)); }
  size_t kept_bytes() const override {
    size_t rows = 0;
    for (int l = 1; l <= mlp.layers; ++l) rows += keeps(l) ? pad[l] * (keeps_input(l) ? 2 : 1) : 0;
    return sizeof(float) * kTile * rows;
  }

  const float* forward[kMaxLayers];   // [in, pad(out)]
  const float* backward[kMaxLayers];  // [out, pad(in)], at least four rows
  const float* bias[kMaxLayers];      // [pad(out)] or null

 private:
  size_t sizes(int l) const {
    size_t out = std::max(mlp.dims[l + 1], kLeastRows);
    return (static_cast<size_t>(mlp.dims[l]) * pad[l + 1] + out * pad[l] + pad[l + 1] + 15) / 16 * 16;
  }
  Aligned storage_{0};
};

class Float32Tile final : public MlpTile {
 public:
  explicit Float32Tile(const PackedFloat32& packed) : p_(packed), own_(packed.kept_bytes()) {
    int widest = *std::max_element(p_.pad, p_.pad + p_.mlp.layers + 1);
    size_t rows = p_.pad_in() + 2 * p_.pad_out() + 2 * static_cast<size_t>(widest);
    scratch_ = Aligned(sizeof(float) * kTile * rows);
    float* to = reinterpret_cast<float*>(scratch_.data());
    input = to;
    d_out = input + static_cast<size_t>(kTile) * p_.pad_in();
    last_ = d_out + static_cast<size_t>(kTile) * p_.pad_out();
    gradient_[0] = last_ + static_cast<size_t>(kTile) * p_.pad_out();
    gradient_[1] = gradient_[0] + static_cast<size_t>(kTile) * widest;
  }

  const float* forward(const float* rows, int n, void* kept) override {
    bind(kept);
    const float* h = rows;
    for (int l = 0; l < p_.mlp.layers; ++l) {
      layer(l, h, round_rows(n));
      h = h_[l + 1];
    }
    return h;
  }

  const float* backward(const float* rows, int n, void* kept, float* d, MlpGradients& to, bool input_gradient) override {
    bind(kept);
    const Mlp& mlp = p_.mlp;
    int n_rows = round_rows(n);
    activation_vjp(mlp.layers, n_rows, d);
    for (int l = mlp.layers - 1; l >= 0; --l) {
      const float* h = l == 0 ? rows : h_[l];
      int in = p_.pad[l], out = p_.pad[l + 1];
      product_add({d, 1, out, h, in, to.weights[l], in, n}, (mlp.dims[l + 1] + 3) / 4 * 4, in);
      if (mlp.bias) add_rows(d, out, n, out, to.bias[l]);
      if (l == 0 && !input_gradient) return nullptr;
      float* next = gradient_[l % 2];
      Product product_of{d, out, 1, p_.backward[l], in, next, in, mlp.dims[l + 1]};
      if (l > 0 && mlp.activation == kRelu) {
        product_of.gate = h;
        product<Start::kZero, End::kMask>(product_of, n_rows, in);
      } else {
        product<Start::kZero, End::kStore>(product_of, n_rows, in);
        if (l > 0) activation_vjp(l, n_rows, next);
      }
      d = next;
    }
    return d;
  }

 private:
  void bind(void* kept) {
    float* to = reinterpret_cast<float*>(kept ? kept : own_.data());
    for (int l = 1; l <= p_.mlp.layers; ++l) {
      if (!p_.keeps(l)) {
        h_[l] = z_[l] = last_;
        continue;
      }
      size_t size = static_cast<size_t>(kTile) * p_.pad[l];
      h_[l] = z_[l] = to;
      to += size;
      if (p_.keeps_input(l)) {
        z_[l] = to;
        to += size;
      }
    }
  }

  void layer(int l, const float* h, int rows) {
    int in = p_.pad[l], out = p_.pad[l + 1], kind = p_.activation(l);
    Product of{h, in, 1, p_.forward[l], out, z_[l + 1], out, p_.mlp.dims[l], p_.bias[l]};
    if (l == 0 && h != input) of.next = h + static_cast<int64_t>(kTile) * in;
    if (p_.mlp.dims[l + 1] <= kNarrow && !p_.bias[l]) {
      product_narrow(h, p_.backward[l], z_[l + 1], out, rows, in);
    } else if (kind == kRelu) {
      p_.bias[l] ? product<Start::kRow, End::kRectify>(of, rows, out) : product<Start::kZero, End::kRectify>(of, rows, out);
      return;
    } else {
      p_.bias[l] ? product<Start::kRow, End::kStore>(of, rows, out) : product<Start::kZero, End::kStore>(of, rows, out);
    }
    if (kind == kIdentity) return;
    for (int64_t i = 0; i < static_cast<int64_t>(rows) * out; i += kLanes) store(h_[l + 1] + i, activate(kind, load(z_[l + 1] + i)));
  }

  // Cotangents of what layer l - 1 gave, before its activation.
  void activation_vjp(int l, int rows, float* d) {
    int kind = p_.activation(l - 1);
    if (kind == kIdentity) return;
    for (int64_t i = 0; i < static_cast<int64_t>(rows) * p_.pad[l]; i += kLanes) {
      store(d + i, activate_vjp(kind, load(z_[l] + i), load(h_[l] + i), load(d + i)));
    }
  }

  const PackedFloat32& p_;
  Aligned own_, scratch_{0};
  float* last_;
  float* gradient_[2];
  float* h_[kMaxLayers + 1];  // outputs of layers; those of the last are not kept where no activation follows
  float* z_[kMaxLayers + 1];  // what the activation saw
};

std::unique_ptr<MlpTile> PackedFloat32::tile() const { return std::make_unique<Float32Tile>(*this); }

}  // namespace

std::unique_ptr<PackedMlp> pack_float32(const Mlp& mlp) { return std::make_unique<PackedFloat32>(mlp); }

}  // namespace fieldfit
