// Rendering in one pass: a block of rays marches a few samples each, the samples go through grid and perceptrons while they
// are in the cache, and are composited; rays that became opaque stop.
#include "../composite.h"
#include "../harmonics.h"
#include "mlp_tile.h"
#include <memory>

#include "packet.h"
#include "threads.h"

namespace fieldfit {
namespace {

constexpr int kPackets = 64 / kLanes;
constexpr int kBlockRays = kPackets * kLanes;
constexpr int kQuota = 8;  // samples per ray and round
constexpr int kMaxSamples = kBlockRays * kQuota;

struct Block {
  Packet packets[kPackets];
  Composite<float> composite[kBlockRays];
  float direction[kBlockRays][16];
  int count[kBlockRays];  // samples of this round
  float t0[kBlockRays][kQuota], t1[kBlockRays][kQuota], point[kBlockRays][kQuota][3];
  float x[kMaxSamples * 3];
  int owner[kMaxSamples];
  int slot[kMaxSamples];
};

}  // namespace

int64_t render(const RadianceModel& model, const RayBatch& rays, const MarchRule& rule, float min_transmittance,
               const Rendering& out) {
  PackedMlp density(model.density), color(model.color);
  int width = model.grid.n_levels * model.grid.features;
  int latent = model.density.dims[model.density.layers];
  int latent_pad = density.pad[model.density.layers];
  int color_pad = color.pad[model.color.layers];
  int coefficients = model.harmonics_degree * model.harmonics_degree;
  int64_t blocks = (rays.n + kBlockRays - 1) / kBlockRays;
  int64_t evaluated = 0;
#pragma omp parallel reduction(+ : evaluated)
  {
    auto block = std::make_unique<Block>();
    MlpTile density_tile(density, false), color_tile(color, false);
    std::vector<float> features(static_cast<size_t>(kMaxSamples) * width);
#pragma omp for schedule(dynamic, 4)
    for (int64_t b = 0; b < blocks; ++b) {
      int64_t first = b * kBlockRays;
      int n_rays = static_cast<int>(std::min<int64_t>(kBlockRays, rays.n - first));
      RayBatch chunk{first + n_rays, rays.origins, rays.directions, rays.jitter};
      for (int p = 0; p < kPackets; ++p) {
        if (p * kLanes < n_rays) {
          block->packets[p].begin(chunk, first + p * kLanes, rule);
        } else {
          block->packets[p].active = IntV{};
        }
      }
      for (int r = 0; r < n_rays; ++r) {
        composite_begin(block->composite[r]);
        const float* d = rays.directions + (first + r) * 3;
        harmonics_of(model.harmonics_degree, d[0], d[1], d[2], block->direction[r]);
      }
      while (true) {
        std::fill_n(block->count, kBlockRays, 0);
        for (int p = 0; p < kPackets; ++p) {
          block->packets[p].advance(kQuota, rule, [&](int l, float t0, float t1, const float* x) {
            int r = p * kLanes + l, k = block->count[r]++;
            block->t0[r][k] = t0;
            block->t1[r][k] = t1;
            memcpy(block->point[r][k], x, 12);
          });
        }
        int n = 0;
        for (int r = 0; r < kBlockRays; ++r) {
          for (int k = 0; k < block->count[r]; ++k, ++n) {
            memcpy(block->x + n * 3, block->point[r][k], 12);
            block->owner[n] = r;
            block->slot[n] = k;
          }
        }
        if (n == 0) break;
        evaluated += n;
        grid_forward_serial(model.grid, n, block->x, features.data());
        for (int begin = 0; begin < n; begin += kTile) {
          int count = std::min(kTile, n - begin);
          MlpInput in{count, features.data() + static_cast<size_t>(begin) * width, width, nullptr, nullptr, 0};
          load_rows(in, 0, count, density.pad[0], density_tile.h[0]);
          mlp_tile_forward(density, density_tile, count);
          const float* z = density_tile.h[model.density.layers];
          for (int i = 0; i < count; ++i) {
            float* row = color_tile.h[0] + static_cast<size_t>(i) * color.pad[0];
            memcpy(row, z + i * latent_pad, sizeof(float) * latent);
            memcpy(row + latent, block->direction[block->owner[begin + i]], sizeof(float) * coefficients);
          }
          mlp_tile_forward(color, color_tile, count);
          const float* rgb = color_tile.h[model.color.layers];
          for (int i = 0; i < count; ++i) {
            int r = block->owner[begin + i], k = block->slot[begin + i];
            Composite<float>& c = block->composite[r];
            if (c.transmittance < min_transmittance) continue;
            float sigma = activate<float>(kExp, z[i * latent_pad]);
            composite_add(c, sigma, rgb + i * color_pad, block->t0[r][k], block->t1[r][k]);
          }
        }
        for (int r = 0; r < n_rays; ++r) {
          if (block->composite[r].transmittance < min_transmittance) block->packets[r / kLanes].active[r % kLanes] = 0;
        }
      }
      for (int r = 0; r < n_rays; ++r) {
        const Composite<float>& c = block->composite[r];
        for (int a = 0; a < 3; ++a) out.rgb[(first + r) * 3 + a] = c.rgb[a];
        out.opacity[first + r] = c.opacity;
        out.depth[first + r] = c.depth;
      }
    }
  }
  return evaluated;
}

}  // namespace fieldfit
