// Perceptrons with coordinate-aware modulation, forward and backward, a block for each tile of samples. Activations lie in
// the block's own part of `scratch`, so that layers may be as wide as they like; the modulation of a sample is a warp's.
#include "../modulation.h"

#include "mlp_block.cuh"

namespace fieldfit {

// The grids of all hidden layers are [layers, entries, 2, channels]: vertices by axis with the first the quickest.
struct Modulation {
  int n_axes;
  ModulationAxis axis[kMaxAxes];
  int entries;
  int each;        // a scale and a shift of each channel, or one pair for all
  int normalised;  // over the channels of a sample

  FF_LANE int corners() const { return 1 << n_axes; }
};

namespace {

constexpr int kWarps = kThreads / 32;

// Where the samples of a tile lie, [3 n_axes, kRows]: for each axis the offsets of both vertices, as bits, and the fraction.
FF_LANE void locate_tile(const Modulation& m, int n, const float* at, int64_t first, float* places) {
  for (int e = static_cast<int>(threadIdx.x); e < kRows * m.n_axes; e += kThreads) {
    int r = e % kRows, a = e / kRows, step = 1;
    for (int b = 0; b < a; ++b) step *= m.axis[b].vertices;
    AxisPlace<float> place = locate(first + r < n ? at[(first + r) * m.n_axes + a] : 0.0f, m.axis[a]);
    float* to = places + 3 * a * kRows + r;
    to[0] = bits_to_float(place.first * step);
    to[kRows] = bits_to_float(place.second * step);
    to[2 * kRows] = place.fraction;
  }
}

// The vertex at corner c around sample r, and its weight but for the factor of the axis `without`.
FF_LANE int corner(const Modulation& m, const float* places, int r, int c, int without, float& weight) {
  int vertex = 0;
  weight = 1.0f;
  for (int a = 0; a < m.n_axes; ++a) {
    const float* p = places + 3 * a * kRows + r;
    bool far = (c >> a & 1) != 0;
    vertex += float_to_bits(p[far ? kRows : 0]);
    if (a != without) weight *= far ? p[2 * kRows] : 1.0f - p[2 * kRows];
  }
  return vertex;
}

struct Factors {
  float scale, shift;
};

FF_LANE Factors factors(const Modulation& m, const float* grid, int channels, const float* places, int r, int channel) {
  Factors f{0.0f, 0.0f};
  for (int c = 0; c < m.corners(); ++c) {
    float weight;
    const float* at = grid + static_cast<int64_t>(corner(m, places, r, c, -1, weight)) * 2 * channels + channel;
    f.scale = fma(weight, at[0], f.scale);
    f.shift = fma(weight, at[channels], f.shift);
  }
  return f;
}

// From what a linear layer gave, `f`, which is normalised in place, to the layer's output.
FF_LANE void modulate_tile(const Modulation& m, const float* grid, int kind, int width, const float* places, float* f,
                           float* inverse, float* out) {
  int channels = m.each ? width : 1;
  for (int r = warp_index(); r < kRows; r += kWarps) {
    float mean = 0.0f, factor = 1.0f;
    if (m.normalised) {
      float sum = 0.0f, squares = 0.0f;
      for (int j = lane_index(); j < width; j += 32) sum += f[j * kStride + r];
      mean = warp_sum(sum) / static_cast<float>(width);
      for (int j = lane_index(); j < width; j += 32) {
        float apart = f[j * kStride + r] - mean;
        squares = fma(apart, apart, squares);
      }
      factor = 1.0f / sqrt_(warp_sum(squares) / static_cast<float>(width) + kNormEps);
      if (lane_index() == 0) inverse[r] = factor;
    }
    for (int j = lane_index(); j < width; j += 32) {
      float y = (f[j * kStride + r] - mean) * factor;
      Factors by = factors(m, grid, channels, places, r, m.each ? j : 0);
      f[j * kStride + r] = y;
      out[j * kStride + r] = modulate(kind, y, by.scale, by.shift);
    }
  }
}

// From cotangents of a layer's output, in `d`, to those of what its linear layer gave, in their place. Adds those of the
// grid, and of the samples' fractions along each axis, where they are wanted.
FF_LANE void modulate_tile_vjp(const Modulation& m, const float* grid, int kind, int width, const float* places,
                               const float* features, const float* inverse, int rows, float* d, float* d_grid,
                               float* d_places) {
  int channels = m.each ? width : 1;
  for (int r = warp_index(); r < rows; r += kWarps) {
    float d_scale = 0.0f, d_shift = 0.0f, sum = 0.0f, product_sum = 0.0f;
    for (int j = lane_index(); j < width; j += 32) {
      float y = features[j * kStride + r];
      Factors by = factors(m, grid, channels, places, r, m.each ? j : 0);
      float d_z = modulate_vjp(kind, y, by.scale, by.shift, d[j * kStride + r]);
      if (m.each && d_grid) {
        for (int c = 0; c < m.corners(); ++c) {
          float weight;
          float* to = d_grid + static_cast<int64_t>(corner(m, places, r, c, -1, weight)) * 2 * channels + j;
          atomicAdd(to, weight * d_z * y);
          atomicAdd(to + channels, weight * d_z);
        }
      }
      if (m.each && d_places) {
        for (int c = 0; c < m.corners(); ++c) {
          for (int a = 0; a < m.n_axes; ++a) {
            float weight;
            const float* at = grid + static_cast<int64_t>(corner(m, places, r, c, a, weight)) * 2 * channels + j;
            float share = weight * d_z * fma(y, at[0], at[channels]);
            atomicAdd(d_places + a * kRows + r, (c >> a & 1) != 0 ? share : -share);
          }
        }
      }
      d_scale = fma(d_z, y, d_scale);
      d_shift += d_z;
      float d_y = by.scale * d_z;
      sum += d_y;
      product_sum = fma(d_y, y, product_sum);
      d[j * kStride + r] = d_y;
    }
    d_scale = warp_sum(d_scale);
    d_shift = warp_sum(d_shift);
    sum = warp_sum(sum) / static_cast<float>(width);
    product_sum = warp_sum(product_sum) / static_cast<float>(width);
    for (int j = lane_index(); m.normalised && j < width; j += 32) {
      float* at = d + j * kStride + r;
      *at = normalise_vjp(features[j * kStride + r], inverse[r], *at, sum, product_sum);
    }
    if (m.each) continue;
    for (int c = lane_index(); c < m.corners(); c += 32) {
      float weight;
      int vertex = corner(m, places, r, c, -1, weight);
      if (d_grid) {
        atomicAdd(d_grid + vertex * 2, weight * d_scale);
        atomicAdd(d_grid + vertex * 2 + 1, weight * d_shift);
      }
      for (int a = 0; d_places && a < m.n_axes; ++a) {
        corner(m, places, r, c, a, weight);
        float share = weight * fma(d_scale, grid[vertex * 2], d_shift * grid[vertex * 2 + 1]);
        atomicAdd(d_places + a * kRows + r, (c >> a & 1) != 0 ? share : -share);
      }
    }
  }
}

}  // namespace

// Scratch of a block: two buffers of the widest layer. Shared memory: the weight tile, places, a factor of each sample.
FF_KERNEL(kThreads, 2)
cam_forward(int n, const __grid_constant__ MlpLayers mlp, const __grid_constant__ Modulation m, const float* params,
            const float* grids, const float* x, int x_dim, const float* aux, int aux_dim, int aux_rows,
            const int32_t* index, const float* at, float* scratch, int kept, float* out) {
  FF_SHARED(float, tile);
  float* places = tile + kTileSize;
  float* inverse = places + 3 * m.n_axes * kRows;
  float* even = scratch + static_cast<int64_t>(blockIdx.x) * kept;
  float* odd = even + mlp.widest() * kStride;
  MlpRows rows{n, x, x_dim, aux, index, aux_dim, aux_rows};
  int n_out = mlp.dims[mlp.layers], channels = m.each ? mlp.dims[1] : 1;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRows; first < n;
       first += static_cast<int64_t>(gridDim.x) * kRows) {
    load_tile(rows, first, mlp.dims[0], even);
    locate_tile(m, n, at, first, places);
    const float *w = params, *grid = grids;
    float *from = even, *to = odd;
    for (int l = 0; l < mlp.layers; ++l) {
      int in = mlp.dims[l], width = mlp.dims[l + 1];
      bool last = l + 1 == mlp.layers;
      product(w, in, 1, w + in * width, in, width, from, tile, [&](int j, int r, float v) {
        if (!last) {
          to[j * kStride + r] = v;
        } else if (first + r < n) {
          out[(first + r) * n_out + j] = activate(mlp.output_activation, v);
        }
      });
      __syncthreads();  // what the layer gave is complete, and nobody reads what it was given
      if (last) break;
      modulate_tile(m, grid, mlp.activation, width, places, to, inverse, to);
      w += mlp.size(l);
      grid += static_cast<int64_t>(m.entries) * 2 * channels;
      float* swap = from;
      from = to;
      to = swap;
    }
  }
}

