// The perceptron in bfloat16 with sums in float32 (AVX512-BF16): one instruction multiplies pairs of values, along the
// inputs of a layer in the forward pass, its outputs for d_x, and samples for d_W.
#include "pair_product.h"

namespace fieldfit {

#if defined(__AVX512BF16__)

namespace {

Half half_of(float x) { return static_cast<Half>(_mm256_extract_epi16(narrowed(splat<FloatV>(x)), 0)); }

class PackedBFloat16 final : public PackedMlp {
 public:
  explicit PackedBFloat16(const Mlp& m) : PackedMlp(m, std::max(kLanes, 2 * kPairDepth)) {
    size_t total = 0;
    for (int l = 0; l < m.layers; ++l) total += sizes(l);
    storage_ = Aligned(total);
    char* to = storage_.data();
    const float* from = m.params;
    for (int l = 0; l < m.layers; ++l, to += sizes(l - 1)) {
      int in = m.dims[l], out = m.dims[l + 1], in_pad = pad[l], out_pad = pad[l + 1];
      Half* f = reinterpret_cast<Half*>(to);
      Half* b = f + static_cast<size_t>(in_pad) * out_pad;
      Half* rows = b + static_cast<size_t>(in_pad) * out_pad;
      float* bias_row = reinterpret_cast<float*>(rows + 4 * static_cast<size_t>(in_pad));
      for (int j = 0; j < out; ++j) {
        for (int k = 0; k < in; ++k) {
          Half w = half_of(from[static_cast<size_t>(j) * in + k]);
          f[(static_cast<size_t>(k / 2) * out_pad + j) * 2 + k % 2] = w;
          b[(static_cast<size_t>(j / 2) * in_pad + k) * 2 + j % 2] = w;
          if (j < 4) rows[static_cast<size_t>(j) * in_pad + k] = w;
        }
      }
      from += static_cast<size_t>(in) * out;
      bias[l] = nullptr;
      if (m.bias) {
        memcpy(bias_row, from, sizeof(float) * out);
        bias[l] = bias_row;
        from += out;
      }
      forward[l] = reinterpret_cast<const Pair*>(f);
      backward[l] = reinterpret_cast<const Pair*>(b);
      narrow[l] = rows;
    }
  }

  std::unique_ptr<MlpTile> tile() const override;

  bool keeps_input(int l) const { return l > 0 && needs_input(activation(l - 1)); }
  // Outputs of hidden layers in bfloat16, what their activations saw and the last layer's in float32.
  size_t kept_bytes() const override {
    size_t bytes = 0;
    for (int l = 1; l < mlp.layers; ++l) bytes += pad[l] * (sizeof(Half) + (keeps_input(l) ? sizeof(float) : 0));
    if (mlp.output_activation != kIdentity) bytes += pad_out() * sizeof(float) * (keeps_input(mlp.layers) ? 2 : 1);
    return bytes * kTile;
  }

  const Pair* forward[kMaxLayers];   // [in / 2, pad(out)], pairs of inputs
  const Pair* backward[kMaxLayers];  // [out / 2, pad(in)], pairs of outputs
  const Half* narrow[kMaxLayers];    // [4, pad(in)]
  const float* bias[kMaxLayers];     // [pad(out)] or null

