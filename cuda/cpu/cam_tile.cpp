// A modulated perceptron on a tile of samples, forward and backward.
#include "cam_tile.h"

namespace fieldfit {
namespace {

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
  for (int l = 0; l < layers(); ++l) {
    int in = dim(l), out = dim(l + 1);
    pack_panels(from, 1, in, in, out, to);
    forward[l] = to;
    to += static_cast<size_t>(in) * padded(out);
    pack_panels(from, in, 1, out, in, to);
    backward[l] = to;
    to += static_cast<size_t>(out) * padded(in);
    from += static_cast<size_t>(in) * out;
    memcpy(to, from, sizeof(float) * out);
    bias[l] = to;
    to += padded(out);
    from += out;
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

CamTile::CamTile(const PackedCam& packed) : p_(packed), corners_(kTile), n_corners_(1 << packed.cam.n_axes) {
  size_t in = p_.stride(0), width = p_.stride(1), out = p_.stride(p_.layers());
  size_t widest = std::max(std::max(in, width), out);
  size_t rows = in + width + 2 * out + 2 * widest;
  scratch_ = Aligned(sizeof(float) * (kTile * rows + p_.kept_floats() + 4 * width));
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
  for (float** row : {&scale_, &shift_, &d_scale_, &d_shift_}) *row = take(width);
  int hidden = p_.cam.hidden();
  for (int l = 0; l < kLanes; ++l) last_lanes_[l] = padded(hidden) - kLanes + l < hidden ? 1.0f : 0.0f;
}

void CamTile::locate_all(const float* at, int n) {
  const Cam& cam = p_.cam;
  for (int i = 0; i < n; ++i) {
    Corners& c = corners_[i];
    c.index[0] = 0;
    c.weight[0] = 1.0f;
    int32_t step = 1;
    for (int a = 0; a < cam.n_axes; ++a) {
      AxisPlace<float> place = locate(at[static_cast<int64_t>(i) * cam.n_axes + a], cam.axes[a]);
      for (int k = 0, half = 1 << a; k < half; ++k) {
        c.index[k + half] = c.index[k] + step * place.second;
        c.weight[k + half] = c.weight[k] * place.fraction;
        c.index[k] += step * place.first;
        c.weight[k] *= 1.0f - place.fraction;
      }
      step *= cam.axes[a].vertices;
    }
    std::fill_n(c.d_weight, n_corners_, 0.0f);
  }
}

void CamTile::at_vjp(int i, const float* at, float* d_at) const {
  const Cam& cam = p_.cam;
  AxisPlace<float> places[kMaxAxes];
  for (int a = 0; a < cam.n_axes; ++a) places[a] = locate(at[a], cam.axes[a]);
  for (int a = 0; a < cam.n_axes; ++a) {
    float sum = 0.0f;
    for (int k = 0; k < n_corners_; ++k) {
      float product = corners_[i].d_weight[k];
      for (int b = 0; b < cam.n_axes; ++b) {
        if (b != a) product *= k >> b & 1 ? places[b].fraction : 1.0f - places[b].fraction;
      }
      sum += k >> a & 1 ? product : -product;
    }
    d_at[a] = sum * places[a].slope;
  }
}

// Scale and shift of one sample in layer l.
void CamTile::fetch(int l, const Corners& at) {
  const float* grid = p_.grids[l];
  if (!p_.cam.each) {
    float scale = 0.0f, shift = 0.0f;
    for (int k = 0; k < n_corners_; ++k) {
      scale = fma(at.weight[k], grid[2 * at.index[k]], scale);
      shift = fma(at.weight[k], grid[2 * at.index[k] + 1], shift);
    }
    scale_[0] = scale;
    shift_[0] = shift;
    return;
  }
  int row = p_.grid_row;
  for (int j = 0; j < row; j += kLanes) {
    FloatV scale{}, shift{};
    for (int k = 0; k < n_corners_; ++k) {
      const float* vertex = grid + static_cast<int64_t>(at.index[k]) * 2 * row + j;
      FloatV w = splat<FloatV>(at.weight[k]);
      scale = fma(w, load(vertex), scale);
      shift = fma(w, load(vertex + row), shift);
    }
    store(scale_ + j, scale);
    store(shift_ + j, shift);
  }
}

// A row less its mean, over the root of its variance.
void CamTile::normalise_row(float* y, float* root) const {
  int width = padded(p_.cam.hidden());
  float share = 1.0f / static_cast<float>(p_.cam.hidden());
  FloatV total{};
  for (int j = 0; j < width; j += kLanes) total = total + load(y + j);  // what is behind the last channel is zero
  FloatV mean = splat<FloatV>(sum_halves(total) * share), squares{};
  for (int j = 0; j < width - kLanes; j += kLanes) {
    FloatV d = load(y + j) - mean;
    squares = fma(d, d, squares);
  }
  FloatV last = (load(y + width - kLanes) - mean) * load(last_lanes_);
  squares = fma(last, last, squares);
  *root = 1.0f / sqrt_(sum_halves(squares) * share + kNormEps);
  FloatV r = splat<FloatV>(*root);
  for (int j = 0; j < width; j += kLanes) store(y + j, (load(y + j) - mean) * r);
}

// With what was fetched.
void CamTile::activate_row(const float* y, float* h) const {
  int width = padded(p_.cam.hidden()), kind = p_.cam.mlp.activation;
  auto run = [&](auto scale, auto shift) {
    for (int j = 0; j < width; j += kLanes) store(h + j, modulate(kind, load(y + j), scale(j), shift(j)));
  };
  if (p_.cam.each) return run([&](int j) { return load(scale_ + j); }, [&](int j) { return load(shift_ + j); });
  FloatV scale = splat<FloatV>(scale_[0]), shift = splat<FloatV>(shift_[0]);
  run([&](int) { return scale; }, [&](int) { return shift; });
}

// From the cotangents d of the layer's output, with what was fetched, to those of the product, in place.
void CamTile::row_vjp(int l, Corners& at, const float* y, float root, float* d, float* d_grid, bool at_gradient) {
  const Cam& cam = p_.cam;
  int width = padded(cam.hidden()), kind = cam.mlp.activation, row = p_.grid_row;
  bool each = cam.each;
  FloatV one_scale = splat<FloatV>(scale_[0]), one_shift = splat<FloatV>(shift_[0]), sum_d{}, sum_dy{};
  for (int j = 0; j < width; j += kLanes) {
    FloatV scale = each ? load(scale_ + j) : one_scale, shift = each ? load(shift_ + j) : one_shift, yj = load(y + j);
    FloatV d_z = modulate_vjp(kind, yj, scale, shift, load(d + j));
    if (each) {
      store(d_scale_ + j, d_z * yj);
      store(d_shift_ + j, d_z);
      d_z = d_z * scale;
    }
    sum_d = sum_d + d_z;
    sum_dy = fma(d_z, yj, sum_dy);
    store(d + j, d_z);
  }
  float total = sum_halves(sum_d), total_y = sum_halves(sum_dy);
  FloatV factor = splat<FloatV>(1.0f);
  if (!each) {
    d_scale_[0] = total_y;
    d_shift_[0] = total;
    factor = one_scale;
    total *= scale_[0];
    total_y *= scale_[0];
  }
  float share = 1.0f / static_cast<float>(cam.hidden());
  FloatV mean = splat<FloatV>(total * share), mean_y = splat<FloatV>(total_y * share), r = splat<FloatV>(root);
  for (int j = 0; j < width; j += kLanes) {
    FloatV d_y = load(d + j) * factor;
    store(d + j, cam.normalised ? normalise_vjp(load(y + j), r, d_y, mean, mean_y) : d_y);
  }
  for (int k = 0; k < n_corners_; ++k) {
    int64_t vertex = static_cast<int64_t>(at.index[k]) * 2 * row;
    const float* g = p_.grids[l] + vertex;
    float w = at.weight[k];
    if (!each) {
      d_grid[vertex] = fma(w, d_scale_[0], d_grid[vertex]);
      d_grid[vertex + 1] = fma(w, d_shift_[0], d_grid[vertex + 1]);
      at.d_weight[k] += g[0] * d_scale_[0] + g[1] * d_shift_[0];
      continue;
    }
    FloatV dot{}, wv = splat<FloatV>(w);
    for (int j = 0; j < row; j += kLanes) {
      FloatV d_scale = load(d_scale_ + j), d_shift = load(d_shift_ + j);
      store(d_grid + vertex + j, fma(wv, d_scale, load(d_grid + vertex + j)));
      store(d_grid + vertex + row + j, fma(wv, d_shift, load(d_grid + vertex + row + j)));
      if (at_gradient) dot = fma(load(g + row + j), d_shift, fma(load(g + j), d_scale, dot));
    }
    at.d_weight[k] += sum_halves(dot);
  }
}

const float* CamTile::run(int n, float* kept) {
  if (!kept) kept = own_;
  const Mlp& mlp = p_.cam.mlp;
  const float* h = input;
  int last = p_.layers() - 1, rows = round_rows(n), width = p_.stride(1), out = p_.stride(p_.layers());
  for (int l = 0; l <= last; ++l) {
    float* z = l < last ? normalised(kept, l) : outputs(kept);
    int to = p_.stride(l + 1);
    product_panels<Start::kRow>({h, p_.stride(l), 1, p_.forward[l], 0, z, to, p_.dim(l), p_.bias[l]}, rows, padded(p_.dim(l + 1)));
    if (l == last) break;
    for (int i = 0; i < n; ++i) {
      float* y = z + static_cast<int64_t>(i) * width;
      if (p_.cam.normalised) normalise_row(y, roots(kept, l) + i);
      fetch(l, corners_[i]);
      activate_row(y, hidden_ + static_cast<int64_t>(i) * width);
    }
    h = hidden_;
  }
  const float* z = outputs(kept);
  if (mlp.output_activation == kIdentity) return z;
  for (int64_t i = 0; i < static_cast<int64_t>(n) * out; i += kLanes) store(values_ + i, activate(mlp.output_activation, load(z + i)));
  return values_;
}

const float* CamTile::run_back(int n, float* kept, CamSums& to, bool input_gradient, bool at_gradient) {
  if (!kept) kept = own_;
  const Mlp& mlp = p_.cam.mlp;
  int rows = round_rows(n), width = p_.stride(1);
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
    for (int i = 0; l > 0 && i < n; ++i) {  // the layer's input again
      fetch(l - 1, corners_[i]);
      activate_row(normalised(kept, l - 1) + static_cast<int64_t>(i) * width, hidden_ + static_cast<int64_t>(i) * width);
    }
    add_outer({d, 1, out, l ? hidden_ : input, in, to.weights[l], in, n}, rounded4(p_.dim(l + 1)), padded(p_.dim(l)));
    add_rows(d, out, n, padded(p_.dim(l + 1)), to.bias[l]);
    if (l == 0 && !input_gradient) return nullptr;
    float* next = gradient_[l % 2];
    product_panels<Start::kZero>({d, out, 1, p_.backward[l], 0, next, in, p_.dim(l + 1)}, rows, padded(p_.dim(l)));
    for (int i = 0; l > 0 && i < n; ++i) {
      fetch(l - 1, corners_[i]);
      const float* y = normalised(kept, l - 1) + static_cast<int64_t>(i) * width;
      row_vjp(l - 1, corners_[i], y, roots(kept, l - 1)[i], next + static_cast<int64_t>(i) * width, to.grids[l - 1], at_gradient);
    }
    d = next;
  }
  return d;
}

}  // namespace fieldfit
