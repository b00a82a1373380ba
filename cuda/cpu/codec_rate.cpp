// Bits of latents under the context network, and their gradients, in one pass over the pyramid.
#include "../laplace.h"
#include "codec_dense.h"
#include "threads.h"

namespace fieldfit {
namespace {

constexpr float kNatsPerBit = 0.69314718056f;
constexpr int kHidden = kContextHidden;

// The network's weights, by input and by output.
struct ContextNetwork {
  explicit ContextNetwork(const float* p) {
    w1 = p;
    b1 = w1 + kHidden * kContext;
    w2 = b1 + kLevels * kHidden;
    b2 = w2 + kHidden * kHidden;
    w3 = b2 + kHidden;
    b3 = w3 + 2 * kHidden;
    transpose(w1, kHidden, kContext, w1_in);
    transpose(w2, kHidden, kHidden, w2_in);
    transpose(w3, 2, kHidden, w3_in);
  }
  const float *w1, *b1, *w2, *b2, *w3, *b3;
  float w1_in[kContext * kHidden], w2_in[kHidden * kHidden], w3_in[kHidden * 2];
};

// Partial sums of the gradients, in the order of the parameters.
struct ContextSums {
  Sums storage{static_cast<size_t>(CodecShape::context_size())};
  FloatV* w1 = storage.data();
  FloatV* b1 = w1 + kHidden * kContext;
  FloatV* w2 = b1 + kLevels * kHidden;
  FloatV* b2 = w2 + kHidden * kHidden;
  FloatV* w3 = b2 + kHidden;
  FloatV* b3 = w3 + 2 * kHidden;
};

// One thread's activations of a strip.
struct Scratch {
  Aligned memory{sizeof(float) * kStrip * (2 * kContext + 4 * kHidden + 4)};
  float* at = reinterpret_cast<float*>(memory.data());
  Strip take(int rows) {
    Strip s{at, kStrip};
    at += rows * kStrip;
    return s;
  }
  Strip x = take(kContext), h1 = take(kHidden), h2 = take(kHidden), out = take(2);
  Strip d_out = take(2), d_h2 = take(kHidden), d_h1 = take(kHidden), d_x = take(kContext);
};

const IntV kOdd = [] {
  IntV m;
  for (int l = 0; l < kLanes; ++l) m[l] = l % 2 ? -1 : 0;
  return m;
}();

// The row of parents above or below that is nearer to row y.
inline int other_row(int y) { return y % 2 ? y + 1 : y - 1; }

void gather_context(const Plane& own, const Plane& parents, int y, int x0, int n, const Strip& to) {
  for (int k = 0; k < kCausal; ++k) {
    const float* from = own.row(y + kNeighbours[k].dy) + x0 + kNeighbours[k].dx;
    for (int i = 0; i < n; i += kLanes) store(to.row(k) + i, load(from + i));
  }
  for (int r = 0; r < 2; ++r) {
    const float* from = parents.row(r ? other_row(y) : y) + x0;
    for (int i = 0; i < n; i += kLanes) {
      store(to.row(kCausal + 2 * r) + i, load(from + i));
      store(to.row(kCausal + 2 * r + 1) + i, select(kOdd, load(from + i + 1), load(from + i - 1)));
    }
  }
}

FF_LANE void add(float* to, FloatV v) { store(to, load(to) + v); }

void scatter_context(const Strip& d, const Plane& own, const Plane& parents, int y, int x0, int n) {
  for (int k = 0; k < kCausal; ++k) {
    float* to = own.row(y + kNeighbours[k].dy) + x0 + kNeighbours[k].dx;
    for (int i = 0; i < n; i += kLanes) add(to + i, load(d.row(k) + i));
  }
  for (int r = 0; r < 2; ++r) {
    float* to = parents.row(r ? other_row(y) : y) + x0;
    for (int i = 0; i < n; i += kLanes) {
      add(to + i, load(d.row(kCausal + 2 * r) + i));
      FloatV side = load(d.row(kCausal + 2 * r + 1) + i);
      add(to + i + 1, select(kOdd, side, FloatV{}));
      add(to + i - 1, select(kOdd, FloatV{}, side));
    }
  }
}

struct StripOfLevel {
  int level, y, x0, n;
};

}  // namespace

CodecModel::CodecModel(const CodecShape& s) : shape(s), d_latents_(omp_get_max_threads()), d_parents_(omp_get_max_threads()) {
  auto levels = [&](Planes& to, int below) {
    for (int i = 0; i < below; ++i) to.add(s.rows(i), s.columns(i));
    to.allocate();
  };
  levels(latents_, kLevels);
  levels(parents_, kLevels);  // the coarsest has none: zeros
  for (Planes& p : d_latents_) levels(p, kLevels);
  for (Planes& p : d_parents_) levels(p, kLevels);
  for (Planes* p : {&pyramid_, &d_pyramid_}) {
    for (int i = 0; i < kLevels; ++i) {
      for (int j = i; j < kLevels + (i ? 0 : s.known); ++j) p->add(s.rows(i), s.columns(i));
    }
    p->allocate();
  }
  for (Planes* p : {&first_, &second_, &third_, &d_second_, &d_third_}) {
    for (int c = 0; c < s.channels; ++c) p->add(s.height, s.width);
    p->allocate();
  }
}

void CodecModel::load(const float* latents) {
  for (int i = 0; i < kLevels; ++i) {
    const Plane& p = latents_[i];
    for (int y = 0; y < p.height; ++y) memcpy(p.row(y), latents + static_cast<int64_t>(y) * p.width, sizeof(float) * p.width);
    latents += static_cast<int64_t>(p.height) * p.width;
  }
}

// Each level's coarser level at its own size, every value four times.
void CodecModel::spread_parents() {
  for (int i = 0; i + 1 < kLevels; ++i) {
    const Plane &from = latents_[i + 1], &to = parents_[i];
#pragma omp parallel for schedule(static) if (to.height > 64)
    for (int y = 0; y < to.height; ++y) {
      const float* source = from.row(y / 2);
      float* row = to.row(y);
      for (int x = 0; x < to.width; ++x) row[x] = source[x / 2];
    }
  }
}

void CodecModel::collect_parents(int n_threads, float* d_latents) {
  for (int i = 0; i < kLevels; ++i) {
    int height = latents_[i].height, width = latents_[i].width;
#pragma omp parallel for schedule(static) if (height > 64)
    for (int y = 0; y < height; ++y) {
      float* to = d_latents + static_cast<int64_t>(y) * width;
      for (int t = 0; t < n_threads; ++t) {
        const float* own = d_latents_[t][i].row(y);
        for (int x = 0; x < width; ++x) to[x] += own[x];
        if (i == 0) continue;
        const Plane& children = d_parents_[t][i - 1];
        for (int r = 2 * y; r < std::min(2 * y + 2, children.height); ++r) {
          const float* from = children.row(r);
          for (int x = 0; x < children.width / 2; ++x) to[x] += from[2 * x] + from[2 * x + 1];
          if (children.width % 2) to[width - 1] += from[children.width - 1];
        }
      }
    }
    d_latents += static_cast<int64_t>(height) * width;
  }
}

void CodecModel::rate(const float* latents, const float* context, float weight, double* bits, float* d_latents, float* d_context) {
  load(latents);
  spread_parents();
  std::vector<StripOfLevel> strips;
  for (int i = 0; i < kLevels; ++i) {
    const Plane& p = latents_[i];
    for (int y = 0; y < p.height; ++y) {
      for (int x0 = 0; x0 < p.width; x0 += kStrip) strips.push_back({i, y, x0, std::min(kStrip, p.width - x0)});
    }
  }
  ContextNetwork net(context);
  int asked = std::min<int>(omp_get_max_threads(), static_cast<int>(d_latents_.size())), n_threads = 1;
  const bool backward = d_latents != nullptr, learn = d_context != nullptr;
  std::vector<double> found(static_cast<size_t>(asked) * kLevels, 0.0);
  std::vector<std::unique_ptr<ContextSums>> sums(asked);
#pragma omp parallel num_threads(asked)
  {
    int me = omp_get_thread_num(), of = omp_get_num_threads();
    if (me == 0) n_threads = of;
    if (backward) {
      sums[me] = std::make_unique<ContextSums>();
      d_latents_[me].clear();
      d_parents_[me].clear();
    }
    Scratch s;
    Range range = share(static_cast<int64_t>(strips.size()), me, of, 1);
    for (int64_t k = range.begin; k < range.end; ++k) {
      auto [level, y, x0, n] = strips[k];
      const Plane& own = latents_[level];
      gather_context(own, parents_[level], y, x0, n, s.x);
      dense(net.w1_in, kContext, kHidden, net.b1 + level * kHidden, s.x, s.h1, n, true);
      dense(net.w2_in, kHidden, kHidden, net.b2, s.h1, s.h2, n, true);
      dense(net.w3_in, kHidden, 2, net.b3, s.h2, s.out, n, false);
      const float* value = own.row(y) + x0;
      FloatV nats{};
      for (int i = 0; i < n; i += kLanes) {
        FloatV mu = fieldfit::load(s.out.row(0) + i), raw = fieldfit::load(s.out.row(1) + i);
        FloatV lo = splat<FloatV>(kLeastLogScale), hi = splat<FloatV>(kMostLogScale);
        LaplaceCost<FloatV> cost = laplace_cost(fieldfit::load(value + i), mu, minimum(maximum(raw, lo), hi));
        nats = nats + lanes_below(cost.nats, n - i);
        if (!backward) continue;
        FloatV g = cost.d_log_b;  // a clamped scale may come back
        g = select(raw < lo, minimum(g, FloatV{}), select(raw > hi, maximum(g, FloatV{}), g));
        store(s.d_out.row(0) + i, lanes_below(cost.d_mu, n - i));
        store(s.d_out.row(1) + i, lanes_below(g, n - i));
        add(d_latents_[me][level].row(y) + x0 + i, lanes_below(cost.d_y, n - i));
      }
      found[me * kLevels + level] += sum(nats);
      if (!backward) continue;
      int whole = (n + kLanes - 1) / kLanes * kLanes;
      ContextSums& to = *sums[me];
      if (learn) {
        add_outer(s.d_out, 2, s.h2, kHidden, whole, to.w3);
        add_sums(s.d_out, 2, whole, to.b3);
      }
      dense(net.w3, 2, kHidden, nullptr, s.d_out, s.d_h2, whole, false, &s.h2);
      if (learn) {
        add_outer(s.d_h2, kHidden, s.h1, kHidden, whole, to.w2);
        add_sums(s.d_h2, kHidden, whole, to.b2);
      }
      dense(net.w2, kHidden, kHidden, nullptr, s.d_h2, s.d_h1, whole, false, &s.h1);
      if (learn) {
        add_outer(s.d_h1, kHidden, s.x, kContext, whole, to.w1);
        add_sums(s.d_h1, kHidden, whole, to.b1 + level * kHidden);
      }
      dense(net.w1, kHidden, kContext, nullptr, s.d_h1, s.d_x, whole, false);
      scatter_context(s.d_x, d_latents_[me][level], d_parents_[me][level], y, x0, whole);
    }
  }
  for (int i = 0; i < kLevels; ++i) {
    bits[i] = 0;
    for (int t = 0; t < n_threads; ++t) bits[i] += found[t * kLevels + i] / kNatsPerBit;
  }
  if (!backward) return;
  weight /= kNatsPerBit;
  for (int t = 0; learn && t < n_threads; ++t) sums[t]->storage.add_to(d_context, weight);
  std::vector<float> gathered(static_cast<size_t>(shape.latents()), 0.0f);
  collect_parents(n_threads, gathered.data());
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < shape.latents(); ++i) d_latents[i] += weight * gathered[i];
}

}  // namespace fieldfit