 private:
  size_t sizes(int l) const {
    size_t in = pad[l], out = pad[l + 1];
    return (sizeof(Half) * (2 * in * out + 4 * in) + sizeof(float) * out + 63) / 64 * 64;
  }
  Aligned storage_{0};
};

int pair_rows_of(int n) { return (n + kPairRows - 1) / kPairRows * kPairRows; }

class BFloat16Tile final : public MlpTile {
 public:
  explicit BFloat16Tile(const PackedBFloat16& packed) : p_(packed), own_(packed.kept_bytes()) {
    size_t widest = *std::max_element(p_.pad, p_.pad + p_.mlp.layers + 1);
    size_t in = p_.pad_in(), out = p_.pad_out();
    scratch_ = Aligned(kTile * (sizeof(float) * (in + 2 * out + widest) + sizeof(Half) * (in + 2 * widest) + 3 * sizeof(Half) * widest));
    input = reinterpret_cast<float*>(scratch_.data());
    d_out = input + kTile * in;
    last_ = d_out + kTile * out;
    wide_ = last_ + kTile * out;
    rows_ = reinterpret_cast<Half*>(wide_ + kTile * widest);
    d_[0] = rows_ + kTile * in;
    d_[1] = d_[0] + kTile * widest;
    pairs_[0] = reinterpret_cast<Pair*>(d_[1] + kTile * widest);
    pairs_[1] = pairs_[0] + kTile / 2 * widest;
    turned_ = pairs_[1] + kTile / 2 * widest;
  }

  const float* forward(const float* rows, int n, void* kept) override {
    bind(kept);
    int n_rows = pair_rows_of(n);
    narrow_rows(rows, static_cast<int64_t>(n_rows) * p_.pad_in(), rows_);
    const Half* h = rows_;
    for (int l = 0; l + 1 < p_.mlp.layers; ++l) {
      hidden(l, h, n_rows);
      h = h_[l + 1];
    }
    return output(h, n_rows);
  }

  const float* backward(const float* rows, int n, void* kept, float* d_wide, MlpGradients& to, bool input_gradient) override {
    bind(kept);
    const Mlp& mlp = p_.mlp;
    int n_rows = pair_rows_of(n);
    narrow_rows(rows, static_cast<int64_t>(n_rows) * p_.pad_in(), rows_);
    if (mlp.output_activation != kIdentity) {
      for (int64_t i = 0; i < static_cast<int64_t>(n_rows) * p_.pad_out(); i += kLanes) {
        store(d_wide + i, activate_vjp(mlp.output_activation, load(z_last_ + i), load(last_h_ + i), load(d_wide + i)));
      }
    }
    Half* d = d_[mlp.layers % 2];
    narrow_rows(d_wide, static_cast<int64_t>(n_rows) * p_.pad_out(), d);
    for (int l = mlp.layers - 1; l >= 0; --l) {
      const Half* h = l == 0 ? rows_ : h_[l];
      int in = p_.pad[l], out = p_.pad[l + 1];
      pair_rows(d, n_rows, out, pairs_[0]);
      pair_rows(h, n_rows, in, pairs_[1]);
      pair_product_add(pairs_[0], out, pairs_[1], in, to.weights[l], n_rows / 2, (mlp.dims[l + 1] + 3) / 4 * 4, turned_);
      if (mlp.bias) add_bias(d, n, out, to.bias[l]);
      if (l == 0 && !input_gradient) return nullptr;
      PairProduct of{reinterpret_cast<const Pair*>(d), out / 2, 1, p_.backward[l], in, wide_, in, (mlp.dims[l + 1] + 1) / 2};
      Half* next = d_[l % 2];
      if (l == 0) {
        pair_product<Start::kZero, End::kStore>(of, n_rows, in);
      } else if (mlp.activation == kRelu) {
        of.c = next;
        of.gate = h;
        pair_product<Start::kZero, End::kMask>(of, n_rows, in);
      } else {
        pair_product<Start::kZero, End::kStore>(of, n_rows, in);
        for (int64_t i = 0; i < static_cast<int64_t>(n_rows) * in; i += kLanes) {
          FloatV z = p_.keeps_input(l) ? load(z_[l] + i) : widened(h + i);
          store_half(next + i, activate_vjp(mlp.activation, z, widened(h + i), load(wide_ + i)));
        }
      }
      d = next;
    }
    return wide_;
  }