// Writes d_x and d_at (or not, where they are null) and the block's share of d_params into slices[blockIdx.x]; adds to
// d_grids, or not.
// Scratch of a block: every layer's input, the normalised features of every hidden layer, two buffers of the widest layer.
// Shared memory: the weight tile, places, their cotangents, a factor of each sample and hidden layer.
FF_KERNEL(kThreads, 2)
cam_backward(int n, const __grid_constant__ MlpLayers mlp, const __grid_constant__ Modulation m, const float* params,
             const float* grids, const float* x, int x_dim, const float* aux, int aux_dim, int aux_rows,
             const int32_t* index, const float* at, float* scratch, int kept, const float* d_out, float* d_x, float* d_at,
             float* d_grids, float* slices, int size) {
  FF_SHARED(float, tile);
  float* places = tile + kTileSize;
  float* d_places = places + 3 * m.n_axes * kRows;
  float* inverse = d_places + m.n_axes * kRows;
  int inputs = 0, hidden = mlp.layers - 1;
  for (int l = 0; l < mlp.layers; ++l) inputs += mlp.dims[l];
  float* h = scratch + static_cast<int64_t>(blockIdx.x) * kept;
  float* features = h + inputs * kStride;
  float* d = features + hidden * mlp.dims[1] * kStride;
  float* d_next = d + mlp.widest() * kStride;
  MlpRows rows{n, x, x_dim, aux, index, aux_dim, aux_rows};
  float* slice = slices + static_cast<int64_t>(blockIdx.x) * size;
  int n_out = mlp.dims[mlp.layers];
  int64_t grid_size = static_cast<int64_t>(m.entries) * 2 * (m.each ? mlp.dims[1] : 1);
  int64_t begin = static_cast<int64_t>(blockIdx.x) * kRows;
  for (int64_t first = begin; first < n; first += static_cast<int64_t>(gridDim.x) * kRows) {
    int real = n - first < kRows ? static_cast<int>(n - first) : kRows;
    load_tile(rows, first, mlp.dims[0], h);
    locate_tile(m, n, at, first, places);
    for (int e = static_cast<int>(threadIdx.x); e < m.n_axes * kRows; e += kThreads) d_places[e] = 0.0f;
    const float *w = params, *grid = grids;
    float *from = h, *f = features;
    int at_params = 0;
    for (int l = 0; l < mlp.layers; ++l) {
      int in = mlp.dims[l], width = mlp.dims[l + 1];
      bool last = l + 1 == mlp.layers;
      product(w, in, 1, w + in * width, in, width, from, tile, [&](int j, int r, float v) {
        if (!last) {
          f[j * kStride + r] = v;
          return;
        }
        float cotangent = r < real ? d_out[(first + r) * n_out + j] : 0.0f;
        int kind = mlp.output_activation;
        d[j * kStride + r] = activate_vjp(kind, v, activate(kind, v), cotangent);
      });
      __syncthreads();  // what the layer gave is complete
      if (last) break;
      from += in * kStride;
      modulate_tile(m, grid, mlp.activation, width, places, f, inverse + l * kRows, from);
      f += width * kStride;
      w += mlp.size(l);
      at_params += mlp.size(l);
      grid += grid_size;
    }
    for (int l = mlp.layers - 1; l >= 0; --l) {
      int in = mlp.dims[l], width = mlp.dims[l + 1];
      weight_gradient(d, from, width, in, slice + at_params, first == begin);
      bias_gradient(d, width, slice + at_params + in * width, first == begin);
      if (l > 0 || d_x) {
        product(w, 1, in, nullptr, width, in, d, tile, [&](int k, int r, float v) {
          if (l > 0) {
            d_next[k * kStride + r] = v;
          } else if (k < x_dim && r < real) {
            d_x[(first + r) * x_dim + k] = v;
          }
        });
      }
      __syncthreads();  // cotangents of the layer's input are complete, and nobody reads those of its output
      if (l == 0) break;
      from -= mlp.dims[l - 1] * kStride;
      f -= in * kStride;
      w -= mlp.size(l - 1);
      at_params -= mlp.size(l - 1);
      grid -= grid_size;
      modulate_tile_vjp(m, grid, mlp.activation, in, places, f, inverse + (l - 1) * kRows, real, d_next,
                        d_grids ? d_grids + (l - 1) * grid_size : nullptr, d_at ? d_places : nullptr);
      __syncthreads();  // cotangents of what the layer below gave are complete
      float* swap = d;
      d = d_next;
      d_next = swap;
    }
    for (int e = static_cast<int>(threadIdx.x); d_at && e < real * m.n_axes; e += kThreads) {
      int a = e % m.n_axes, r = e / m.n_axes;
      float slope = locate(at[first * m.n_axes + e], m.axis[a]).slope;
      d_at[first * m.n_axes + e] = slope * d_places[a * kRows + r];
    }
    __syncthreads();  // nobody reads the places of this tile any more
  }
}

}  // namespace fieldfit
