// A layer of Gaussian neurons in feature space, forward and backward, a block for each tile of samples. With z = [x, x^2],
// half of each squared distance is a row of `form` times z plus a constant; its gradients are products too.
#include "../rbf.h"

#include "mlp_block.cuh"

namespace fieldfit {

struct RbfSize {
  int features, neurons, outputs;
};

namespace {

FF_LANE float clamped_feature(float x) { return minimum(maximum(x, -kMostFeature), kMostFeature); }

// [x, x^2] of samples first .. first + kRows as columns; those past the end are zeros.
FF_LANE void load_squares(const RbfSize& of, int n, const float* x, int64_t first, float* z) {
  for (int e = static_cast<int>(threadIdx.x); e < kRows * of.features; e += kThreads) {
    int r = e / of.features, j = e % of.features;
    float v = first + r < n ? clamped_feature(x[(first + r) * of.features + j]) : 0.0f;
    z[j * kStride + r] = v;
    z[(of.features + j) * kStride + r] = v * v;
  }
}

FF_LANE void neurons_of(const RbfSize& of, const float* form, const float* constant, const float* z, float* tile,
                        float* phi) {
  product(form, 2 * of.features, 1, constant, 2 * of.features, of.neurons, z, tile,
          [&](int k, int r, float half_distance2) { phi[k * kStride + r] = rbf(half_distance2); });
}

}  // namespace

// form [neurons, 2 features], constant [neurons], weight [outputs, neurons], bias [outputs].
// Scratch of a block: z and the neurons. Shared memory: the weight tile.
FF_KERNEL(kThreads, 2)
rbf_forward(int n, const __grid_constant__ RbfSize of, const float* x, const float* form, const float* constant,
            const float* weight, const float* bias, float* scratch, int kept, float* out) {
  FF_SHARED(float, tile);
  float* z = scratch + static_cast<int64_t>(blockIdx.x) * kept;
  float* phi = z + 2 * of.features * kStride;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kRows; first < n;
       first += static_cast<int64_t>(gridDim.x) * kRows) {
    load_squares(of, n, x, first, z);
    neurons_of(of, form, constant, z, tile, phi);
    product(weight, of.neurons, 1, bias, of.neurons, of.outputs, phi, tile, [&](int j, int r, float v) {
      if (first + r < n) out[(first + r) * of.outputs + j] = v;
    });
  }
}

// Writes d_x (or not, where it is null); the block's shares go into slices[blockIdx.x]: of weight, of bias, of the
// cotangents of half distances times z [neurons, 2 features], and of those alone [neurons].
// Scratch of a block: z and its cotangents, the neurons and theirs, the outputs' cotangents.
FF_KERNEL(kThreads, 2)
rbf_backward(int n, const __grid_constant__ RbfSize of, const float* x, const float* form, const float* constant,
             const float* weight, float* scratch, int kept, const float* d_out, float* d_x, float* slices, int size) {
  FF_SHARED(float, tile);
  int width = 2 * of.features;
  float* z = scratch + static_cast<int64_t>(blockIdx.x) * kept;
  float* d_z = z + width * kStride;
  float* phi = d_z + width * kStride;
  float* g = phi + of.neurons * kStride;
  float* d = g + of.neurons * kStride;
  float* d_weight = slices + static_cast<int64_t>(blockIdx.x) * size;
  float* d_bias = d_weight + of.outputs * of.neurons;
  float* d_form = d_bias + of.outputs;
  float* d_constant = d_form + of.neurons * width;
  int64_t begin = static_cast<int64_t>(blockIdx.x) * kRows;
  MlpRows cotangents{n, d_out, of.outputs, nullptr, nullptr, 0, 0};
  for (int64_t first = begin; first < n; first += static_cast<int64_t>(gridDim.x) * kRows) {
    bool fresh = first == begin;
    load_squares(of, n, x, first, z);
    load_tile(cotangents, first, of.outputs, d);
    neurons_of(of, form, constant, z, tile, phi);
    product(weight, 1, of.neurons, nullptr, of.outputs, of.neurons, d, tile,
            [&](int k, int r, float v) { g[k * kStride + r] = rbf_vjp(phi[k * kStride + r], v); });
    __syncthreads();  // neurons and their cotangents are complete
    weight_gradient(d, phi, of.outputs, of.neurons, d_weight, fresh);
    bias_gradient(d, of.outputs, d_bias, fresh);
    weight_gradient(g, z, of.neurons, width, d_form, fresh);
    bias_gradient(g, of.neurons, d_constant, fresh);
    if (d_x) {
      product(form, 1, width, nullptr, of.neurons, width, g, tile,
              [&](int k, int r, float v) { d_z[k * kStride + r] = v; });
      __syncthreads();  // cotangents of x and of its square are there
      for (int e = static_cast<int>(threadIdx.x); e < kRows * of.features; e += kThreads) {
        int r = e / of.features, j = e % of.features;
        if (first + r >= n) continue;
        float square = d_z[(of.features + j) * kStride + r];
        d_x[(first + r) * of.features + j] = fma(2.0f * z[j * kStride + r], square, d_z[j * kStride + r]);
      }
    }
    __syncthreads();  // nobody reads this tile any more
  }
}

}  // namespace fieldfit
