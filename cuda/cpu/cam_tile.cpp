// A modulated perceptron on a tile of samples, forward and backward.
#include "cam_tile.h"

#include "vertices.h"

namespace fieldfit {
namespace {

constexpr int kTogether = 4;  // rows whose sums are found side by side, so that none waits for its own

int rounded4(int n) { return (n + 3) / 4 * 4; }

// The sum of all lanes, by halves: a chain as long as the logarithm of their number.
FF_LANE float sum_halves(FloatV v) {
  float lanes[kLanes];
  memcpy(lanes, &v, sizeof lanes);
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

}  // namespace

void centre(float* values, int rows, int columns) {
  for (int j = 0; j < columns; ++j) {
    double sum = 0.0;
    for (int i = 0; i < rows; ++i) sum += values[static_cast<int64_t>(i) * columns + j];
    float mean = static_cast<float>(sum / rows);
    for (int i = 0; i < rows; ++i) values[static_cast<int64_t>(i) * columns + j] -= mean;
  }
}

PackedCam::PackedCam(const Cam& c) : cam(c), grid_row(c.each ? padded(c.hidden()) : 1) {
  bool copies = grid_row != c.channels();
  size_t total = 0;
  for (int l = 0; l < layers(); ++l) {
    total += static_cast<size_t>(dim(l)) * padded(dim(l + 1)) + static_cast<size_t>(dim(l + 1)) * padded(dim(l)) + padded(dim(l + 1));
  }
  if (copies) total += static_cast<size_t>(layers() - 1) * grid_size();
  storage_ = Aligned(sizeof(float) * total);
  float* to = reinterpret_cast<float*>(storage_.data());
  const float* from = c.mlp.params;
  std::vector<float> weights;
  for (int l = 0; l < layers(); ++l) {
    int in = dim(l), out = dim(l + 1);
    weights.assign(from, from + static_cast<size_t>(out) * (in + 1));
    from += weights.size();
    float* bias_row = weights.data() + static_cast<size_t>(out) * in;
    if (centred(l)) {
      centre(weights.data(), out, in);
      centre(bias_row, out, 1);
    }
    pack_panels(weights.data(), 1, in, in, out, to);
    forward[l] = to;
    to += static_cast<size_t>(in) * padded(out);
    pack_panels(weights.data(), in, 1, out, in, to);
    backward[l] = to;
    to += static_cast<size_t>(out) * padded(in);
    memcpy(to, bias_row, sizeof(float) * out);
    bias[l] = to;
    to += padded(out);
  }
  for (int l = 0; l + 1 < layers(); ++l) {
    const float* grid = c.grids + static_cast<int64_t>(l) * c.entries() * 2 * c.channels();
    grids[l] = copies ? to : grid;
    if (!copies) continue;
    for (int64_t row = 0; row < 2 * c.entries(); ++row) memcpy(to + row * grid_row, grid + row * c.channels(), sizeof(float) * c.channels());
    to += grid_size();
  }
}

CamSums::CamSums(const PackedCam& p) {
  size_t total = static_cast<size_t>(p.layers() - 1) * p.grid_size();
  for (int l = 0; l < p.layers(); ++l) total += static_cast<size_t>(rounded4(p.dim(l + 1))) * p.stride(l) + padded(p.dim(l + 1));
  storage.assign(total, 0.0f);
  float* to = storage.data();
  for (int l = 0; l < p.layers(); ++l) {
    weights[l] = to;
    to += static_cast<size_t>(rounded4(p.dim(l + 1))) * p.stride(l);
    bias[l] = to;
    to += padded(p.dim(l + 1));
  }
  for (int l = 0; l + 1 < p.layers(); ++l, to += p.grid_size()) grids[l] = to;
}

CamTile::CamTile(const PackedCam& packed) : p_(packed), n_corners_(1 << packed.cam.n_axes) {
  index_.resize(kTile * n_corners_);
  weight_.resize(kTile * n_corners_);
  d_weight_.resize(kTile * n_corners_);
  size_t in = p_.stride(0), width = p_.stride(1), out = p_.stride(p_.layers());
  size_t widest = std::max(std::max(in, width), out);
  scratch_ = Aligned(sizeof(float) * (kTile * (in + width + 2 * out + 2 * widest) + p_.kept_floats()));
  float* to = reinterpret_cast<float*>(scratch_.data());
  auto take = [&](size_t count) {
    float* here = to;
    to += count;
    return here;
  };
  input = take(kTile * in);
  hidden_ = take(kTile * width);
  d_out = take(kTile * out);
  values_ = take(kTile * out);
  for (float*& gradient : gradient_) gradient = take(kTile * widest);
  own_ = take(p_.kept_floats());
}

void CamTile::locate_all(const float* at, int n) {
  const Cam& cam = p_.cam;
  for (int i = 0; i < n; i += kLanes) {
    store(&index_[i], IntV{});
    store(&weight_[i], splat<FloatV>(1.0f));
    int32_t step = 1;
    for (int a = 0; a < cam.n_axes; ++a) {
      FloatV x;
      for (int s = 0; s < kLanes; ++s) x[s] = at[static_cast<int64_t>(std::min(i + s, n - 1)) * cam.n_axes + a];
      AxisPlace<FloatV> place = locate(x, cam.axes[a]);
      for (int k = 0, half = 1 << a; k < half; ++k) {
        int near = k * kTile + i, far = (k + half) * kTile + i;
        IntV index = load(&index_[near]);
        FloatV weight = load(&weight_[near]);
        store(&index_[far], index + step * place.second);
        store(&weight_[far], weight * place.fraction);
        store(&index_[near], index + step * place.first);
        store(&weight_[near], weight * (1.0f - place.fraction));
      }
      step *= cam.axes[a].vertices;
    }
  }
  std::fill(d_weight_.begin(), d_weight_.end(), 0.0f);
}

void CamTile::at_vjp(int i, const float* at, float* d_at) const {
  const Cam& cam = p_.cam;
  AxisPlace<float> places[kMaxAxes];
  for (int a = 0; a < cam.n_axes; ++a) places[a] = locate(at[a], cam.axes[a]);
  for (int a = 0; a < cam.n_axes; ++a) {
    float sum = 0.0f;
    for (int k = 0; k < n_corners_; ++k) {
      float product = d_weight_[k * kTile + i];
      for (int b = 0; b < cam.n_axes; ++b) {
        if (b != a) product *= k >> b & 1 ? places[b].fraction : 1.0f - places[b].fraction;
      }
      sum += k >> a & 1 ? product : -product;
    }
    d_at[a] = sum * places[a].slope;
  }
}

// One over the roots of rows' variances, from products whose mean is zero; what is behind the last channel is zero too.
void CamTile::find_roots(const Layer& of, int rows) const {
  int width = padded(p_.cam.hidden());
  if (!p_.cam.normalised) {
    std::fill_n(of.root, rows, 1.0f);
    return;
  }
  for (int i = 0; i < rows; i += kTogether) {
    const float* z = of.z + i * width;
    FloatV squares[kTogether] = {};
    for (int j = 0; j < width; j += kLanes) {
      for (int r = 0; r < kTogether; ++r) {
        FloatV v = load(z + r * width + j);
        squares[r] = fma(v, v, squares[r]);
      }
    }
    for (int r = 0; r < kTogether; ++r) of.root[i + r] = sum_halves(squares[r]);
  }
  float share = 1.0f / static_cast<float>(p_.cam.hidden());
  for (int i = 0; i < rows; i += kLanes) store(of.root + i, 1.0f / sqrt_(load(of.root + i) * share + kNormEps));
}

// The scale, times the root, and the shift of each row, where one pair does for all channels.
void CamTile::fetch(int l, const Layer& of, int rows) const {
  using Pair = Features<2>;
  const float* grid = p_.grids[l];
  for (int i = 0; i < rows; ++i) {
    Pair::Vector sum{};
    for (int k = 0; k < n_corners_; ++k) sum = Pair::fma(Pair::load(grid + 2 * index_[k * kTile + i]), weight_[k * kTile + i], sum);
    of.gain[i] = sum[0] * of.root[i];
    of.shift[i] = sum[1];
  }
}

// What the values of a row are multiplied by, and what is added.
template <>
struct CamTile::Modulation<false> {
  FloatV gain, shift;
  FF_LANE Modulation(const CamTile&, int, const Layer& of, int i) : gain(splat<FloatV>(of.gain[i])), shift(splat<FloatV>(of.shift[i])) {}
  FF_LANE void at(int) {}
};
template <>
struct CamTile::Modulation<true> {
  const float* vertex[1 << kMaxAxes];
  FloatV weight[1 << kMaxAxes], root, gain, shift;
  int n, row;
  FF_LANE Modulation(const CamTile& tile, int l, const Layer& of, int i) : root(splat<FloatV>(of.root[i])), n(tile.n_corners_), row(tile.p_.grid_row) {
    for (int k = 0; k < n; ++k) {
      vertex[k] = tile.p_.grids[l] + static_cast<int64_t>(tile.index_[k * kTile + i]) * 2 * row;
      weight[k] = splat<FloatV>(tile.weight_[k * kTile + i]);
    }
  }
  FF_LANE void at(int j) {
    FloatV scale = shift = FloatV{};
    for (int k = 0; k < n; ++k) {
      scale = fma(weight[k], load(vertex[k] + j), scale);
      shift = fma(weight[k], load(vertex[k] + row + j), shift);
    }
    gain = scale * root;
  }
};

// Rows of a layer's output, to hidden_.
template <bool Each, int Kind>
FF_LANE void CamTile::activate_rows(int l, const Layer& of, int rows) {
  int width = padded(p_.cam.hidden()), step = p_.stride(1);
  for (int i = 0; i < rows; ++i) {
    Modulation<Each> by(*this, l, of, i);
    for (int j = 0; j < width; j += kLanes) {
      by.at(j);
      store(hidden_ + i * step + j, activate(Kind, fma(by.gain, load(of.z + i * width + j), by.shift)));
    }
  }
}

// Cotangents of n rows, from after the activation to before it.
template <bool Each, int Kind>
FF_LANE void CamTile::activate_rows_vjp(int l, const Layer& of, float* d, int n) const {
  int width = padded(p_.cam.hidden()), step = p_.stride(1);
  for (int i = 0; i < n; ++i) {
    Modulation<Each> by(*this, l, of, i);
    for (int j = 0; j < width; j += kLanes) {
      by.at(j);
      FloatV before = fma(by.gain, load(of.z + i * width + j), by.shift);
      store(d + i * step + j, activate_vjp(Kind, before, before, load(d + i * step + j)));
    }
  }
}

// From cotangents d of n modulated rows to those of the product, in place, where one scale and shift do for all channels.
void CamTile::shared_vjp(int l, const Layer& of, float* d, float* d_grid, int n, bool at_gradient) {
  using Pair = Features<2>;
  int width = padded(p_.cam.hidden()), step = p_.stride(1);
  float sum_d[kTile], sum_dz[kTile], along[kTile];
  for (int i = 0; i < n; i += kTogether) {
    FloatV total[kTogether] = {}, total_z[kTogether] = {};
    for (int j = 0; j < width; j += kLanes) {
      for (int r = 0; r < kTogether; ++r) {
        FloatV dj = load(d + (i + r) * step + j);
        total[r] = total[r] + dj;
        total_z[r] = fma(dj, load(of.z + (i + r) * width + j), total_z[r]);
      }
    }
    for (int r = 0; r < kTogether; ++r) {
      sum_d[i + r] = sum_halves(total[r]);
      sum_dz[i + r] = sum_halves(total_z[r]);
    }
  }
  float share = p_.cam.normalised ? 1.0f / static_cast<float>(p_.cam.hidden()) : 0.0f;
  for (int i = 0; i < n; ++i) {
    float root = of.root[i], d_scale = root * sum_dz[i];
    along[i] = of.gain[i] * root * d_scale * share;
    Pair::Vector pair = {d_scale, sum_d[i]};
    for (int k = 0; k < n_corners_; ++k) {
      int at = k * kTile + i;
      float* to = d_grid + 2 * index_[at];
      Pair::store(to, Pair::fma(pair, weight_[at], Pair::load(to)));
      if (!at_gradient) continue;
      const float* vertex = p_.grids[l] + 2 * index_[at];
      d_weight_[at] += vertex[0] * d_scale + vertex[1] * sum_d[i];
    }
  }
  for (int i = 0; i < n; ++i) {
    FloatV gain = splat<FloatV>(of.gain[i]), less = splat<FloatV>(-along[i]);
    for (int j = 0; j < width; j += kLanes) {
      float* dj = d + i * step + j;
      store(dj, fma(less, load(of.z + i * width + j), gain * load(dj)));
    }
  }
}

// The same where each channel has its own.
void CamTile::each_vjp(int l, const Layer& of, float* d, float* d_grid, int n, bool at_gradient) {
  int width = padded(p_.cam.hidden()), step = p_.stride(1), row = p_.grid_row;
  float share = p_.cam.normalised ? 1.0f / static_cast<float>(p_.cam.hidden()) : 0.0f;
  for (int i = 0; i < n; ++i) {
    Modulation<true> by(*this, l, of, i);
    const float* z = of.z + i * width;
    float *of_row = d + i * step, *to[1 << kMaxAxes];
    for (int k = 0; k < n_corners_; ++k) {
      int at = k * kTile + i;
      to[k] = d_grid + static_cast<int64_t>(index_[at]) * 2 * row;
      if (!at_gradient) continue;
      FloatV dot{};
      for (int j = 0; j < width; j += kLanes) {
        FloatV y = load(z + j) * by.root;
        dot = fma(load(of_row + j), fma(load(by.vertex[k] + j), y, load(by.vertex[k] + row + j)), dot);
      }
      d_weight_[at] += sum_halves(dot);
    }
    FloatV sum{};
    for (int j = 0; j < width; j += kLanes) {
      by.at(j);
      FloatV d_shift = load(of_row + j), zj = load(z + j), d_scale = d_shift * zj * by.root, d_z = d_shift * by.gain;
      for (int k = 0; k < n_corners_; ++k) {
        store(to[k] + j, fma(by.weight[k], d_scale, load(to[k] + j)));
        store(to[k] + row + j, fma(by.weight[k], d_shift, load(to[k] + row + j)));
      }
      sum = fma(d_z, zj, sum);
      store(of_row + j, d_z);
    }
    FloatV less = by.root * by.root * splat<FloatV>(-share * sum_halves(sum));
    for (int j = 0; j < width && share > 0.0f; j += kLanes) store(of_row + j, fma(less, load(z + j), load(of_row + j)));
  }
}

// Calls f(each, activation), both constants, since they are asked for at every value.
template <class Call>
void CamTile::of_kind(Call call) const {
  auto all = [&](auto each) {
    p_.cam.mlp.activation == kSilu ? call(each, std::integral_constant<int, kSilu>{}) : call(each, std::integral_constant<int, kRelu>{});
  };
  p_.cam.each ? all(std::true_type{}) : all(std::false_type{});
}

const float* CamTile::run(int n, float* kept) {
  if (!kept) kept = own_;
  const Mlp& mlp = p_.cam.mlp;
  const float* h = input;
  int last = p_.layers() - 1, rows = round_rows(n), out = p_.stride(p_.layers()), width = padded(p_.cam.hidden());
  for (int l = 0; l < last; ++l) {
    Layer of = layer(kept, l);
    product_panels<Start::kRow>({h, p_.stride(l), 1, p_.forward[l], 0, of.z, width, p_.dim(l), p_.bias[l]}, rows, width);
    find_roots(of, rows);
    if (!p_.cam.each) fetch(l, of, n);
    of_kind([&](auto each, auto kind) { activate_rows<each, kind>(l, of, n); });
    h = hidden_;
  }
  float* z = outputs(kept);
  product_panels<Start::kRow>({h, p_.stride(last), 1, p_.forward[last], 0, z, out, p_.dim(last), p_.bias[last]}, rows, padded(p_.dim(last + 1)));
  if (mlp.output_activation == kIdentity) return z;
  for (int64_t i = 0; i < static_cast<int64_t>(n) * out; i += kLanes) store(values_ + i, activate(mlp.output_activation, load(z + i)));
  return values_;
}

const float* CamTile::run_back(int n, float* kept, CamSums& to, bool input_gradient, bool at_gradient) {
  if (!kept) kept = own_;
  const Mlp& mlp = p_.cam.mlp;
  int rows = round_rows(n);
  float* d = d_out;
  if (mlp.output_activation != kIdentity) {
    const float* z = outputs(kept);
    for (int64_t i = 0; i < static_cast<int64_t>(n) * p_.stride(p_.layers()); i += kLanes) {
      FloatV zi = load(z + i);
      store(d + i, activate_vjp(mlp.output_activation, zi, activate(mlp.output_activation, zi), load(d + i)));
    }
  }
  for (int l = p_.layers() - 1; l >= 0; --l) {
    int in = p_.stride(l), out = p_.stride(l + 1);
    Layer before = l ? layer(kept, l - 1) : Layer{};
    if (l) of_kind([&](auto each, auto kind) { activate_rows<each, kind>(l - 1, before, n); });  // the layer's input again
    add_outer({d, 1, out, l ? hidden_ : input, in, to.weights[l], in, n}, rounded4(p_.dim(l + 1)), padded(p_.dim(l)));
    add_rows(d, out, n, padded(p_.dim(l + 1)), to.bias[l]);
    if (l == 0 && !input_gradient) return nullptr;
    float* next = gradient_[l % 2];
    Product product{d, out, 1, p_.backward[l], 0, next, in, p_.dim(l + 1)};
    product.gate = hidden_;
    bool rectified = l && mlp.activation == kRelu;
    rectified ? product_panels<Start::kZero, End::kMask>(product, rows, padded(p_.dim(l))) : product_panels<Start::kZero>(product, rows, padded(p_.dim(l)));
    d = next;
    if (!l) break;
    if (!rectified) of_kind([&](auto each, auto kind) { activate_rows_vjp<each, kind>(l - 1, before, d, n); });
    p_.cam.each ? each_vjp(l - 1, before, d, to.grids[l - 1], n, at_gradient) : shared_vjp(l - 1, before, d, to.grids[l - 1], n, at_gradient);
  }
  return d;
}

}  // namespace fieldfit
