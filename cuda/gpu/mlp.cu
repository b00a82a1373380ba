// Perceptron in float32, forward and backward, for layers of any size. The backward pass computes a tile's activations
// again; each block sums its weight gradients in a slice of its own, so that they are the same every time.
#include "mlp_block.cuh"

namespace fieldfit {

// Shared memory: the weight tile, then two buffers of the widest layer.
FF_KERNEL(kThreads, 2)
mlp_forward(int n, const __grid_constant__ MlpLayers mlp, const float* params, const float* x, int x_dim,
            const float* aux, int aux_dim, int aux_rows, const int32_t* index, float* out) {
  FF_SHARED(float, tile);
  float* even = tile + kTileSize;
  float* odd = even + mlp.widest() * kStride;
  MlpRows rows{n, x, x_dim, aux, index, aux_dim, aux_rows};
  int n_out = mlp.dims[mlp.layers];
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRows; first < n;
       first += static_cast<int64_t>(gridDim.x) * kRows) {
    load_tile(rows, first, mlp.dims[0], even);
    float* done = mlp.layers & 1 ? odd : even;
    mlp_tile(mlp, params, even, odd, tile, [&](int j, int r, float h) { done[j * kStride + r] = h; });
    __syncthreads();  // so that rows leave in order
    for (int e = static_cast<int>(threadIdx.x); e < kRows * n_out; e += kThreads) {
      if (first + e / n_out < n) out[first * n_out + e] = done[e % n_out * kStride + e / n_out];
    }
    __syncthreads();
  }
}

// Writes d_x (or not, where it is null) and the block's share of d_params into slices[blockIdx.x].
// Shared memory: the weight tile, every layer's input h, its z if `keep_z`, and two buffers of the widest layer.
FF_KERNEL(kThreads, 2)
mlp_backward(int n, const __grid_constant__ MlpLayers mlp, const float* params, const float* x, int x_dim,
             const float* aux, int aux_dim, int aux_rows, const int32_t* index, const float* d_out, float* d_x,
             float* slices, int size, int keep_z) {
  FF_SHARED(float, tile);
  float* h = tile + kTileSize;
  int inputs = 0;
  for (int l = 0; l < mlp.layers; ++l) inputs += mlp.dims[l];
  int z_of_h = keep_z ? inputs * kStride : 0;  // from a value to what its activation saw
  float* d = h + (keep_z ? 2 : 1) * inputs * kStride;
  float* d_next = d + mlp.widest() * kStride;
  MlpRows rows{n, x, x_dim, aux, index, aux_dim, aux_rows};
  float* slice = slices + static_cast<int64_t>(blockIdx.x) * size;
  int n_out = mlp.dims[mlp.layers];
  int64_t begin = static_cast<int64_t>(blockIdx.x) * kRows;
  for (int64_t first = begin; first < n; first += static_cast<int64_t>(gridDim.x) * kRows) {
    load_tile(rows, first, mlp.dims[0], h);
    const float* w = params;
    float* from = h;
    int at = 0;
    for (int l = 0; l < mlp.layers; ++l) {
      int in = mlp.dims[l], out = mlp.dims[l + 1], kind = mlp.kind(l);
      float* to = from + in * kStride;
      bool last = l + 1 == mlp.layers;
      product(w, in, 1, mlp.bias ? w + in * out : nullptr, in, out, from, tile, [&](int j, int r, float z) {
        float value = activate(kind, z);
        if (last) {
          float cotangent = first + r < n ? d_out[(first + r) * n_out + j] : 0.0f;
          d[j * kStride + r] = activate_vjp(kind, z, value, cotangent);
        } else {
          to[j * kStride + r] = value;
          if (keep_z) to[j * kStride + r + z_of_h] = z;
        }
      });
      if (last) break;
      from = to;
      w += mlp.size(l);
      at += mlp.size(l);
    }
    for (int l = mlp.layers - 1; l >= 0; --l) {
      int in = mlp.dims[l], out = mlp.dims[l + 1];
      __syncthreads();  // d is complete
      weight_gradient(d, from, out, in, slice + at, first == begin);
      if (mlp.bias) bias_gradient(d, out, slice + at + in * out, first == begin);
      if (l > 0 || d_x) {
        const float* inputs_of_layer = from;
        product(w, 1, in, nullptr, out, in, d, tile, [&](int k, int r, float v) {
          if (l > 0) {
            float value = inputs_of_layer[k * kStride + r];
            float z = keep_z ? inputs_of_layer[k * kStride + r + z_of_h] : value;
            d_next[k * kStride + r] = activate_vjp(mlp.activation, z, value, v);
          } else if (k < x_dim && first + r < n) {
            d_x[(first + r) * x_dim + k] = v;
          }
        });
      }
      if (l > 0) {
        from -= mlp.dims[l - 1] * kStride;
        w -= mlp.size(l - 1);
        at -= mlp.size(l - 1);
      }
      float* swap = d;
      d = d_next;
      d_next = swap;
    }
    __syncthreads();  // nobody reads this tile's inputs any more
  }
}

}  // namespace fieldfit
