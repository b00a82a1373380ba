// Latents to bytes and back: the context network in integers, wave by wave, and the range coder.
#include <cmath>
#include <cstdlib>

#include "codec_integer.h"

namespace fieldfit {
namespace {

constexpr int kSlant = 4;   // a row may begin when the one above has gone so far: neighbours reach 3 to the right
constexpr int kWaves = 16;  // that are kept: neighbours reach 12 waves back
constexpr int kEdge = 4;    // zeros before the first row
constexpr int kHidden = kContextHidden;

int32_t limited(int32_t v, int32_t lo, int32_t hi) { return std::min(std::max(v, lo), hi); }

// Locations in sixteenths and numbers of scales of the latents of a wave.
class ContextWave {
 public:
  ContextWave(const int32_t* p, int level, int rows)
      : w1_(p), b1_(p + kHidden * kContext + level * kHidden), w2_(p + kHidden * (kContext + kLevels)), b2_(w2_ + kHidden * kHidden),
        w3_(b2_ + kHidden), b3_(w3_ + 2 * kHidden), size_((rows + kLanes - 1) / kLanes * kLanes + kLanes + 2 * kEdge),
        waves_(static_cast<size_t>(size_) * kWaves, 0), parents_(4 * static_cast<size_t>(size_), 0), mu(size_), scale(size_) {}

  // What was decided at wave t, for row y; rows that take no part stay zero.
  int32_t* wave(int t) { return waves_.data() + static_cast<size_t>(t & (kWaves - 1)) * size_ + kEdge; }
  int32_t* parent(int i) { return parents_.data() + static_cast<size_t>(i) * size_; }

  void begin(int t) { std::fill(wave(t) - kEdge, wave(t) - kEdge + size_, 0); }

  void evaluate(int t, int first, int last) {  // rows first .. last
    for (int y = first; y <= last; y += kLanes) {
      IntV x[kContext], h[kHidden], g[kHidden];
      for (int k = 0; k < kCausal; ++k) {
        int dy = kNeighbours[k].dy;
        memcpy(&x[k], wave(t + kNeighbours[k].dx + kSlant * dy) + y + dy, sizeof(IntV));
      }
      for (int i = 0; i < 4; ++i) memcpy(&x[kCausal + i], parent(i) + y, sizeof(IntV));
      for (int o = 0; o < kHidden; ++o) h[o] = positive((product(w1_ + o * kContext, x, kContext) + b1_[o] + 2) >> 2);
      for (int o = 0; o < kHidden; ++o) g[o] = positive((product(w2_ + o * kHidden, h, kHidden) + (b2_[o] << kValueBits) + 512) >> 10);
      IntV m = (product(w3_, g, kHidden) + (b3_[0] << kValueBits) + (1 << 13)) >> 14;
      IntV s = (product(w3_ + kHidden, g, kHidden) + (b3_[1] << kValueBits) + (3 << 18) + (1 << 14)) >> 15;
      for (int l = 0; l < kLanes; ++l) {
        mu[y + l] = limited(m[l], -kSteps * (kMostLatent + 1), kSteps * (kMostLatent + 1));
        scale[y + l] = limited(s[l], 0, kScales - 1);
      }
    }
  }

 private:
  static FF_LANE IntV product(const int32_t* w, const IntV* x, int n) {
    IntV sum{};
    for (int i = 0; i < n; ++i) sum += x[i] * w[i];
    return sum;
  }
  static FF_LANE IntV positive(IntV v) {
    IntV zero{}, most = zero + kMostValue;
    v = v > zero ? v : zero;
    return v < most ? v : most;
  }
  const int32_t *w1_, *b1_, *w2_, *b2_, *w3_, *b3_;
  int size_;
  std::vector<int32_t> waves_, parents_;

