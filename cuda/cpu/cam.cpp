// Perceptrons with coordinate-aware modulation, forward and backward, over tiles of samples. The forward pass keeps the
// products of each tile where there is memory for them; without, the backward pass computes them again.
#include "cam_tile.h"
#include "threads.h"

namespace fieldfit {
namespace {

// Samples begin .. begin + n: their input as rows, their places among the vertices, and where their tape is.
struct TileOf {
  int n;
  float* kept;
};

TileOf load_tile(const PackedCam& packed, const CamInput& in, int64_t begin, int64_t end, const Tape* tape, CamTile& tile) {
  int n = static_cast<int>(std::min<int64_t>(kTile, end - begin));
  gather_rows(in.rows, begin, n, packed.stride(0), tile.input);
  tile.locate_all(in.at + begin * packed.cam.n_axes, n);
  char* data = tape ? tape->data() : nullptr;
  return {n, data ? reinterpret_cast<float*>(data) + begin / kTile * packed.kept_floats() : nullptr};
}

void add_parts(const std::vector<std::unique_ptr<CamSums>>& parts, const float* first, const CamSums& of, int64_t count, float* to) {
  int64_t offset = first - of.storage.data();
  for (const auto& part : parts) {
    if (!part) continue;
    const float* values = part->storage.data() + offset;
    for (int64_t k = 0; k < count; ++k) to[k] += values[k];
  }
}

// Sums over threads, in their order, into the layout of the parameters.
void sum_parts(const PackedCam& packed, const std::vector<std::unique_ptr<CamSums>>& parts, const CamGradients& to) {
  const CamSums& first = *parts[0];
  float* at = to.d_params;
  for (int l = 0; l < packed.layers(); ++l) {
    int in = packed.dim(l), out = packed.dim(l + 1);
    std::fill_n(at, static_cast<int64_t>(out) * (in + 1), 0.0f);
    float* weights = at;
    for (int j = 0; j < out; ++j, at += in) add_parts(parts, first.weights[l] + static_cast<int64_t>(j) * packed.stride(l), first, in, at);
    add_parts(parts, first.bias[l], first, out, at);
    if (packed.centred(l)) {
      centre(weights, out, in);
      centre(at, out, 1);
    }
    at += out;
  }
  if (!to.d_grids) return;
  at = to.d_grids;
  int channels = packed.cam.channels();
  int64_t values = packed.grid_row == channels ? packed.grid_size() : channels;  // that lie side by side in both
  for (int l = 0; l + 1 < packed.layers(); ++l) {
    for (int64_t from = 0; from < packed.grid_size(); from += values == channels ? packed.grid_row : values, at += values) {
      std::fill_n(at, values, 0.0f);
      add_parts(parts, first.grids[l] + from, first, values, at);
    }
  }
}

}  // namespace

void cam_forward(const Cam& cam, const CamInput& in, float* out, Tape* tape) {
  PackedCam packed(cam);
  int64_t n_tiles = (in.rows.n + kTile - 1) / kTile;
  if (tape) tape->reserve(sizeof(float) * packed.kept_floats() * static_cast<size_t>(n_tiles));
  int width = cam.mlp.dims[cam.mlp.layers];
#pragma omp parallel num_threads(threads_for(in.rows.n, 4 * kTile))
  {
    CamTile tile(packed);
    Range range = share(in.rows.n, omp_get_thread_num(), omp_get_num_threads(), kTile);
    for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
      TileOf of = load_tile(packed, in, begin, range.end, tape, tile);
      unload_rows(tile.run(of.n, of.kept), packed.stride(packed.layers()), of.n, width, out + begin * width);
    }
  }
}

void cam_backward(const Cam& cam, const CamInput& in, const Tape* tape, const float* d_out, const CamGradients& to) {
  PackedCam packed(cam);
  int width = cam.mlp.dims[cam.mlp.layers], out = packed.stride(packed.layers());
  int n_threads = threads_for(in.rows.n, 4 * kTile);
  std::vector<std::unique_ptr<CamSums>> parts(n_threads);
#pragma omp parallel num_threads(n_threads)
  {
    CamTile tile(packed);
    auto& sums = parts[omp_get_thread_num()];
    sums = std::make_unique<CamSums>(packed);
    Range range = share(in.rows.n, omp_get_thread_num(), omp_get_num_threads(), kTile);
    for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
      TileOf of = load_tile(packed, in, begin, range.end, tape, tile);
      if (!of.kept) tile.run(of.n, nullptr);
      copy_rows(d_out + begin * width, width, tile.d_out, out, of.n, width);
      const float* d = tile.run_back(of.n, of.kept, *sums, to.d_x != nullptr, to.d_at != nullptr);
      if (to.d_x) unload_rows(d, packed.stride(0), of.n, in.rows.x_dim, to.d_x + begin * in.rows.x_dim);
      for (int i = 0; to.d_at && i < of.n; ++i) {
        int64_t at = (begin + i) * cam.n_axes;
        tile.at_vjp(i, in.at + at, to.d_at + at);
      }
    }
  }
  sum_parts(packed, parts, to);
}

}  // namespace fieldfit
