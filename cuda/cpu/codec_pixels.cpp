// Pixels from latents in integers: the twin of codec_pyramid.cpp and codec_synthesis.cpp.
#include <cstring>

#include "codec_integer.h"
#include "threads.h"

namespace fieldfit {
namespace {

struct Grid2 {
  int height, width;
  std::vector<int32_t> values;
  Grid2(int h, int w) : height(h), width(w), values(static_cast<size_t>(h) * w) {}
  int32_t* row(int y) { return values.data() + static_cast<size_t>(y) * width; }
  const int32_t* row(int y) const { return values.data() + static_cast<size_t>(y) * width; }
};

int32_t rounded(int32_t sum) { return (sum + (1 << (kWeightBits - 1))) >> kWeightBits; }
int32_t limited(int32_t v, int32_t lo) { return std::min(std::max(v, lo), kMostValue); }

void add_times(int32_t* to, int32_t weight, const int32_t* from, int n) {
  for (int x = 0; x < n; ++x) to[x] += weight * from[x];
}

Grid2 doubled(const Grid2& from, const int32_t* f, int height, int width) {
  Grid2 to(height, width);
  int n = from.width;
#pragma omp parallel num_threads(threads_for(static_cast<int64_t>(height) * width, 16384))
  {
    std::vector<int32_t> memory(n + 4), even(n), odd(n);
    int32_t* middle = memory.data() + 2;
#pragma omp for schedule(static)
    for (int y = 0; y < height; ++y) {
      std::fill(memory.begin(), memory.end(), 0);
      for (int t = 0; t < kTaps; ++t) {
        int r = std::min(std::max((y % 2 ? y / 2 - 1 : y / 2 - 2) + t, 0), from.height - 1);
        add_times(middle, y % 2 ? f[kTaps - 1 - t] : f[t], from.row(r), n);
      }
      for (int x = 0; x < n; ++x) middle[x] = limited(rounded(middle[x]), -kMostValue - 1);
      middle[-2] = middle[-1] = middle[0];
      middle[n] = middle[n + 1] = middle[n - 1];
      std::fill(even.begin(), even.end(), 0);
      std::fill(odd.begin(), odd.end(), 0);
      for (int t = 0; t < kTaps; ++t) {
        add_times(even.data(), f[t], middle - 2 + t, n);
        add_times(odd.data(), f[kTaps - 1 - t], middle - 1 + t, n);
      }
      int32_t* row = to.row(y);
      for (int x = 0; x < n; ++x) {
        row[2 * x] = limited(rounded(even[x]), -kMostValue - 1);
        if (2 * x + 1 < width) row[2 * x + 1] = limited(rounded(odd[x]), -kMostValue - 1);
      }
    }
  }
  return to;
}

// Adds a row, filtered by three weights along it, edges repeated.
void add_filtered(int32_t* to, const int32_t* k, const int32_t* row, int n) {
  add_times(to, k[1], row, n);
  add_times(to + 1, k[0], row, n - 1);
  add_times(to, k[2], row + 1, n - 1);
  to[0] += k[0] * row[0];
  to[n - 1] += k[2] * row[n - 1];
}

}  // namespace

bool synthesis_fits(const CodecShape& s, const int32_t* p) {
  int32_t none[1] = {0};
  for (int i = 0; i + 1 < kLevels; ++i, p += kTaps) {
    if (!layer_fits(p, none, 1, kTaps)) return false;
  }
  int m = s.hidden, c = s.channels;
  if (!layer_fits(p, p + m * s.inputs(), m, s.inputs())) return false;
  p += m * (s.inputs() + 1);
  if (!layer_fits(p, p + c * m, c, m, s.known ? 1 << (kWeightBits + kValueBits + 4) : 0)) return false;
  p += c * (m + 1);
  for (int k = 0; k < 2; ++k, p += c * (9 * c + 1)) {
    if (!layer_fits(p, p + 9 * c * c, c, 9 * c)) return false;
  }
  return true;
}

void synthesise(const CodecShape& s, const int32_t* latents, const int32_t* synthesis, const int32_t* known, int32_t white,
                uint16_t* samples) {
  const int height = s.height, width = s.width, channels = s.channels;
  const int32_t* filters = synthesis;
  std::vector<const int32_t*> levels;
  for (int i = 0; i < kLevels; ++i) {
    levels.push_back(latents);
    latents += static_cast<int64_t>(s.rows(i)) * s.columns(i);
  }
  std::vector<Grid2> planes;  // the image's size, coarsest level first
  for (int i = kLevels - 1; i >= 0; --i) {
    for (Grid2& p : planes) p = doubled(p, filters + i * kTaps, s.rows(i), s.columns(i));
    Grid2 own(s.rows(i), s.columns(i));
    for (size_t k = 0; k < own.values.size(); ++k) own.values[k] = limited(levels[i][k] * (1 << kValueBits), -kMostValue - 1);
    planes.push_back(std::move(own));
  }
  std::reverse(planes.begin(), planes.end());  // level 0 first
  for (int c = 0; c < s.known; ++c) {
    planes.emplace_back(height, width);
    std::copy_n(known + static_cast<int64_t>(c) * height * width, planes.back().values.size(), planes.back().values.begin());
  }
  const int32_t* w1 = filters + (kLevels - 1) * kTaps;
  const int32_t* b1 = w1 + s.hidden * s.inputs();
  const int32_t* w2 = b1 + s.hidden;
  const int32_t* b2 = w2 + channels * s.hidden;
  std::vector<Grid2> image(channels, Grid2(height, width)), next = image;
#pragma omp parallel num_threads(threads_for(static_cast<int64_t>(height) * width, 16384))
  {
    std::vector<int32_t> h(kStrip), out(static_cast<size_t>(channels) * kStrip);
#pragma omp for schedule(static)
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; x += kStrip) {
        int n = std::min(kStrip, width - x);
        for (int c = 0; c < channels; ++c) {
          std::fill(&out[c * kStrip], &out[c * kStrip] + n, b2[c] * (1 << kValueBits));
          if (s.known) add_times(&out[c * kStrip], 1 << kWeightBits, planes[kLevels + c].row(y) + x, n);
        }
        for (int m = 0; m < s.hidden; ++m) {
          std::fill(h.begin(), h.end(), b1[m] * (1 << kValueBits));
          for (int i = 0; i < s.inputs(); ++i) add_times(h.data(), w1[m * s.inputs() + i], planes[i].row(y) + x, n);
          for (int k = 0; k < n; ++k) h[k] = limited(rounded(h[k]), 0);
          for (int c = 0; c < channels; ++c) add_times(&out[c * kStrip], w2[c * s.hidden + m], h.data(), n);
        }
        for (int c = 0; c < channels; ++c) {
          for (int k = 0; k < n; ++k) image[c].row(y)[x + k] = limited(rounded(out[c * kStrip + k]), -kMostValue - 1);
        }
      }
    }
    const int32_t* kernel = b2 + channels;
    std::vector<int32_t> sum(width);
    for (int pass = 0; pass < 2; ++pass) {
      const int32_t* bias = kernel + 9 * channels * channels;
      std::vector<Grid2>&from = pass ? next : image, &to = pass ? image : next;
#pragma omp for schedule(static)
      for (int y = 0; y < height; ++y) {
        for (int o = 0; o < channels; ++o) {
          const int32_t* self = from[o].row(y);
          for (int x = 0; x < width; ++x) sum[x] = self[x] * (1 << kWeightBits) + bias[o] * (1 << kValueBits);
          for (int i = 0; i < channels; ++i) {
            for (int dy = 0; dy < 3; ++dy) {
              int r = std::min(std::max(y + dy - 1, 0), height - 1);
              add_filtered(sum.data(), kernel + ((o * channels + i) * 3 + dy) * 3, from[i].row(r), width);
            }
          }
          for (int x = 0; x < width; ++x) to[o].row(y)[x] = limited(rounded(sum[x]), pass ? -kMostValue - 1 : 0);
        }
      }
      kernel = bias + channels;
    }
#pragma omp for schedule(static)
    for (int y = 0; y < height; ++y) {
      for (int c = 0; c < channels; ++c) {
        const int32_t* row = image[c].row(y);
        for (int x = 0; x < width; ++x) {
          int32_t v = std::min(std::max(row[x], 0), 16 << kValueBits);
          samples[(static_cast<int64_t>(y) * width + x) * channels + c] = static_cast<uint16_t>((v * white + (1 << 11)) >> 12);
        }
      }
    }
  }
}

}  // namespace fieldfit
