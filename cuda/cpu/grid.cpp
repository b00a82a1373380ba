// Feature grids on the CPU. Vertices and weights are found for kLanes samples at once by the shared lane functions; the
// features of one vertex are one short vector, since scalar addresses are as fast as vector gathers.
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace fieldfit {
namespace {

constexpr int kBlock = 32768;  // samples that pass by one level before the next: each level is read once for all of them
constexpr int kAhead = 64;  // samples whose cotangents are on their way while others are at work
constexpr int64_t kFarBytes = 1 << 19;  // of a level that is worth fetching ahead

// The features of one vertex, as one short vector.
template <int F>
struct Features {
  typedef float Vector __attribute__((vector_size(F * 4)));
  static FF_LANE Vector load(const float* p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static FF_LANE void store(float* p, Vector v) { memcpy(p, &v, sizeof v); }
  static FF_LANE Vector fma(Vector a, float w, Vector c) {
#if defined(__FMA__)
    if constexpr (F == 2) {
      __m128d pair = _mm_castps_pd(_mm_fmadd_ps(widened(a), _mm_set1_ps(w), widened(c)));
      Vector v;
      _mm_store_sd(reinterpret_cast<double*>(&v), pair);
      return v;
    }
    if constexpr (F == 4) return (Vector)_mm_fmadd_ps((__m128)a, _mm_set1_ps(w), (__m128)c);
    if constexpr (F == 8) return (Vector)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(w), (__m256)c);
#endif
    return c + a * w;
  }

 private:
#if defined(__FMA__)
  static FF_LANE __m128 widened(Vector v) { return _mm_castpd_ps(_mm_load_sd(reinterpret_cast<const double*>(&v))); }
#endif
};
template <>
struct Features<1> {
  using Vector = float;
  static FF_LANE float load(const float* p) { return *p; }
  static FF_LANE void store(float* p, float v) { *p = v; }
  static FF_LANE float fma(float a, float w, float c) { return fieldfit::fma(a, w, c); }
};

template <int D>
struct Block {
  float x[D][kBlock];  // coordinate-major; entries past n repeat the last sample

  void fill(const GridPoints& from, int64_t begin, int n) {
    for (int d = 0; d < D; ++d) {
      const float* values = from.axis[d] + begin * from.stride;
      if (from.stride == 1) {
        memcpy(x[d], values, sizeof(float) * n);
      } else {
        for (int i = 0; i < n; ++i) x[d][i] = values[i * from.stride];
      }
    }
    for (int i = n; i % kLanes; ++i) {
      for (int d = 0; d < D; ++d) x[d][i] = x[d][n - 1];
    }
  }
};

template <int D, int F>
struct Corners {
  uint32_t first[1 << D][kLanes];  // first feature within the level
  float weight[1 << D][kLanes];

  void find(const Block<D>& block, int i, const GridLevel& level) {
    FloatV x[D];
    UIntV e[1 << D];
    FloatV w[1 << D];
    for (int d = 0; d < D; ++d) x[d] = load(block.x[d] + i);
    grid_corners<D>(x, level, e, w);
    for (int c = 0; c < (1 << D); ++c) {
      store(first[c], e[c] * static_cast<uint32_t>(F));
      store(weight[c], w[c]);
    }
  }
};

// Calls use(i, s, corners) for each sample i of a block, whose vertices lie in lane s of `corners`. Where a level does not fit
// the second-level cache, they are fetched while the group of samples before them is at work.
template <int D, int F, bool Write, class Use>
FF_LANE void for_samples(const Block<D>& block, int count, const GridLevel& level, const float* table, Use use) {
  Corners<D, F> groups[2];
  bool far = static_cast<int64_t>(level.entries) * F * static_cast<int64_t>(sizeof(float)) >= kFarBytes;
  groups[0].find(block, 0, level);
  for (int begin = 0; begin < count; begin += kLanes) {
    const Corners<D, F>& corners = groups[begin / kLanes % 2];
    if (begin + kLanes < count) {
      Corners<D, F>& next = groups[(begin / kLanes + 1) % 2];
      next.find(block, begin + kLanes, level);
      for (int c = 0; far && c < (1 << D); ++c) {
        for (int s = 0; s < kLanes; ++s) __builtin_prefetch(table + next.first[c][s], Write);
      }
    }
    int lanes = std::min(kLanes, count - begin);
    for (int s = 0; s < lanes; ++s) use(begin + s, s, corners);
  }
}

template <int D, int F>
void forward(const Grid& grid, int64_t n, const GridPoints& x, float* out) {
  using V = Features<F>;
  int width = grid.n_levels * F;
  Block<D> block;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    int count = static_cast<int>(std::min<int64_t>(kBlock, n - begin));
    block.fill(x, begin, count);
    for (int l = 0; l < grid.n_levels; ++l) {
      const GridLevel& level = grid.levels[l];
      const float* table = grid.table + static_cast<int64_t>(level.offset) * F;
      for_samples<D, F, false>(block, count, level, table, [&](int i, int s, const Corners<D, F>& corners) {
        typename V::Vector acc{};
        for (int c = 0; c < (1 << D); ++c) acc = V::fma(V::load(table + corners.first[c][s]), corners.weight[c][s], acc);
        V::store(out + (begin + i) * width + l * F, acc);
      });
    }
  }
}

// Adds the cotangents of one level's features.
template <int D, int F>
void add_level(const GridLevel& level, const GridCotangents& of, int width, float* table, uint8_t* marks) {
  using V = Features<F>;
  Block<D> block;
  for (int64_t begin = 0; begin < of.n; begin += kBlock) {
    int count = static_cast<int>(std::min<int64_t>(kBlock, of.n - begin));
    block.fill(of.x, begin, count);
    for_samples<D, F, true>(block, count, level, table, [&](int i, int s, const Corners<D, F>& corners) {
      __builtin_prefetch(of.d_out + (begin + i + kAhead) * width);
      typename V::Vector d = V::load(of.d_out + (begin + i) * width);
      for (int c = 0; c < (1 << D); ++c) {
        uint32_t first = corners.first[c][s];
        V::store(table + first, V::fma(d, corners.weight[c][s], V::load(table + first)));
        if (marks) marks[first / (kTouchedEntries * F)] = 1;
      }
    });
  }
}

// Levels go to threads whole, so that no two threads add to the same entry: no atomics, and the same sums for any count.
template <int D, int F>
void backward_table(const Grid& grid, const std::vector<GridCotangents>& parts, float* d_table, uint8_t* touched) {
  int width = grid.n_levels * F;
  int64_t n = 0;
  for (const GridCotangents& part : parts) n += part.n;
  int n_threads = std::min(grid.n_levels, threads_for(n, 256));
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads)
  for (int reversed = 0; reversed < grid.n_levels; ++reversed) {
    int l = grid.n_levels - 1 - reversed;
    const GridLevel& level = grid.levels[l];
    float* table = d_table + static_cast<int64_t>(level.offset) * F;
    uint8_t* marks = touched ? touched + level.offset / kTouchedEntries : nullptr;
    for (const GridCotangents& part : parts) add_level<D, F>(level, {part.n, part.x, part.d_out + l * F}, width, table, marks);
  }
}