 private:
  void bind(void* kept) {
    const Mlp& mlp = p_.mlp;
    char* to = static_cast<char*>(kept ? kept : own_.data());
    auto take = [&](size_t bytes) {
      char* from = to;
      to += bytes;
      return from;
    };
    for (int l = 1; l < mlp.layers; ++l) {
      size_t size = static_cast<size_t>(kTile) * p_.pad[l];
      z_[l] = p_.keeps_input(l) ? reinterpret_cast<float*>(take(size * sizeof(float))) : wide_;
      h_[l] = reinterpret_cast<Half*>(take(size * sizeof(Half)));
    }
    size_t size = static_cast<size_t>(kTile) * p_.pad_out();
    last_h_ = z_last_ = mlp.output_activation == kIdentity ? last_ : reinterpret_cast<float*>(take(size * sizeof(float)));
    if (p_.keeps_input(mlp.layers)) z_last_ = reinterpret_cast<float*>(take(size * sizeof(float)));
  }

  PairProduct product_of(int l, const Half* h, void* c) const {
    int in = p_.pad[l], out = p_.pad[l + 1];
    return {reinterpret_cast<const Pair*>(h), in / 2, 1, p_.forward[l], out, c, out, (p_.mlp.dims[l] + 1) / 2, p_.bias[l]};
  }

  template <End E>
  void run(const PairProduct& of, int rows, int columns) const {
    of.row ? pair_product<Start::kRow, E>(of, rows, columns) : pair_product<Start::kZero, E>(of, rows, columns);
  }

  void hidden(int l, const Half* h, int rows) {
    int out = p_.pad[l + 1], kind = p_.mlp.activation;
    if (kind == kRelu) return run<End::kRectify>(product_of(l, h, h_[l + 1]), rows, out);
    run<End::kStore>(product_of(l, h, z_[l + 1]), rows, out);
    for (int64_t i = 0; i < static_cast<int64_t>(rows) * out; i += kLanes) store_half(h_[l + 1] + i, activate(kind, load(z_[l + 1] + i)));
  }

  const float* output(const Half* h, int rows) {
    int l = p_.mlp.layers - 1, in = p_.pad[l], out = p_.pad_out(), kind = p_.mlp.output_activation;
    if (p_.mlp.dims[l + 1] <= kNarrow && !p_.bias[l] && in % 32 == 0) {
      pair_product_narrow(h, p_.narrow[l], z_last_, out, rows, in);
    } else {
      run<End::kStore>(product_of(l, h, z_last_), rows, out);
    }
    if (kind != kIdentity) {
      for (int64_t i = 0; i < static_cast<int64_t>(rows) * out; i += kLanes) store(last_h_ + i, activate(kind, load(z_last_ + i)));
    }
    return last_h_;
  }

  void add_bias(const Half* d, int n, int width, float* to) const {
    for (int j = 0; j < width; j += kLanes) {
      FloatV s = load(to + j);
      for (int i = 0; i < n; ++i) s = s + widened(d + static_cast<int64_t>(i) * width + j);
      store(to + j, s);
    }
  }

  const PackedBFloat16& p_;
  Aligned own_, scratch_{0};
  float* last_;     // outputs, where no activation follows
  float* wide_;     // a layer's values or cotangents in float32
  Half* rows_;      // the input
  Half* d_[2];      // cotangents of a layer's outputs
  Pair* pairs_[2];  // cotangents and inputs, in pairs of samples
  Pair* turned_;    // cotangents, pairs along rows
  Tiles tiles_;
  Half* h_[kMaxLayers + 1];
  float* z_[kMaxLayers + 1];
  float *last_h_, *z_last_;
};

std::unique_ptr<MlpTile> PackedBFloat16::tile() const { return std::make_unique<BFloat16Tile>(*this); }

}  // namespace

std::unique_ptr<PackedMlp> pack_bfloat16(const Mlp& mlp) { return std::make_unique<PackedBFloat16>(mlp); }

#else

std::unique_ptr<PackedMlp> pack_bfloat16(const Mlp& mlp) { return pack_float32(mlp); }

#endif

}  // namespace fieldfit
