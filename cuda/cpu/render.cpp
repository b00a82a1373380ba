// Rendering in one pass: samples go through grid and networks while they are in the cache, and rays that became opaque stop.
#include <mutex>

#include "coarse.h"
#include "radiance.h"
#include "threads.h"

namespace fieldfit {
namespace {

// Makes room for at least n samples. A block may come from a tape of another model: each array is asked for its own size.
void grow(BlockTape& block, int64_t n, int width, int latent) {
  auto room = [&](auto& values, int64_t per_sample) {
    size_t size = values.size(), needed = static_cast<size_t>(n * per_sample);
    if (needed > size) values.resize(std::max(needed, size * 3 / 2));
  };
  for (auto* values : {&block.x[0], &block.x[1], &block.x[2], &block.t0, &block.t1, &block.sigma}) room(*values, 1);
  room(block.owner, 1);
  room(block.rgb, 3);
  room(block.features, width);
  room(block.latent, latent);
}

// Fills `block` with the samples of the wavefront's rays, up to where each has become opaque.
void march_block(Wavefront& front, DensityPass& pass, const RayBatch& rays, int64_t first, int n_rays, const MarchRule& rule,
                 float min_transmittance, BlockTape& block, StageClock& clock) {
  int width = pass.width, latent = pass.mlp.mlp.dims[pass.mlp.mlp.layers], latent_pad = pass.mlp.pad_out();
  block.n = 0;
  front.run(rays, first, n_rays, rule, min_transmittance, [&](int n) {
    clock.lap(kMarch);
    grow(block, block.n + n, width, latent);
    pass.run(front, n, clock, [&](int begin, int count, const float* z) {
      float sigma[kTile] = {}, passes[kTile];
      for (int i = 0; i < count; ++i) sigma[i] = z[i * latent_pad];
      for (int i = 0; i < count; i += kLanes) {
        FloatV density = activate(kExp, load(sigma + i));
        store(sigma + i, density);
        store(passes + i, exp_(-density * (load(front.t1 + begin + i) - load(front.t0 + begin + i))));
      }
      for (int i = 0; i < count; ++i) {
        int s = begin + i, r = static_cast<int>(front.owner[s]);
        if (front.transmittance[r] < min_transmittance) continue;
        front.transmittance[r] *= passes[i];
        int64_t to = block.n++;
        block.owner[to] = static_cast<uint8_t>(r);
        block.t0[to] = front.t0[s];
        block.t1[to] = front.t1[s];
        block.sigma[to] = sigma[i];
        for (int a = 0; a < 3; ++a) block.x[a][to] = front.x[a][s];
        memcpy(&block.features[to * width], &pass.features[static_cast<size_t>(s) * width], sizeof(float) * width);
        memcpy(&block.latent[to * latent], z + i * latent_pad, sizeof(float) * latent);
      }
    });
  });
  clock.lap(kMarch);
}

void composite_block(const BlockTape& block, int n_rays, int64_t first, const Rendering& out) {
  Composite<float> composite[kBlockRays];
  for (int r = 0; r < n_rays; ++r) composite_begin(composite[r]);
  for (int64_t s = 0; s < block.n; ++s) {
    composite_add(composite[block.owner[s]], block.sigma[s], &block.rgb[s * 3], block.t0[s], block.t1[s]);
  }
  for (int r = 0; r < n_rays; ++r) {
    for (int a = 0; a < 3; ++a) out.rgb[(first + r) * 3 + a] = composite[r].rgb[a];
    out.opacity[first + r] = composite[r].opacity;
    out.depth[first + r] = composite[r].depth;
  }
}

// Cotangents of densities and colours, in the place of t0 and rgb.
void composite_block_backward(BlockTape& block, int n_rays, int64_t first, const Rendering& out, const Rendering& d) {
  Composite<float> composite[kBlockRays];
  float rest[kBlockRays];
  for (int r = 0; r < n_rays; ++r) {
    int64_t i = first + r;
    composite_begin(composite[r]);
    rest[r] = d.opacity[i] * out.opacity[i] + d.depth[i] * out.depth[i];
    for (int a = 0; a < 3; ++a) rest[r] += d.rgb[i * 3 + a] * out.rgb[i * 3 + a];
  }
  for (int64_t s = 0; s < block.n; ++s) {
    int r = block.owner[s];
    int64_t i = first + r;
    float d_sigma, d_rgb[3];
    composite_vjp(composite[r], rest[r], block.sigma[s], &block.rgb[s * 3], block.t0[s], block.t1[s], d.rgb + i * 3, d.opacity[i],
                  d.depth[i], d_sigma, d_rgb);
    block.t0[s] = d_sigma;
    memcpy(&block.rgb[s * 3], d_rgb, sizeof d_rgb);
  }
}

// Cotangents of the features, in their place.
void networks_backward(BlockTape& block, DensityPass& density, ColorPass& color, MlpGradients& d_density, MlpGradients& d_color) {
  int latent = color.latent, latent_pad = density.mlp.pad_out(), color_pad = color.mlp.pad_out();
  for (int64_t begin = 0; begin < block.n; begin += kTile) {
    int n = static_cast<int>(std::min<int64_t>(kTile, block.n - begin));
    MlpTile &of_color = *color.tile, &of_density = *density.tile;
    color.run(block, begin, n);
    memset(of_color.d_out, 0, sizeof(float) * cleared_rows(n) * color_pad);
    for (int i = 0; i < n; ++i) memcpy(of_color.d_out + i * color_pad, &block.rgb[(begin + i) * 3], sizeof(float) * 3);
    const float* d_latent = of_color.backward(of_color.input, n, nullptr, of_color.d_out, d_color, true);
    memset(of_density.d_out, 0, sizeof(float) * cleared_rows(n) * latent_pad);
    for (int i = 0; i < n; ++i) {
      float* row = of_density.d_out + i * latent_pad;
      memcpy(row, d_latent + static_cast<int64_t>(i) * color.mlp.pad_in(), sizeof(float) * latent);
      row[0] += activate_vjp<float>(kExp, 0.0f, block.sigma[begin + i], block.t0[begin + i]);
    }
    float* features = &block.features[begin * density.width];
    MlpInput in{n, features, density.width, nullptr, nullptr, 0};
    const float* rows = load_rows(in, 0, n, density.mlp.pad_in(), of_density.input);
    of_density.forward(rows, n, nullptr);
    const float* d = of_density.backward(rows, n, nullptr, of_density.d_out, d_density, true);
    unload_rows(d, density.mlp.pad_in(), n, density.width, features);
  }
}

struct IdleBlocks {
  std::mutex mutex;
  std::vector<BlockTape> blocks;
};

IdleBlocks& idle_blocks() {
  static IdleBlocks* shared = new IdleBlocks;  // never destroyed: tapes may outlive static objects
  return *shared;
}

}  // namespace

RadianceTape::~RadianceTape() {
  IdleBlocks& idle = idle_blocks();
  std::lock_guard<std::mutex> lock(idle.mutex);
  idle.blocks.swap(blocks);  // the last tape's blocks stay, those before go
}

void RadianceTape::resize(size_t n_blocks) {
  IdleBlocks& idle = idle_blocks();
  std::lock_guard<std::mutex> lock(idle.mutex);
  if (blocks.empty()) blocks.swap(idle.blocks);
  blocks.resize(n_blocks);
}

int64_t render(const RadianceModel& model, const RayBatch& rays, const MarchRule& fine, float min_transmittance,
               const Rendering& out, RadianceTape* tape) {
  CoarseOccupancy coarse(fine);
  const MarchRule& rule = coarse.rule;
  std::unique_ptr<PackedMlp> density = pack(model.density), color = pack(model.color);
  int latent = model.density.dims[model.density.layers], degree = model.harmonics_degree;
  int64_t blocks = (rays.n + kBlockRays - 1) / kBlockRays;
  int64_t n_samples = 0;
  if (tape) tape->resize(static_cast<size_t>(blocks));
  int n_threads = threads_for(rays.n, kBlockRays);
  std::vector<StageClock> clocks(n_threads);
#pragma omp parallel reduction(+ : n_samples) num_threads(n_threads)
  {
    StageClock clock;
    auto front = std::make_unique<Wavefront>();
    DensityPass density_pass(model.grid, *density);
    ColorPass color_pass(*color, latent, degree);
    BlockTape scratch;
#pragma omp for schedule(dynamic, 1)
    for (int64_t b = 0; b < blocks; ++b) {
      int64_t first = b * kBlockRays;
      int n_rays = static_cast<int>(std::min<int64_t>(kBlockRays, rays.n - first));
      BlockTape& block = tape ? tape->blocks[static_cast<size_t>(b)] : scratch;
      march_block(*front, density_pass, rays, first, n_rays, rule, min_transmittance, block, clock);
      color_pass.face(rays.directions + first * 3, n_rays, degree);
      for (int64_t begin = 0; begin < block.n; begin += kTile) {
        int n = static_cast<int>(std::min<int64_t>(kTile, block.n - begin));
        unload_rows(color_pass.run(block, begin, n), color->pad_out(), n, 3, &block.rgb[begin * 3]);
      }
      clock.lap(kNetworks);
      composite_block(block, n_rays, first, out);
      clock.lap(kComposite);
      n_samples += block.n;
    }
    clocks[omp_get_thread_num()] = clock;
  }
  if (tape) {
    for (const StageClock& clock : clocks) tape->forward.add(clock.seconds, n_threads);
    tape->n_rays = rays.n;
    tape->n_samples = n_samples;
  }
  return n_samples;
}

void render_backward(const RadianceModel& model, const RayBatch& rays, RadianceTape& tape, const Rendering& out,
                     const Rendering& cotangents, const RadianceGradients& to) {
  std::unique_ptr<PackedMlp> density = pack(model.density), color = pack(model.color);
  int latent = model.density.dims[model.density.layers], degree = model.harmonics_degree;
  int64_t blocks = static_cast<int64_t>(tape.blocks.size());
  int n_threads = threads_for(rays.n, kBlockRays);
  std::vector<std::unique_ptr<MlpGradients>> d_density(n_threads), d_color(n_threads);
  std::vector<StageClock> clocks(n_threads);
#pragma omp parallel num_threads(n_threads)
  {
    int t = omp_get_thread_num();
    DensityPass density_pass(model.grid, *density);
    ColorPass color_pass(*color, latent, degree);
    d_density[t] = std::make_unique<MlpGradients>(*density);
    d_color[t] = std::make_unique<MlpGradients>(*color);
    StageClock clock;
#pragma omp for schedule(static, 1)
    for (int64_t b = 0; b < blocks; ++b) {
      int64_t first = b * kBlockRays;
      int n_rays = static_cast<int>(std::min<int64_t>(kBlockRays, rays.n - first));
      BlockTape& block = tape.blocks[static_cast<size_t>(b)];
      composite_block_backward(block, n_rays, first, out, cotangents);
      clock.lap(kComposite);
      color_pass.face(rays.directions + first * 3, n_rays, degree);
      networks_backward(block, density_pass, color_pass, *d_density[t], *d_color[t]);
      clock.lap(kNetworks);
    }
    clocks[t] = clock;
  }
  for (const StageClock& clock : clocks) tape.backward.add(clock.seconds, n_threads);
  StageClock clock;
  sum_gradients(*density, d_density, to.density);
  sum_gradients(*color, d_color, to.color);
  clock.lap(kNetworks);
  std::vector<GridCotangents> parts;
  for (const BlockTape& block : tape.blocks) {
    parts.push_back({block.n, {{block.x[0].data(), block.x[1].data(), block.x[2].data(), nullptr}, 1}, block.features.data()});
  }
  grid_backward_table(model.grid, parts, to.table, to.touched);
  clock.lap(kEncode);
  tape.backward.add(clock.seconds, 1);
  tape.n_rays = -1;
}

Samples march_visible(const Grid& grid, const Mlp& mlp, const RayBatch& rays, const MarchRule& fine, float min_transmittance) {
  CoarseOccupancy coarse(fine);
  const MarchRule& rule = coarse.rule;
  std::unique_ptr<PackedMlp> density = pack(mlp);
  int64_t blocks = (rays.n + kBlockRays - 1) / kBlockRays;
  std::vector<SampleBuffer> buffers(blocks);
  Samples out;
  out.offsets.assign(rays.n + 1, 0);
#pragma omp parallel num_threads(threads_for(rays.n, kBlockRays))
  {
    auto front = std::make_unique<Wavefront>();
    DensityPass pass(grid, *density);
    std::vector<SampleBuffer> of_ray(kBlockRays);
    BlockTape block;
    StageClock clock;
#pragma omp for schedule(dynamic, 1)
    for (int64_t b = 0; b < blocks; ++b) {
      int64_t first = b * kBlockRays;
      int n_rays = static_cast<int>(std::min<int64_t>(kBlockRays, rays.n - first));
      for (SampleBuffer& ray : of_ray) ray.clear();
      march_block(*front, pass, rays, first, n_rays, rule, min_transmittance, block, clock);
      for (int64_t s = 0; s < block.n; ++s) {
        const float point[3] = {block.x[0][s], block.x[1][s], block.x[2][s]};
        of_ray[block.owner[s]].add(block.t0[s], block.t1[s], point);
      }
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
