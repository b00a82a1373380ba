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

CamTile::CamTile(const PackedCam& packed) : p_(packed), n_corners_(1 << packed.cam.n_axes) {
  index_.resize(kTile * n_corners_);
  weight_.resize(kTile * n_corners_);
  d_weight_.resize(kTile * n_corners_);
  size_t in = p_.stride(0), width = p_.stride(1), out = p_.stride(p_.layers());
  size_t widest = std::max(std::max(in, width), out);
  size_t rows = in + 2 * width + 2 * out + 2 * widest;
  scratch_ = Aligned(sizeof(float) * (kTile * rows + p_.kept_floats() + 4 * kTogether * width));
  float* to = reinterpret_cast<float*>(scratch_.data());
  auto take = [&](size_t count) {
    float* here = to;
    to += count;
    return here;
  };
  input = take(kTile * in);
  product_ = take(kTile * width);
  hidden_ = take(kTile * width);
  d_out = take(kTile * out);
  values_ = take(kTile * out);
  for (float*& gradient : gradient_) gradient = take(kTile * widest);
  own_ = take(p_.kept_floats());
  for (float** row : {&scale_, &shift_, &d_scale_, &d_shift_}) *row = take(kTogether * width);
  int hidden = p_.cam.hidden();
  for (int l = 0; l < kLanes; ++l) last_lanes_[l] = padded(hidden) - kLanes + l < hidden ? 1.0f : 0.0f;
}

void CamTile::locate_all(const float* at, int n) {
  const Cam& cam = p_.cam;
  for (int i = 0; i < n; ++i) {
    Corners c = corners(i);
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
      float product = d_weight_[i * n_corners_ + k];
      for (int b = 0; b < cam.n_axes; ++b) {
        if (b != a) product *= k >> b & 1 ? places[b].fraction : 1.0f - places[b].fraction;
      }
      sum += k >> a & 1 ? product : -product;
    }
    d_at[a] = sum * places[a].slope;
  }
}

// Scale and shift in layer l of sample i, into row r of those at hand.
template <bool Each>
FF_LANE void CamTile::fetch(int l, int i, int r) {
  const float* grid = p_.grids[l];
  Corners at = corners(i);
  int row = p_.grid_row, n_corners = n_corners_;
  if constexpr (!Each) {
    float scale = 0.0f, shift = 0.0f;
    for (int k = 0; k < n_corners; ++k) {
      scale = fma(at.weight[k], grid[2 * at.index[k]], scale);
      shift = fma(at.weight[k], grid[2 * at.index[k] + 1], shift);
    }
    scale_[r] = scale;
    shift_[r] = shift;
    return;
  }
  float *scale_row = scale_ + r * p_.stride(1), *shift_row = shift_ + r * p_.stride(1);
  for (int j = 0; j < row; j += kLanes) {
    FloatV scale{}, shift{};
    for (int k = 0; k < n_corners; ++k) {
      const float* vertex = grid + static_cast<int64_t>(at.index[k]) * 2 * row + j;
      FloatV w = splat<FloatV>(at.weight[k]);
      scale = fma(w, load(vertex), scale);
      shift = fma(w, load(vertex + row), shift);
    }
    store(scale_row + j, scale);
    store(shift_row + j, shift);
  }
}

