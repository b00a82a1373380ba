// From the pyramid to pixels, and what they differ from the image by, with gradients of all that took part:
//   o = W2 max(W1 s + b1, 0) + b2 (+ what is known) at every pixel, p = max(o + K1 * o + c1, 0), q = p + K2 * p + c2 with filters of 3 x 3.
#include <array>

#include "codec_dense.h"
#include "threads.h"

namespace fieldfit {
namespace {

// Parameters, or sums of gradients, in their order.
template <class T>
struct Synthesis {
  Synthesis(const CodecShape& s, T* p) {
    filters = p;
    w1 = filters + (kLevels - 1) * kTaps;
    b1 = w1 + s.hidden * s.inputs();
    w2 = b1 + s.hidden;
    b2 = w2 + s.channels * s.hidden;
    k1 = b2 + s.channels;
    c1 = k1 + 9 * s.channels * s.channels;
    k2 = c1 + s.channels;
    c2 = k2 + 9 * s.channels * s.channels;
  }
  T *filters, *w1, *b1, *w2, *b2, *k1, *c1, *k2, *c2;
};

// Row y with its edges repeated once at both sides.
void repeat_edges(const Plane& p, int y) {
  float* row = p.row(y);
  row[-1] = row[0];
  row[p.width] = row[p.width - 1];
  if (y == 0) memcpy(p.row(-1) - 1, row - 1, sizeof(float) * (p.width + 2));
  if (y == p.height - 1) memcpy(p.row(p.height) - 1, row - 1, sizeof(float) * (p.width + 2));
}

// V vectors of `from` + K * `from` + c from x on, or its positive part.
template <int C, int V>
FF_LANE void filter_at(const Planes& from, const float* k, const float* bias, bool rectify, const Planes& to, int y, int x) {
  FloatV acc[C][V];
  for (int o = 0; o < C; ++o) {
    for (int v = 0; v < V; ++v) acc[o][v] = splat<FloatV>(bias[o]) + load(from[o].row(y) + x + v * kLanes);
  }
  for (int i = 0; i < C; ++i) {
    for (int dy = 0; dy < 3; ++dy) {
      const float* row = from[i].row(y + dy - 1) + x - 1;
#pragma GCC unroll 3
      for (int dx = 0; dx < 3; ++dx) {
        FloatV s[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) s[v] = load(row + dx + v * kLanes);
#pragma GCC unroll 4
        for (int o = 0; o < C; ++o) {
          FloatV w = splat<FloatV>(k[((o * C + i) * 3 + dy) * 3 + dx]);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[o][v] = fma(w, s[v], acc[o][v]);
        }
      }
    }
  }
  for (int o = 0; o < C; ++o) {
    for (int v = 0; v < V; ++v) store(to[o].row(y) + x + v * kLanes, rectify ? maximum(acc[o][v], FloatV{}) : acc[o][v]);
  }
}

// Columns first .. end - 1 of row y; what a vector has beyond is written into the margin.
template <int C>
void filter(const Planes& from, const float* k, const float* bias, bool rectify, const Planes& to, int y, int first, int end) {
  constexpr int V = kLanes == 16 ? 4 : 2;
  int x = first;
  for (; x + V * kLanes <= end; x += V * kLanes) filter_at<C, V>(from, k, bias, rectify, to, y, x);
  for (; x < end; x += kLanes) filter_at<C, 1>(from, k, bias, rectify, to, y, x);
}

// The filter that takes cotangents back: K with its channels exchanged, turned by half a turn.
template <int C>
std::array<float, 9 * C * C> turned(const float* k) {
  std::array<float, 9 * C * C> to;
  for (int o = 0; o < C; ++o) {
    for (int i = 0; i < C; ++i) {
      for (int t = 0; t < 9; ++t) to[(i * C + o) * 9 + 8 - t] = k[(o * C + i) * 9 + t];
    }
  }
  return to;
}

template <int C>
void filter_sums(const Planes& d_to, const Planes& from, int y, FloatV* d_k, FloatV* d_bias) {
  int width = from[0].width;
  for (int o = 0; o < C; ++o) {
    const float* d = d_to[o].row(y);
    for (int dy = 0; dy < 3; ++dy) {
      FloatV acc[C][3] = {}, total{};
      for (int x = 0; x < width; x += kLanes) {
        FloatV g = load(d + x);
        total = total + g;
#pragma GCC unroll 4
        for (int i = 0; i < C; ++i) {
#pragma GCC unroll 3
          for (int dx = 0; dx < 3; ++dx) acc[i][dx] = fma(g, load(from[i].row(y + dy - 1) + x + dx - 1), acc[i][dx]);
        }
      }
      for (int i = 0; i < C; ++i) {
        for (int dx = 0; dx < 3; ++dx) {
          FloatV& to = d_k[((o * C + i) * 3 + dy) * 3 + dx];
          to = to + acc[i][dx];
        }
      }
      if (dy == 0) d_bias[o] = d_bias[o] + total;
    }
  }
}

// What was computed outside of the image belongs to its edge; afterwards it is zero there.
void fold_edges(const Planes& planes) {
  for (size_t c = 0; c < planes.count(); ++c) {
    const Plane& p = planes[c];
    auto fold_row = [&](int from, int to) {
      for (int x = -1; x <= p.width; ++x) p.row(to)[x] += p.row(from)[x];
      std::fill(p.row(from) - 1, p.row(from) + p.width + kLanes, 0.0f);
    };
    fold_row(-1, 0);
    fold_row(p.height, p.height - 1);
    for (int y = 0; y < p.height; ++y) {
      float* row = p.row(y);
      row[0] += row[-1];
      row[p.width - 1] += row[p.width];
      row[-1] = 0;
      std::fill(row + p.width, row + p.width + kLanes, 0.0f);
    }
  }
}

}  // namespace

double CodecModel::distortion(const float* latents, const float* synthesis, const float* known, const float* target, float weight,
                              float* d_latents, float* d_synthesis) {
  return with_channels(shape.channels, [&](auto fixed) {
    constexpr int C = decltype(fixed)::value;
    const CodecShape& s = shape;
    Synthesis<const float> net(s, synthesis);
    load(latents);
    upsample(net.filters);
    for (int c = 0; c < s.known; ++c) {
      const Plane& to = pyramid_[kLevels + c];
      for (int y = 0; y < to.height; ++y) memcpy(to.row(y), known + (static_cast<int64_t>(c) * to.height + y) * to.width, sizeof(float) * to.width);
    }
    std::vector<float> w1_in(static_cast<size_t>(s.hidden) * s.inputs()), w2_in(static_cast<size_t>(s.hidden) * C);
    transpose(net.w1, s.hidden, s.inputs(), w1_in.data());
    transpose(net.w2, C, s.hidden, w2_in.data());
    const auto back_k1 = turned<C>(net.k1), back_k2 = turned<C>(net.k2);
    const float no_bias[C] = {};
    const Plane& image = pyramid_[0];
    int height = s.height, width = s.width;
    int64_t plane = static_cast<int64_t>(image.size());
    auto pyramid_at = [&](const Planes& p, int y, int x) { return Strip{p[0].row(y) + x, plane}; };
    const bool backward = d_latents != nullptr, learn = d_synthesis != nullptr;
    int asked = omp_get_max_threads();
    std::vector<double> found(asked, 0.0);
    std::vector<std::unique_ptr<Sums>> sums(asked);
#pragma omp parallel num_threads(asked)
    {
      int me = omp_get_thread_num(), n_threads = omp_get_num_threads();
      Range range = share(height, me, n_threads, 1);
      Aligned memory(sizeof(float) * kStrip * 2 * s.hidden);
      Strip h{reinterpret_cast<float*>(memory.data()), kStrip}, d_h{h.row(s.hidden), kStrip};
      for (int64_t y = range.begin; y < range.end; ++y) {
        for (int x = 0; x < width; x += kStrip) {
          int n = std::min(kStrip, width - x);
          dense(w1_in.data(), s.inputs(), s.hidden, net.b1, pyramid_at(pyramid_, y, x), h, n, true);
          dense(w2_in.data(), s.hidden, C, net.b2, h, pyramid_at(first_, y, x), n, false);
        }
        for (int c = 0; c < s.known; ++c) {
          const float* from = pyramid_[kLevels + c].row(y);
          float* to = first_[c].row(y);
          for (int x = 0; x < width; ++x) to[x] += from[x];
        }
        for (int c = 0; c < C; ++c) repeat_edges(first_[c], y);
      }
#pragma omp barrier
      for (int64_t y = range.begin; y < range.end; ++y) {
        filter<C>(first_, net.k1, net.c1, true, second_, y, 0, width);
        for (int c = 0; c < C; ++c) repeat_edges(second_[c], y);
      }
#pragma omp barrier
      for (int64_t y = range.begin; y < range.end; ++y) {
        filter<C>(second_, net.k2, net.c2, false, third_, y, 0, width);
        for (int c = 0; c < C; ++c) {
          const float* wanted = target + (static_cast<int64_t>(c) * height + y) * width;
          const float* got = third_[c].row(y);
          float* d = d_third_[c].row(y);
          float total = 0;
#pragma omp simd reduction(+ : total)
          for (int x = 0; x < width; ++x) {
            float difference = got[x] - wanted[x];
            total += difference * difference;
            d[x] = 2 * weight * difference;
          }
          found[me] += total;
        }
      }
      if (backward) {
        sums[me] = std::make_unique<Sums>(s.synthesis_size());
        Synthesis<FloatV> to(s, sums[me]->data());
        int64_t first_row = range.begin - (me == 0), end_row = range.end + (me == n_threads - 1);  // and one outside
#pragma omp barrier
        for (int64_t y = range.begin; learn && y < range.end; ++y) filter_sums<C>(d_third_, second_, y, to.k2, to.c2);
        for (int64_t y = first_row; y < end_row; ++y) filter<C>(d_third_, back_k2.data(), no_bias, false, d_second_, y, -1, width + 1);
#pragma omp barrier
#pragma omp single
        fold_edges(d_second_);
        for (int64_t y = range.begin; y < range.end; ++y) {
          for (int c = 0; c < C; ++c) {
            for (int x = 0; x < width; x += kLanes) {
              FloatV d = fieldfit::load(d_second_[c].row(y) + x);
              store(d_second_[c].row(y) + x, select(fieldfit::load(second_[c].row(y) + x) > FloatV{}, d, FloatV{}));
            }
          }
        }
#pragma omp barrier
        for (int64_t y = range.begin; learn && y < range.end; ++y) filter_sums<C>(d_second_, first_, y, to.k1, to.c1);
        for (int64_t y = first_row; y < end_row; ++y) filter<C>(d_second_, back_k1.data(), no_bias, false, d_third_, y, -1, width + 1);
#pragma omp barrier
#pragma omp single
        fold_edges(d_third_);
        for (int64_t y = range.begin; y < range.end; ++y) {
          for (int x = 0; x < width; x += kStrip) {
            int n = (std::min(kStrip, width - x) + kLanes - 1) / kLanes * kLanes;
            Strip x_in = pyramid_at(pyramid_, y, x), d_out = pyramid_at(d_third_, y, x);
            dense(w1_in.data(), s.inputs(), s.hidden, net.b1, x_in, h, n, true);
            dense(net.w2, C, s.hidden, nullptr, d_out, d_h, n, false, &h);
            if (learn) {
              add_outer(d_out, C, h, s.hidden, n, to.w2);
              add_sums(d_out, C, n, to.b2);
              add_outer(d_h, s.hidden, x_in, s.inputs(), n, to.w1);
              add_sums(d_h, s.hidden, n, to.b1);
            }
            dense(net.w1, s.hidden, s.inputs(), nullptr, d_h, pyramid_at(d_pyramid_, y, x), n, false);
          }
        }
      }
    }
    double total = 0;
    for (double part : found) total += part;
    if (!backward) return total;
    for (auto& part : sums) {
      if (part && learn) part->add_to(d_synthesis, 1.0f);
    }
    upsample_backward(net.filters, d_synthesis);
    for (int i = 0; i < kLevels; ++i) {
      const Plane& p = d_pyramid_[at(i, i)];
      for (int y = 0; y < p.height; ++y) {
        for (int x = 0; x < p.width; ++x) d_latents[x] += p.row(y)[x];
        d_latents += p.width;
      }
    }
    return total;
  });
}

}  // namespace fieldfit
