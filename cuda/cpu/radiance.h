// A radiance field over one thread's blocks of rays.
#pragma once
#include <memory>

#include "../composite.h"
#include "../harmonics.h"
#include "mlp_tile.h"
#include "wavefront.h"

namespace fieldfit {

// Grid and density network over the samples of a round.
struct DensityPass {
  const Grid& grid;
  const PackedMlp& mlp;
  int width;
  std::vector<float> features;
  std::unique_ptr<MlpTile> tile;

  DensityPass(const Grid& g, const PackedMlp& m)
      : grid(g), mlp(m), width(g.n_levels * g.features), features(static_cast<size_t>(kMaxSamples) * width), tile(m.tile()) {}

  // Calls use(begin, count, latent rows) tile by tile.
  template <class Use>
  void run(const Wavefront& front, int n, StageClock& clock, Use use) {
    grid_forward_serial(grid, n, {{front.x[0], front.x[1], front.x[2], nullptr}, 1}, features.data());
    clock.lap(kEncode);
    for (int begin = 0; begin < n; begin += kTile) {
      int count = std::min(kTile, n - begin);
      MlpInput in{count, features.data() + static_cast<size_t>(begin) * width, width, nullptr, nullptr, 0};
      use(begin, count, tile->forward(load_rows(in, 0, count, mlp.pad_in(), tile->input), count, nullptr));
    }
    clock.lap(kNetworks);
  }
};

// Colours of a block's samples.
struct ColorPass {
  const PackedMlp& mlp;
  int latent, coefficients;
  std::unique_ptr<MlpTile> tile;
  float direction[kBlockRays][16];

  ColorPass(const PackedMlp& m, int latent, int harmonics_degree)
      : mlp(m), latent(latent), coefficients(harmonics_degree * harmonics_degree), tile(m.tile()) {}

  void face(const float* directions, int n_rays, int harmonics_degree) {
    for (int r = 0; r < n_rays; ++r) {
      const float* d = directions + r * 3;
      harmonics_of(harmonics_degree, d[0], d[1], d[2], direction[r]);
    }
  }
  // Samples begin .. begin + n of the block; returns rows of colours.
  const float* run(const BlockTape& block, int64_t begin, int n) {
    for (int i = 0; i < n; ++i) {
      float* row = tile->input + static_cast<int64_t>(i) * mlp.pad_in();
      memcpy(row, block.latent.data() + (begin + i) * latent, sizeof(float) * latent);
      memcpy(row + latent, direction[block.owner[begin + i]], sizeof(float) * coefficients);
    }
    return tile->forward(tile->input, n, nullptr);
  }
};

}  // namespace fieldfit
