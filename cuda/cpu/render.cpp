// Rendering in one pass, and marching that stops at surfaces: samples go through grid and perceptrons while they are in the
// cache, and rays that became opaque stop.
#include <memory>

#include "../composite.h"
#include "../harmonics.h"
#include "mlp_tile.h"
#include "threads.h"
#include "wavefront.h"

namespace fieldfit {
namespace {

// Grid and density network over the samples of a round.
struct DensityPass {
  const Grid& grid;
  const PackedMlp& mlp;
  int width;
  std::vector<float> features;
  MlpTile tile;

  DensityPass(const Grid& g, const PackedMlp& m)
      : grid(g), mlp(m), width(g.n_levels * g.features), features(static_cast<size_t>(kMaxSamples) * width), tile(m, false) {}

  // Calls use(begin, count, latent rows) tile by tile.
  template <class Use>
  void run(const float* x, int n, Use use) {
    grid_forward_serial(grid, n, x, features.data());
    for (int begin = 0; begin < n; begin += kTile) {
      int count = std::min(kTile, n - begin);
      MlpInput in{count, features.data() + static_cast<size_t>(begin) * width, width, nullptr, nullptr, 0};
      load_rows(in, 0, count, mlp.pad[0], tile.h[0]);
      mlp_tile_forward(mlp, tile, count);
      use(begin, count, tile.h[mlp.mlp.layers]);
    }
  }
};

}  // namespace

int64_t render(const RadianceModel& model, const RayBatch& rays, const MarchRule& rule, float min_transmittance,
               const Rendering& out) {
  PackedMlp density(model.density), color(model.color);
  int latent = model.density.dims[model.density.layers];
  int latent_pad = density.pad[model.density.layers];
  int color_pad = color.pad[model.color.layers];
  int coefficients = model.harmonics_degree * model.harmonics_degree;
  int64_t blocks = (rays.n + kBlockRays - 1) / kBlockRays;
  int64_t evaluated = 0;
#pragma omp parallel reduction(+ : evaluated)
  {
    auto front = std::make_unique<Wavefront>();
    DensityPass pass(model.grid, density);
    MlpTile color_tile(color, false);
    Composite<float> composite[kBlockRays];
    float direction[kBlockRays][16];
#pragma omp for schedule(dynamic, 4)
    for (int64_t b = 0; b < blocks; ++b) {
      int64_t first = b * kBlockRays;
      int n_rays = static_cast<int>(std::min<int64_t>(kBlockRays, rays.n - first));
      for (int r = 0; r < n_rays; ++r) {
        composite_begin(composite[r]);
        const float* d = rays.directions + (first + r) * 3;
        harmonics_of(model.harmonics_degree, d[0], d[1], d[2], direction[r]);
      }
      front->run(rays, first, n_rays, rule, min_transmittance, [&](int n) {
        evaluated += n;
        pass.run(front->x, n, [&](int begin, int count, const float* z) {
          for (int i = 0; i < count; ++i) {
            float* row = color_tile.h[0] + static_cast<size_t>(i) * color.pad[0];
            memcpy(row, z + i * latent_pad, sizeof(float) * latent);
            memcpy(row + latent, direction[front->owner[begin + i]], sizeof(float) * coefficients);
          }
          mlp_tile_forward(color, color_tile, count);
          const float* rgb = color_tile.h[model.color.layers];
          for (int i = 0; i < count; ++i) {
            int s = begin + i, r = front->owner[s];
            if (composite[r].transmittance < min_transmittance) continue;
            float sigma = activate<float>(kExp, z[i * latent_pad]);
            composite_add(composite[r], sigma, rgb + i * color_pad, front->t0[s], front->t1[s]);
            front->transmittance[r] = composite[r].transmittance;
          }
        });
      });
      for (int r = 0; r < n_rays; ++r) {
        for (int a = 0; a < 3; ++a) out.rgb[(first + r) * 3 + a] = composite[r].rgb[a];
        out.opacity[first + r] = composite[r].opacity;
        out.depth[first + r] = composite[r].depth;
      }
    }
  }
  return evaluated;
}

Samples march_visible(const Grid& grid, const Mlp& mlp, const RayBatch& rays, const MarchRule& rule, float min_transmittance) {
  PackedMlp density(mlp);
  int latent_pad = density.pad[mlp.layers];
  int64_t blocks = (rays.n + kBlockRays - 1) / kBlockRays;
  std::vector<SampleBuffer> buffers(blocks);
  Samples out;
  out.offsets.assign(rays.n + 1, 0);
  int n_threads = threads_for(rays.n, kBlockRays);
#pragma omp parallel num_threads(n_threads)
  {
    auto front = std::make_unique<Wavefront>();
    DensityPass pass(grid, density);
    std::vector<SampleBuffer> of_ray(kBlockRays);
#pragma omp for schedule(dynamic, 1)
    for (int64_t b = 0; b < blocks; ++b) {
      int64_t first = b * kBlockRays;
      int n_rays = static_cast<int>(std::min<int64_t>(kBlockRays, rays.n - first));
      for (SampleBuffer& ray : of_ray) ray.clear();
      front->run(rays, first, n_rays, rule, min_transmittance, [&](int n) {
        pass.run(front->x, n, [&](int begin, int count, const float* z) {
          for (int i = 0; i < count; ++i) {
            int s = begin + i, r = front->owner[s];
            if (front->transmittance[r] < min_transmittance) continue;
            float sigma = activate<float>(kExp, z[i * latent_pad]);
            front->transmittance[r] *= exp_(-sigma * (front->t1[s] - front->t0[s]));
            of_ray[r].add(front->t0[s], front->t1[s], front->x + s * 3);
          }
        });
      });
      for (int r = 0; r < n_rays; ++r) {
        out.offsets[first + r + 1] = static_cast<int64_t>(of_ray[r].t0.size());
        buffers[b].append(of_ray[r]);
      }
    }
  }
  out.collect(buffers);
  return out;
}

}  // namespace fieldfit