// Means of R rows, and one over the roots of their variances.
template <int R>
FF_LANE void CamTile::find_norms(const float* z, FloatV* mean, FloatV* root) const {
  int width = padded(p_.cam.hidden()), step = p_.stride(1);
  float share = 1.0f / static_cast<float>(p_.cam.hidden());
  FloatV total[R], squares[R], there = load(last_lanes_);
  for (int r = 0; r < R; ++r) total[r] = squares[r] = splat<FloatV>(0.0f);
  for (int j = 0; j < width; j += kLanes) {
    for (int r = 0; r < R; ++r) total[r] = total[r] + load(z + r * step + j);  // what is behind the last channel is zero
  }
  for (int r = 0; r < R; ++r) mean[r] = splat<FloatV>(sum_halves(total[r]) * share);
  for (int j = 0; j < width - kLanes; j += kLanes) {
    for (int r = 0; r < R; ++r) {
      FloatV d = load(z + r * step + j) - mean[r];
      squares[r] = fma(d, d, squares[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    FloatV last = (load(z + r * step + width - kLanes) - mean[r]) * there;
    root[r] = splat<FloatV>(1.0f / sqrt_(sum_halves(fma(last, last, squares[r])) * share + kNormEps));
  }
}

// R rows of what layer l's product gave, from sample i on: normalised to `kept`, modulated and activated to hidden_.
template <int R, bool Each, int Kind>
FF_LANE void CamTile::forward_rows(int l, int i, float* kept) {
  int width = padded(p_.cam.hidden()), step = p_.stride(1);
  const float *z = product_ + i * step, *scales = scale_, *shifts = shift_;
  float *h = hidden_ + i * step, *y = normalised(kept, l) + i * width;
  FloatV mean[R], root[R];
  for (int r = 0; r < R; ++r) {
    mean[r] = splat<FloatV>(0.0f);
    root[r] = splat<FloatV>(1.0f);
    fetch<Each>(l, i + r, r);
  }
  if (p_.cam.normalised) find_norms<R>(z, mean, root);
  for (int r = 0; r < R; ++r) roots(kept, l)[i + r] = root[r][0];
  for (int r = 0; r < R; ++r) {
    FloatV scale = splat<FloatV>(scale_[r]), shift = splat<FloatV>(shift_[r]);
    for (int j = 0; j < width; j += kLanes) {
      int at = r * step + j;
      if (Each) scale = load(scales + at), shift = load(shifts + at);
      FloatV yj = (load(z + at) - mean[r]) * root[r];
      store(y + r * width + j, yj);
      store(h + at, modulate(Kind, yj, scale, shift));
    }
  }
}

// R rows of hidden_ again, from what was kept of them.
template <int R, bool Each, int Kind>
FF_LANE void CamTile::activate_rows(int l, int i, const float* y) {
  int width = padded(p_.cam.hidden()), step = p_.stride(1);
  for (int r = 0; r < R; ++r) {
    fetch<Each>(l, i + r, r);
    FloatV scale = splat<FloatV>(scale_[r]), shift = splat<FloatV>(shift_[r]);
    const float *scales = scale_ + r * step, *shifts = shift_ + r * step, *from = y + (i + r) * width;
    float* h = hidden_ + (i + r) * step;
    for (int j = 0; j < width; j += kLanes) {
      if (Each) scale = load(scales + j), shift = load(shifts + j);
      store(h + j, modulate(Kind, load(from + j), scale, shift));
    }
  }
}

// From cotangents d of R rows of the layer's output, from sample i on, to those of the product, in place.
template <int R, bool Each, int Kind>
FF_LANE void CamTile::rows_vjp(int l, int i, float* kept, float* d, float* d_grid, bool at_gradient) {
  const Cam& cam = p_.cam;
  int width = padded(cam.hidden()), step = p_.stride(1);
  const float* y = normalised(kept, l) + i * width;
  d += i * step;
  const float *scales = scale_, *shifts = shift_;
  float *d_scales = d_scale_, *d_shifts = d_shift_;
  FloatV scale[R], shift[R], sum_d[R], sum_dy[R];
  for (int r = 0; r < R; ++r) {
    fetch<Each>(l, i + r, r);
    scale[r] = splat<FloatV>(scale_[r]);
    shift[r] = splat<FloatV>(shift_[r]);
    sum_d[r] = sum_dy[r] = splat<FloatV>(0.0f);
  }
  for (int j = 0; j < width; j += kLanes) {
    for (int r = 0; r < R; ++r) {
      int at = r * step + j;
      if (Each) scale[r] = load(scales + at), shift[r] = load(shifts + at);
      FloatV yj = load(y + r * width + j), d_z = modulate_vjp(Kind, yj, scale[r], shift[r], load(d + at));
      if (Each) {
        store(d_scales + at, d_z * yj);
        store(d_shifts + at, d_z);
        d_z = d_z * scale[r];
      }
      sum_d[r] = sum_d[r] + d_z;
      sum_dy[r] = fma(d_z, yj, sum_dy[r]);
      store(d + at, d_z);
    }
  }
  float share = 1.0f / static_cast<float>(cam.hidden());
  FloatV factor[R], mean[R], mean_y[R];
  for (int r = 0; r < R; ++r) {
    float total = sum_halves(sum_d[r]), total_y = sum_halves(sum_dy[r]), of_y = 1.0f;
    if (!Each) {
      d_scales[r] = total_y;
      d_shifts[r] = total;
      of_y = scale_[r];
    }
    factor[r] = splat<FloatV>(of_y);
    mean[r] = splat<FloatV>(total * of_y * share);
    mean_y[r] = splat<FloatV>(total_y * of_y * share);
  }
  for (int r = 0; r < R; ++r) {
    FloatV root = splat<FloatV>(roots(kept, l)[i + r]);
    for (int j = 0; j < width; j += kLanes) {
      int at = r * step + j;
      FloatV d_y = load(d + at) * factor[r];
      store(d + at, cam.normalised ? normalise_vjp(load(y + r * width + j), root, d_y, mean[r], mean_y[r]) : d_y);
    }
  }
  for (int r = 0; r < R; ++r) scatter<Each>(l, corners(i + r), r, d_grid, at_gradient);
}

// Cotangents of scale and shift in row r to the vertices around, and to the weights of these.
template <bool Each>
FF_LANE void CamTile::scatter(int l, Corners at, int r, float* d_grid, bool at_gradient) {
  int row = p_.grid_row, n_corners = n_corners_;
  const float *d_scales = d_scale_ + r * p_.stride(1), *d_shifts = d_shift_ + r * p_.stride(1);
  for (int k = 0; k < n_corners; ++k) {
    int64_t vertex = static_cast<int64_t>(at.index[k]) * 2 * row;
    const float* g = p_.grids[l] + vertex;
    float w = at.weight[k];
    if constexpr (!Each) {
      d_grid[vertex] = fma(w, d_scale_[r], d_grid[vertex]);
      d_grid[vertex + 1] = fma(w, d_shift_[r], d_grid[vertex + 1]);
      at.d_weight[k] += g[0] * d_scale_[r] + g[1] * d_shift_[r];
      continue;
    }
    FloatV dot{}, wv = splat<FloatV>(w);
    for (int j = 0; j < row; j += kLanes) {
      FloatV d_scale = load(d_scales + j), d_shift = load(d_shifts + j);
      store(d_grid + vertex + j, fma(wv, d_scale, load(d_grid + vertex + j)));
      store(d_grid + vertex + row + j, fma(wv, d_shift, load(d_grid + vertex + row + j)));
      if (at_gradient) dot = fma(load(g + row + j), d_shift, fma(load(g + j), d_scale, dot));
    }
    at.d_weight[k] += sum_halves(dot);
  }
}

// Calls f(rows, each, activation, i) for `rows` rows from i on, kTogether and then one by one until there were n; all but i
// are constants, since they are asked for at every value.
template <class Call>
void CamTile::for_rows(int n, Call call) const {
  auto all = [&](auto each, auto kind) {
    int i = 0;
    for (; i + kTogether <= n; i += kTogether) call(std::integral_constant<int, kTogether>{}, each, kind, i);
    for (; i < n; ++i) call(std::integral_constant<int, 1>{}, each, kind, i);
  };
  auto of_kind = [&](auto each) {
    p_.cam.mlp.activation == kSilu ? all(each, std::integral_constant<int, kSilu>{}) : all(each, std::integral_constant<int, kRelu>{});
  };
  p_.cam.each ? of_kind(std::true_type{}) : of_kind(std::false_type{});
}

const float* CamTile::run(int n, float* kept) {
  if (!kept) kept = own_;
  const Mlp& mlp = p_.cam.mlp;
  const float* h = input;
  int last = p_.layers() - 1, rows = round_rows(n), out = p_.stride(p_.layers());
  for (int l = 0; l <= last; ++l) {
    float* to = l < last ? product_ : outputs(kept);
    product_panels<Start::kRow>({h, p_.stride(l), 1, p_.forward[l], 0, to, p_.stride(l + 1), p_.dim(l), p_.bias[l]}, rows, padded(p_.dim(l + 1)));
    if (l == last) break;
    for_rows(n, [&](auto r, auto each, auto kind, int i) { forward_rows<r, each, kind>(l, i, kept); });
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
    if (l) {  // the layer's input again
      for_rows(n, [&](auto r, auto each, auto kind, int i) { activate_rows<r, each, kind>(l - 1, i, normalised(kept, l - 1)); });
    }
    add_outer({d, 1, out, l ? hidden_ : input, in, to.weights[l], in, n}, rounded4(p_.dim(l + 1)), padded(p_.dim(l)));
    add_rows(d, out, n, padded(p_.dim(l + 1)), to.bias[l]);
    if (l == 0 && !input_gradient) return nullptr;
    float* next = gradient_[l % 2];
    product_panels<Start::kZero>({d, out, 1, p_.backward[l], 0, next, in, p_.dim(l + 1)}, rows, padded(p_.dim(l)));
    if (l) {
      for_rows(n, [&](auto r, auto each, auto kind, int i) { rows_vjp<r, each, kind>(l - 1, i, kept, next, to.grids[l - 1], at_gradient); });
    }
    d = next;
  }
  return d;
}

}  // namespace fieldfit