 public:
  std::vector<int32_t> mu, scale;
};

const Laplaces& latent_distributions() {
  static const Laplaces all(kSteps * 256, false);
  return all;
}

// Calls code(level, mu, scale, value) for every latent in the order of the file; it may set the value.
template <class Code>
void walk(const CodecShape& s, const int32_t* context, const int32_t* most, int32_t* latents, Code code) {
  int64_t end = s.latents();
  const int32_t* coarser = nullptr;
  for (int level = kLevels - 1; level >= 0; --level) {
    int height = s.rows(level), width = s.columns(level);
    int up_width = s.columns(level + 1);
    int32_t* own = latents + end - static_cast<int64_t>(height) * width;
    end -= static_cast<int64_t>(height) * width;
    if (most[level] > 0) {
      ContextWave net(context, level, height);
      for (int t = 0; t < width + kSlant * (height - 1); ++t) {
        int first = t < width ? 0 : (t - width) / kSlant + 1, last = std::min(height - 1, t / kSlant);
        net.begin(t);
        if (first > last) continue;
        if (coarser) {
          for (int y = first; y <= last; ++y) {
            int x = t - kSlant * y;
            int rows[2] = {y, y % 2 ? y + 1 : y - 1}, columns[2] = {x, x % 2 ? x + 1 : x - 1};
            for (int r = 0; r < 2; ++r) {
              for (int c = 0; c < 2; ++c) {
                bool inside = rows[r] >= 0 && rows[r] < height && columns[c] >= 0 && columns[c] < width;
                net.parent(2 * r + c)[y] = inside ? coarser[static_cast<int64_t>(rows[r] / 2) * up_width + columns[c] / 2] : 0;
              }
            }
          }
        }
        net.evaluate(t, first, last);
        int32_t* wave = net.wave(t);
        for (int y = first; y <= last; ++y) {
          int32_t& value = own[static_cast<int64_t>(y) * width + t - kSlant * y];
          code(most[level], net.mu[y], net.scale[y], value);
          wave[y] = value;
        }
      }
    } else {
      std::fill(own, own + static_cast<int64_t>(height) * width, 0);
    }
    coarser = own;
  }
}

}  // namespace

bool layer_fits(const int32_t* weights, const int32_t* biases, int out, int in, int64_t more) {
  for (int o = 0; o < out; ++o) {
    int64_t sum = (static_cast<int64_t>(std::abs(static_cast<int64_t>(biases[o]))) << kValueBits) + (1 << 21) + more;
    for (int i = 0; i < in; ++i) sum += std::abs(static_cast<int64_t>(weights[o * in + i])) * (kMostValue + 1);
    if (sum >= (1ll << 31)) return false;
  }
  return true;
}

bool context_fits(const int32_t* p) {
  const int32_t *b1 = p + kHidden * kContext, *w2 = b1 + kLevels * kHidden, *w3 = w2 + kHidden * (kHidden + 1);
  for (int level = 0; level < kLevels; ++level) {
    if (!layer_fits(p, b1 + level * kHidden, kHidden, kContext)) return false;
  }
  return layer_fits(w2, w2 + kHidden * kHidden, kHidden, kHidden) && layer_fits(w3, w3 + 2 * kHidden, 2, kHidden);
}

std::vector<uint8_t> write_latents(const CodecShape& s, const int32_t* context, const int32_t* most, const int32_t* latents) {
  RangeEncoder to;
  const Laplaces& laplace = latent_distributions();
  std::vector<int32_t> copy(latents, latents + s.latents());
  walk(s, context, most, copy.data(), [&](int limit, int mu, int scale, int32_t& value) {
    to.put(Laplaces::interval(value, [&](int n) { return laplace.below(scale, mu, n, limit); }));
  });
  return to.finish();
}

bool read_latents(const CodecShape& s, const int32_t* context, const int32_t* most, const uint8_t* data, size_t size, int32_t* latents) {
  RangeDecoder from(data, size);
  const Laplaces& laplace = latent_distributions();
  walk(s, context, most, latents, [&](int limit, int mu, int scale, int32_t& value) {
    auto below = [&](int n) { return laplace.below(scale, mu, n, limit); };
    value = Laplaces::find(from.peek(), limit, below);
    from.take(Laplaces::interval(value, below));
  });
  return from.at_end();
}

namespace {

const Laplaces& weight_distributions() {
  static const Laplaces all(kMostWeight + 1, true);
  return all;
}

}  // namespace

std::vector<uint8_t> write_integers(const std::vector<Group>& groups, const int32_t* values) {
  RangeEncoder to;
  for (const Group& g : groups) {
    for (int32_t i = 0; g.most > 0 && i < g.count; ++i) {
      to.put(Laplaces::interval(values[i], [&](int n) { return weight_distributions().below(g.scale, n, g.most); }));
    }
    values += g.count;
  }
  return to.finish();
}

bool read_integers(const std::vector<Group>& groups, const uint8_t* data, size_t size, int32_t* values) {
  RangeDecoder from(data, size);
  for (const Group& g : groups) {
    for (int32_t i = 0; i < g.count; ++i) {
      auto below = [&](int n) { return weight_distributions().below(g.scale, n, g.most); };
      values[i] = g.most > 0 ? Laplaces::find(from.peek(), g.most, below) : 0;
      if (g.most > 0) from.take(Laplaces::interval(values[i], below));
    }
    values += g.count;
  }
  return from.at_end();
}

void integer_bits(int32_t count, int32_t most, const int32_t* values, double* bits) {
  for (int k = 0; k < kScales; ++k) {
    bits[k] = 0;
    for (int32_t i = 0; most > 0 && i < count; ++i) {
      Interval s = Laplaces::interval(values[i], [&](int n) { return weight_distributions().below(k, n, most); });
      bits[k] += kProbabilityBits - std::log2(static_cast<double>(s.size));
    }
  }
}

}  // namespace fieldfit