template <int D, int F>
void backward_position(const Grid& grid, int64_t n, const GridPoints& x, const float* d_out, float* d_x) {
  int width = grid.n_levels * F;
  int n_threads = threads_for(n, 256);
#pragma omp parallel num_threads(n_threads)
  {
    Block<D> block;
    Corners<D, F> corners;
    float dot[1 << D][kLanes] = {};
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    for (int64_t begin = range.begin; begin < range.end; begin += kBlock) {
      int count = static_cast<int>(std::min<int64_t>(kBlock, range.end - begin));
      block.fill(x, begin, count);
      memset(d_x + begin * D, 0, sizeof(float) * D * count);
      for (int l = 0; l < grid.n_levels; ++l) {
        const GridLevel& level = grid.levels[l];
        const float* table = grid.table + static_cast<int64_t>(level.offset) * F;
        for (int i = 0; i < count; i += kLanes) {
          corners.find(block, i, level);
          int lanes = std::min(kLanes, count - i);
          for (int s = 0; s < lanes; ++s) {
            const float* d = d_out + (begin + i + s) * width + l * F;
            for (int c = 0; c < (1 << D); ++c) {
              const float* entry = table + corners.first[c][s];
              float sum = 0;
              for (int f = 0; f < F; ++f) sum += entry[f] * d[f];
              dot[c][s] = sum;
            }
          }
          FloatV fraction[D];
          for (int a = 0; a < D; ++a) {
            UIntV cell;
            grid_cell(load(block.x[a] + i), level.scale, cell, fraction[a]);
          }
          for (int a = 0; a < D; ++a) {
            FloatV total{};
            for (int c = 0; c < (1 << D); ++c) {
              total = fma(grid_weight_derivative<D>(fraction, level.scale, c, a), load(dot[c]), total);
            }
            for (int s = 0; s < lanes; ++s) d_x[(begin + i + s) * D + a] += total[s];
          }
        }
      }
    }
  }
}

