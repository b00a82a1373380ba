// Perceptron, forward and backward, over tiles of samples. The forward pass keeps each tile's activations where there is
// memory for them; without, the backward pass computes them again while the tile is in the cache.
#include "mlp_tile.h"
#include "threads.h"

namespace fieldfit {

std::unique_ptr<PackedMlp> pack(const Mlp& mlp) { return mlp.bfloat16 && kHasBFloat16 ? pack_bfloat16(mlp) : pack_float32(mlp); }

void sum_gradients(const PackedMlp& packed, const std::vector<std::unique_ptr<MlpGradients>>& parts, float* d_params) {
  const Mlp& mlp = packed.mlp;
  float* to = d_params;
  for (int l = 0; l < mlp.layers; ++l) {
    int in = mlp.dims[l], out = mlp.dims[l + 1];
    auto add = [&](auto of, int from, int count) {
      std::fill_n(to, count, 0.0f);
      for (const auto& part : parts) {
        if (!part) continue;
        const float* values = of(*part) + from;
        for (int k = 0; k < count; ++k) to[k] += values[k];
      }
      to += count;
    };
    for (int j = 0; j < out; ++j) add([l](const MlpGradients& g) { return g.weights[l]; }, j * packed.pad[l], in);
    if (mlp.bias) add([l](const MlpGradients& g) { return g.bias[l]; }, 0, out);
  }
}

void mlp_forward(const Mlp& mlp, const MlpInput& in, float* out, Tape* tape) {
  std::unique_ptr<PackedMlp> packed = pack(mlp);
  int width = mlp.dims[mlp.layers];
  size_t step = packed->kept_bytes();
  char* kept = tape ? tape->reserve(step * static_cast<size_t>((in.n + kTile - 1) / kTile)) : nullptr;
#pragma omp parallel num_threads(threads_for(in.n, 4 * kTile))
  {
    std::unique_ptr<MlpTile> tile = packed->tile();
    Range range = share(in.n, omp_get_thread_num(), omp_get_num_threads(), kTile);
    for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
      int n = static_cast<int>(std::min<int64_t>(kTile, range.end - begin));
      const float* rows = load_rows(in, begin, n, packed->pad_in(), tile->input);
      const float* values = tile->forward(rows, n, kept ? kept + begin / kTile * step : nullptr);
      unload_rows(values, packed->pad_out(), n, width, out + begin * width);
    }
  }
}

void mlp_backward(const Mlp& mlp, const MlpInput& in, const Tape* tape, const float* d_out, float* d_x, float* d_params) {
  std::unique_ptr<PackedMlp> packed = pack(mlp);
  int width = mlp.dims[mlp.layers], pad_out = packed->pad_out();
  size_t step = packed->kept_bytes();
  char* kept = tape ? tape->data() : nullptr;
  int n_threads = threads_for(in.n, 4 * kTile);
  std::vector<std::unique_ptr<MlpGradients>> gradients(n_threads);
#pragma omp parallel num_threads(n_threads)
  {
    std::unique_ptr<MlpTile> tile = packed->tile();
    auto& sums = gradients[omp_get_thread_num()];
    sums = std::make_unique<MlpGradients>(*packed);
    Range range = share(in.n, omp_get_thread_num(), omp_get_num_threads(), kTile);
    for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
      int n = static_cast<int>(std::min<int64_t>(kTile, range.end - begin));
      const float* rows = load_rows(in, begin, n, packed->pad_in(), tile->input);
      char* of_tile = kept ? kept + begin / kTile * step : nullptr;
      if (!kept) tile->forward(rows, n, nullptr);
      memset(tile->d_out + static_cast<int64_t>(n) * pad_out, 0, sizeof(float) * (cleared_rows(n) - n) * pad_out);
      for (int i = 0; i < n; ++i) memcpy(tile->d_out + i * pad_out, d_out + (begin + i) * width, sizeof(float) * width);
      const float* d = tile->backward(rows, n, of_tile, tile->d_out, *sums, d_x != nullptr);
      if (d_x) unload_rows(d, packed->pad_in(), n, in.x_dim, d_x + begin * in.x_dim);
    }
  }
  sum_gradients(*packed, gradients, d_params);
}

}  // namespace fieldfit
