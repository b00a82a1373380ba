// Latents of all levels at the size of the image: each level is doubled, by a short symmetric filter in both directions, until
// it has that size. The even values of a doubled row lie a quarter before those of the row, the odd ones a quarter after:
//   out[2k] = sum_t f[t] x[k - 2 + t],   out[2k + 1] = sum_t f[3 - t] x[k - 1 + t],   edges repeated.
#include "codec_dense.h"
#include "threads.h"

namespace fieldfit {
namespace {

constexpr int kEdge = 16;  // values before and after a row, of which two at each side are read

// Rows and sums of one thread.
struct Doubling {
  explicit Doubling(int width) : size((width + 15) / 16 * 16 + 2 * kEdge), memory(sizeof(float) * 5 * size) {
    float* at = reinterpret_cast<float*>(memory.data()) + kEdge;
    for (float** p : {&middle, &even, &odd, &d_middle, &spare}) {
      *p = at;
      at += size;
    }
  }
  int size;
  Aligned memory;
  float *middle, *even, *odd, *d_middle, *spare;
};

struct Rows {
  const float* of[kTaps];
  int index[kTaps];
};

Rows rows_for(const Plane& from, int y) {
  Rows r;
  int first = y % 2 ? y / 2 - 1 : y / 2 - 2;
  for (int t = 0; t < kTaps; ++t) {
    r.index[t] = std::min(std::max(first + t, 0), from.height - 1);
    r.of[t] = from.row(r.index[t]);
  }
  return r;
}

FF_LANE float tap(const float* f, int y, int t) { return y % 2 ? f[kTaps - 1 - t] : f[t]; }

// The filter down the columns, with edges repeated at both sides.
void filter_columns(const float* f, const Plane& from, int y, float* middle) {
  Rows rows = rows_for(from, y);
  FloatV w[kTaps];
  for (int t = 0; t < kTaps; ++t) w[t] = splat<FloatV>(tap(f, y, t));
  for (int x = 0; x < from.width; x += kLanes) {
    FloatV v = w[0] * load(rows.of[0] + x);
    for (int t = 1; t < kTaps; ++t) v = fma(w[t], load(rows.of[t] + x), v);
    store(middle + x, v);
  }
  middle[-1] = middle[-2] = middle[0];
  middle[from.width] = middle[from.width + 1] = middle[from.width - 1];
}

void double_row(const float* f, const Plane& from, const Plane& to, int y, Doubling& d) {
  filter_columns(f, from, y, d.middle);
  for (int x = 0; x < from.width; x += kLanes) {
    FloatV e{}, o{};
    for (int t = 0; t < kTaps; ++t) {
      e = fma(splat<FloatV>(f[t]), load(d.middle + x - 2 + t), e);
      o = fma(splat<FloatV>(f[kTaps - 1 - t]), load(d.middle + x - 1 + t), o);
    }
    store(d.even + x, e);
    store(d.odd + x, o);
  }
  float* out = to.row(y);
  int pairs = to.width / 2;
  for (int x = 0; x < pairs; ++x) {
    out[2 * x] = d.even[x];
    out[2 * x + 1] = d.odd[x];
  }
  if (to.width % 2) out[to.width - 1] = d.even[pairs];
}

// Adds to the cotangents of `from` and to the sums for the filter.
void double_row_backward(const float* f, const Plane& from, const Plane& d_from, const Plane& d_to, int y, Doubling& d, FloatV* d_f) {
  filter_columns(f, from, y, d.middle);
  const float* d_out = d_to.row(y);
  int width = from.width, pairs = d_to.width / 2;
  int whole = (width + kLanes - 1) / kLanes * kLanes;
  for (float* row : {d.even, d.odd}) {  // zeros around what is there
    std::fill(row - kEdge, row, 0.0f);
    std::fill(row + pairs, row + whole + kEdge, 0.0f);
  }
  for (int x = 0; x < pairs; ++x) {
    d.even[x] = d_out[2 * x];
    d.odd[x] = d_out[2 * x + 1];
  }
  if (d_to.width % 2) d.even[pairs] = d_out[d_to.width - 1];
  FloatV sums[kTaps] = {};
  for (int x = 0; x < width; x += kLanes) {
    FloatV e = load(d.even + x), o = load(d.odd + x);
    for (int t = 0; t < kTaps; ++t) {
      sums[t] = fma(e, load(d.middle + x - 2 + t), sums[t]);
      sums[kTaps - 1 - t] = fma(o, load(d.middle + x - 1 + t), sums[kTaps - 1 - t]);
    }
  }
  auto gather = [&](int x) {
    FloatV g{};
    for (int t = 0; t < kTaps; ++t) {
      g = fma(splat<FloatV>(f[t]), load(d.even + x + 2 - t), g);
      g = fma(splat<FloatV>(f[kTaps - 1 - t]), load(d.odd + x + 1 - t), g);
    }
    return g;
  };
  float before = 0, after = 0;
  FloatV head = gather(-2), tail = gather(width);
  before = head[0] + head[1];
  after = tail[0] + tail[1];
  for (int x = 0; x < width; x += kLanes) store(d.d_middle + x, lanes_below(gather(x), width - x));
  d.d_middle[0] += before;
  d.d_middle[width - 1] += after;
  Rows rows = rows_for(from, y);
  for (int t = 0; t < kTaps; ++t) {
    FloatV w = splat<FloatV>(tap(f, y, t)), s{};
    float* to = d_from.row(rows.index[t]);
    for (int x = 0; x < width; x += kLanes) {
      FloatV g = load(d.d_middle + x);
      s = fma(g, lanes_below(load(rows.of[t] + x), width - x), s);
      store(to + x, fma(w, g, load(to + x)));
    }
    int which = y % 2 ? kTaps - 1 - t : t;
    sums[which] = sums[which] + s;
  }
  for (int t = 0; t < kTaps; ++t) d_f[t] = d_f[t] + sums[t];
}

}  // namespace

void CodecModel::upsample(const float* filters) {
  for (int i = kLevels - 1; i >= 0; --i) {
    const Plane& own = pyramid_[at(i, i)];
    for (int y = 0; y < own.height; ++y) memcpy(own.row(y), latents_[i].row(y), sizeof(float) * own.width);
    int coarser = kLevels - 1 - i;
    if (coarser == 0) continue;
    const float* f = filters + i * kTaps;
#pragma omp parallel num_threads(threads_for(static_cast<int64_t>(own.height) * own.width * coarser, 8192))
    {
      Doubling d(own.width);
#pragma omp for collapse(2) schedule(static)
      for (int j = 0; j < coarser; ++j) {
        for (int y = 0; y < own.height; ++y) double_row(f, pyramid_[at(i + 1, i + 1 + j)], pyramid_[at(i, i + 1 + j)], y, d);
      }
    }
  }
}

void CodecModel::upsample_backward(const float* filters, float* d_filters) {
  for (int i = 0; i + 1 < kLevels; ++i) {
    int coarser = kLevels - 1 - i;
    const float* f = filters + i * kTaps;
    Sums sums(static_cast<size_t>(coarser) * kTaps);
    const Plane& own = pyramid_[at(i, i)];
#pragma omp parallel num_threads(threads_for(static_cast<int64_t>(own.height) * own.width * coarser, 8192))
    {
      Doubling d(own.width);
#pragma omp for schedule(static)
      for (int j = 0; j < coarser; ++j) {  // rows of a plane share cotangents: one thread for each plane
        const Plane& d_from = d_pyramid_[at(i + 1, i + 1 + j)];
        for (int y = 0; y < d_from.height; ++y) std::fill(d_from.row(y), d_from.row(y) + d_from.width, 0.0f);
        for (int y = 0; y < own.height; ++y) {
          double_row_backward(f, pyramid_[at(i + 1, i + 1 + j)], d_from, d_pyramid_[at(i, i + 1 + j)], y, d,
                              sums.data() + j * kTaps);
        }
      }
    }
    for (int j = 0; d_filters && j < coarser; ++j) {
      for (int t = 0; t < kTaps; ++t) d_filters[i * kTaps + t] += sum(sums.data()[j * kTaps + t]);
    }
  }
}

}  // namespace fieldfit