template <int D, class Call>
void with_features(int features, Call call) {
  switch (features) {
    case 1:
      return call.template run<D, 1>();
    case 2:
      return call.template run<D, 2>();
    case 4:
      return call.template run<D, 4>();
    default:
      return call.template run<D, 8>();
  }
}

template <class Call>
void with_shape(const Grid& grid, Call call) {
  switch (grid.dim) {
    case 1:
      return with_features<1>(grid.features, call);
    case 2:
      return with_features<2>(grid.features, call);
    case 3:
      return with_features<3>(grid.features, call);
    default:
      return with_features<4>(grid.features, call);
  }
}

struct ForwardCall {
  const Grid& grid;
  int64_t n;
  const GridPoints& x;
  float* out;
  template <int D, int F>
  void run() const {
    forward<D, F>(grid, n, x, out);
  }
};
struct TableCall {
  const Grid& grid;
  const std::vector<GridCotangents>& parts;
  float* d_table;
  uint8_t* touched;
  template <int D, int F>
  void run() const {
    backward_table<D, F>(grid, parts, d_table, touched);
  }
};
struct PositionCall {
  const Grid& grid;
  int64_t n;
  const GridPoints& x;
  const float* d_out;
  float* d_x;
  template <int D, int F>
  void run() const {
    backward_position<D, F>(grid, n, x, d_out, d_x);
  }
};

GridPoints rows_of(const float* x, int dim) { return {{x, x + 1, x + 2, x + 3}, dim}; }

}  // namespace

void grid_forward_serial(const Grid& grid, int64_t n, const GridPoints& x, float* out) {
  if (n > 0) with_shape(grid, ForwardCall{grid, n, x, out});
}

void grid_forward(const Grid& grid, int64_t n, const float* x, float* out) {
  int n_threads = threads_for(n, 256);
#pragma omp parallel num_threads(n_threads)
  {
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    grid_forward_serial(grid, range.end - range.begin, rows_of(x + range.begin * grid.dim, grid.dim),
                        out + range.begin * grid.n_levels * grid.features);
  }
}

void grid_backward_table(const Grid& grid, const std::vector<GridCotangents>& parts, float* d_table, uint8_t* touched) {
  with_shape(grid, TableCall{grid, parts, d_table, touched});
}

void grid_backward(const Grid& grid, int64_t n, const float* x, const float* d_out, float* d_table, uint8_t* touched, float* d_x) {
  if (n == 0) return;
  if (d_table) grid_backward_table(grid, {{n, rows_of(x, grid.dim), d_out}}, d_table, touched);
  if (d_x) with_shape(grid, PositionCall{grid, n, rows_of(x, grid.dim), d_out, d_x});
}

}  // namespace fieldfit
