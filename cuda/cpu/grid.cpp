// Feature grids on the CPU. Vertices and weights are found for kLanes samples at once by the shared lane functions; features
// are taken sample by sample.
#include <vector>

#include "tape.h"
#include "threads.h"
#include "vertices.h"

namespace fieldfit {
namespace {

constexpr int kBlock = 32768;  // samples that pass by one level before the next: each level is read once for all of them
constexpr int kAhead = 64;  // samples whose cotangents are on their way while others are at work
constexpr int64_t kFarBytes = 1 << 19;  // of a level that is worth fetching ahead
constexpr int kLine = 16;  // values of a cache line
constexpr int64_t kNearRows = 2048;  // whose lines stay at hand from one level to the next

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
struct Pairs {
  static constexpr int kCount = 1 << (D - 1);
  uint32_t near[kCount][kLanes], far[kCount][kLanes];  // first feature within the level
  float weight[kCount][kLanes], along[kLanes];

  void find(const Block<D>& block, int i, const GridLevel& level) {
    FloatV x[D], w[kCount], f;
    UIntV a[kCount], b[kCount];
    for (int d = 0; d < D; ++d) x[d] = load(block.x[d] + i);
    grid_pairs<D>(x, level, a, b, w, f);
    for (int p = 0; p < kCount; ++p) {
      store(near[p], a[p] * static_cast<uint32_t>(F));
      store(far[p], b[p] * static_cast<uint32_t>(F));
      store(weight[p], w[p]);
    }
    store(along, f);
  }
};

// Calls use(i, s, pairs) for each sample i of a block, whose vertices lie in lane s of `pairs`. Where a level does not fit the
// second-level cache, those of the sample kLanes later are fetched before it: a few at a time, for a core waits for no more,
// and with them a line of what is `coming`, unless that is null.
template <int D, int F, bool Write, class Use>
FF_LANE void for_samples(const Block<D>& block, int count, const GridLevel& level, const float* table, const float* coming, Use use) {
  Pairs<D, F> groups[2];
  bool far = static_cast<int64_t>(level.entries) * F * static_cast<int64_t>(sizeof(float)) >= kFarBytes;
  groups[0].find(block, 0, level);
  for (int begin = 0; begin < count; begin += kLanes) {
    const Pairs<D, F>& pairs = groups[begin / kLanes % 2];
    Pairs<D, F>& next = groups[(begin / kLanes + 1) % 2];
    int lanes = std::min(kLanes, count - begin);
    bool more = begin + kLanes < count;
    if (more) next.find(block, begin + kLanes, level);
    if (more && far) {
      for (int s = 0; s < kLanes; ++s) {
        for (int p = 0; p < Pairs<D, F>::kCount; ++p) {
          __builtin_prefetch(table + next.near[p][s], Write);
          __builtin_prefetch(table + next.far[p][s], Write);
        }
        if (coming) __builtin_prefetch(coming + (begin + s) * kLine, 0, 2);
        use(begin + s, s, pairs);
      }
    } else {
      for (int s = 0; s < lanes; ++s) use(begin + s, s, pairs);
    }
  }
}

// Values from one level to the next where n samples' features lie level after level: a few lines more than they take, or
// levels of equal samples would meet in the same sets of a cache.
template <int F>
int64_t level_step(int64_t n) {
  return n * F + 3 * kLine;
}

// Rows of all levels' features, from those of n samples level after level.
template <int F>
void join_levels(const float* levels, int n_levels, int64_t n, float* rows) {
  int64_t step = level_step<F>(n);
  for (int64_t i = 0; i < n; ++i) {
    for (int l = 0; l < n_levels; ++l, rows += F) Features<F>::store(rows, Features<F>::load(levels + l * step + i * F));
  }
}

// This thread's share of a level that so many random samples of each would take from memory all over: then it had better
// come in order, while the level before is at work. Null for fewer samples, and where there are more of them than lines.
template <int F>
const float* coming_level(const Grid& grid, int l, int count) {
  if (l >= grid.n_levels) return nullptr;
  const GridLevel& level = grid.levels[l];
  Range part = share(static_cast<int64_t>(level.entries) * F, omp_get_thread_num(), omp_get_num_threads(), kLine);
  if (part.end - part.begin < static_cast<int64_t>(count) * kLine || count < kBlock / 2) return nullptr;
  return grid.table + static_cast<int64_t>(level.offset) * F + part.begin;
}

template <int D, int F>
void forward(const Grid& grid, int64_t n, const GridPoints& x, float* out) {
  int width = grid.n_levels * F;
  Block<D> block;
  Tape tape;
  float* levels = nullptr;  // where rows are too many for their lines to stay at hand until the next level
  if (n > kNearRows) {
    size_t size = static_cast<size_t>(level_step<F>(std::min<int64_t>(n, kBlock)) * grid.n_levels);
    levels = reinterpret_cast<float*>(tape.reserve(sizeof(float) * size));
  }
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    int count = static_cast<int>(std::min<int64_t>(kBlock, n - begin));
    float* rows = out + begin * width;
    block.fill(x, begin, count);
    for (int l = 0; l < grid.n_levels; ++l) {
      const GridLevel& level = grid.levels[l];
      const float* table = grid.table + static_cast<int64_t>(level.offset) * F;
      float* features = levels ? levels + l * level_step<F>(count) : rows + l * F;
      int64_t stride = levels ? F : width;
      const float* coming = coming_level<F>(grid, l + 1, count);
      for_samples<D, F, false>(block, count, level, table, coming, [&](int i, int s, const Pairs<D, F>& pairs) {
        VertexPair<F> sum;
        for (int p = 0; p < pairs.kCount; ++p) {
          sum.take(table + pairs.near[p][s], table + pairs.far[p][s], pairs.weight[p][s]);
        }
        sum.join(pairs.along[s], features + i * stride);
      });
    }
    if (levels) join_levels<F>(levels, grid.n_levels, count, rows);
  }
}

// Adds the cotangents of one level's features.
template <int D, int F>
void add_level(const GridLevel& level, const GridCotangents& of, int width, float* table, uint8_t* marks) {
  Block<D> block;
  for (int64_t begin = 0; begin < of.n; begin += kBlock) {
    int count = static_cast<int>(std::min<int64_t>(kBlock, of.n - begin));
    block.fill(of.x, begin, count);
    for_samples<D, F, true>(block, count, level, table, nullptr, [&](int i, int s, const Pairs<D, F>& pairs) {
      __builtin_prefetch(of.d_out + (begin + i + kAhead) * width);
      VertexPair<F> d;
      d.part(pairs.along[s], of.d_out + (begin + i) * width);
      for (int p = 0; p < pairs.kCount; ++p) {
        uint32_t near = pairs.near[p][s], far = pairs.far[p][s];
        d.give(table + near, table + far, pairs.weight[p][s]);
        if (marks) marks[near / (kTouchedEntries * F)] = marks[far / (kTouchedEntries * F)] = 1;
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

template <int F>
FF_LANE float dot_product(const float* a, const float* b) {
  float sum = 0;
  for (int f = 0; f < F; ++f) sum += a[f] * b[f];
  return sum;
}

template <int D, int F>
void backward_position(const Grid& grid, int64_t n, const GridPoints& x, const float* d_out, float* d_x) {
  int width = grid.n_levels * F;
  int n_threads = threads_for(n, 256);
#pragma omp parallel num_threads(n_threads)
  {
    Block<D> block;
    Pairs<D, F> pairs;
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
          pairs.find(block, i, level);
          int lanes = std::min(kLanes, count - i);
          for (int s = 0; s < lanes; ++s) {
            const float* d = d_out + (begin + i + s) * width + l * F;
            for (int p = 0; p < pairs.kCount; ++p) {
              dot[2 * p][s] = dot_product<F>(table + pairs.near[p][s], d);
              dot[2 * p + 1][s] = dot_product<F>(table + pairs.far[p][s], d);
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
