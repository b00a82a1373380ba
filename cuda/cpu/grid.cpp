// Feature grids on the CPU. Vertices and weights are found for kLanes samples at once by the shared lane functions; the
// features of one vertex are one short vector, since scalar addresses are as fast as vector gathers.
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace fieldfit {
namespace {

constexpr int kBlock = 1024;  // samples whose coordinates and features stay in the cache between levels

template <int F>
struct Features {
  typedef float Vector __attribute__((vector_size(F * 4)));
  static FF_LANE Vector load(const float* p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static FF_LANE void store(float* p, Vector v) { memcpy(p, &v, sizeof v); }
};
template <>
struct Features<1> {
  using Vector = float;
  static FF_LANE float load(const float* p) { return *p; }
  static FF_LANE void store(float* p, float v) { *p = v; }
};

template <int D>
struct Block {
  float x[D][kBlock];  // coordinate-major; entries past n repeat the last sample

  void fill(const float* from, int n) {
    for (int i = 0; i < n; ++i) {
      for (int d = 0; d < D; ++d) x[d][i] = from[i * D + d];
    }
    for (int i = n; i % kLanes; ++i) {
      for (int d = 0; d < D; ++d) x[d][i] = x[d][n - 1];
    }
  }
};

template <int D>
struct Corners {
  uint32_t entry[1 << D][kLanes];
  float weight[1 << D][kLanes];

  void find(const Block<D>& block, int i, const GridLevel& level) {
    FloatV x[D];
    UIntV e[1 << D];
    FloatV w[1 << D];
    for (int d = 0; d < D; ++d) x[d] = load(block.x[d] + i);
    grid_corners<D>(x, level, e, w);
    for (int c = 0; c < (1 << D); ++c) {
      store(entry[c], e[c]);
      store(weight[c], w[c]);
    }
  }
};

template <int D, int F>
void forward(const Grid& grid, int64_t n, const float* x, float* out) {
  using V = Features<F>;
  int width = grid.n_levels * F;
  Block<D> block;
  Corners<D> corners;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    int count = static_cast<int>(std::min<int64_t>(kBlock, n - begin));
    block.fill(x + begin * D, count);
    for (int l = 0; l < grid.n_levels; ++l) {
      const GridLevel& level = grid.levels[l];
      const float* table = grid.table + static_cast<int64_t>(level.offset) * F;
      for (int i = 0; i < count; i += kLanes) {
        corners.find(block, i, level);
        int lanes = std::min(kLanes, count - i);
        for (int s = 0; s < lanes; ++s) {
          typename V::Vector acc = V::load(table + static_cast<int64_t>(corners.entry[0][s]) * F) * corners.weight[0][s];
          for (int c = 1; c < (1 << D); ++c) {
            acc = acc + V::load(table + static_cast<int64_t>(corners.entry[c][s]) * F) * corners.weight[c][s];
          }
          V::store(out + (begin + i + s) * width + l * F, acc);
        }
      }
    }
  }
}

// Levels go to threads whole, so that no two threads add to the same entry: no atomics, and the same sums for any count.
template <int D, int F>
void backward_table(const Grid& grid, int64_t n, const float* x, const float* d_out, float* d_table, uint8_t* touched) {
  using V = Features<F>;
  int width = grid.n_levels * F;
  int n_threads = std::min(grid.n_levels, threads_for(n, 256));
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads)
  for (int reversed = 0; reversed < grid.n_levels; ++reversed) {
    int l = grid.n_levels - 1 - reversed;
    const GridLevel& level = grid.levels[l];
    float* table = d_table + static_cast<int64_t>(level.offset) * F;
    uint8_t* marks = touched ? touched + level.offset / kTouchedEntries : nullptr;
    Block<D> block;
    Corners<D> corners;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      int count = static_cast<int>(std::min<int64_t>(kBlock, n - begin));
      block.fill(x + begin * D, count);
      for (int i = 0; i < count; i += kLanes) {
        corners.find(block, i, level);
        int lanes = std::min(kLanes, count - i);
        for (int s = 0; s < lanes; ++s) {
          typename V::Vector d = V::load(d_out + (begin + i + s) * width + l * F);
          for (int c = 0; c < (1 << D); ++c) {
            float* entry = table + static_cast<int64_t>(corners.entry[c][s]) * F;
            V::store(entry, V::load(entry) + d * corners.weight[c][s]);
            if (marks) marks[corners.entry[c][s] / kTouchedEntries] = 1;
          }
        }
      }
    }
  }
}

template <int D, int F>
void backward_position(const Grid& grid, int64_t n, const float* x, const float* d_out, float* d_x) {
  int width = grid.n_levels * F;
  int n_threads = threads_for(n, 256);
#pragma omp parallel num_threads(n_threads)
  {
    Block<D> block;
    Corners<D> corners;
    float dot[1 << D][kLanes] = {};
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    for (int64_t begin = range.begin; begin < range.end; begin += kBlock) {
      int count = static_cast<int>(std::min<int64_t>(kBlock, range.end - begin));
      block.fill(x + begin * D, count);
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
              const float* entry = table + static_cast<int64_t>(corners.entry[c][s]) * F;
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

template <int D, int F>
void backward(const Grid& grid, int64_t n, const float* x, const float* d_out, float* d_table, uint8_t* touched, float* d_x) {
  if (d_table) backward_table<D, F>(grid, n, x, d_out, d_table, touched);
  if (d_x) backward_position<D, F>(grid, n, x, d_out, d_x);
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
  const float* x;
  float* out;
  template <int D, int F>
  void run() const {
    forward<D, F>(grid, n, x, out);
  }
};
struct BackwardCall {
  const Grid& grid;
  int64_t n;
  const float* x;
  const float* d_out;
  float* d_table;
  uint8_t* touched;
  float* d_x;
  template <int D, int F>
  void run() const {
    backward<D, F>(grid, n, x, d_out, d_table, touched, d_x);
  }
};

}  // namespace

void grid_forward_serial(const Grid& grid, int64_t n, const float* x, float* out) {
  if (n > 0) with_shape(grid, ForwardCall{grid, n, x, out});
}

void grid_forward(const Grid& grid, int64_t n, const float* x, float* out) {
  int n_threads = threads_for(n, 256);
#pragma omp parallel num_threads(n_threads)
  {
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    grid_forward_serial(grid, range.end - range.begin, x + range.begin * grid.dim,
                        out + range.begin * grid.n_levels * grid.features);
  }
}

void grid_backward(const Grid& grid, int64_t n, const float* x, const float* d_out, float* d_table, uint8_t* touched, float* d_x) {
  if (n > 0) with_shape(grid, BackwardCall{grid, n, x, d_out, d_table, touched, d_x});
}

}  // namespace fieldfit
