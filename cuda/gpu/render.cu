// Rendering in one pass, in float32, by whole blocks. A block has kRows places for rays. Each round takes one sample of
// every ray, through grid, perceptrons and compositing; a place whose ray has left or is opaque takes the next ray of
// the queue, so that tiles stay full until no ray is left.
#include "../composite.h"
#include "../harmonics.h"
#include "grid.cuh"
#include "march.cuh"
#include "mlp_block.cuh"

#ifndef FF_FEATURES
#define FF_FEATURES 4
#endif

namespace fieldfit {
namespace {

// One place for a ray, in the registers of the thread that marches it.
struct Place {
  RayState<float> ray;
  Composite<float> c;
  float t0, dt;
  int id;  // -1: empty
  int count;

  // The next sample, of this ray or of the queue's next; empty when there is none.
  template <class Finish>
  FF_LANE bool advance(const Rays& rays, const MarchRule& rule, int* queue, float* x, Finish finish) {
    while (true) {
      while (id >= 0 && ray.t < ray.t_end) {
        if (march_step(ray, rule, t0, dt, x)) return true;
      }
      if (id >= 0) finish();
      id = atomicAdd(queue, 1);
      if (id >= rays.n) {
        id = -1;
        return false;
      }
      load_ray(ray, rays, id, rule);
      composite_begin(c);
      count = 0;
    }
  }
};

}  // namespace

// queue: [next ray, samples evaluated], zeros at the start. With `counts`, no colours: only how many samples each ray
// has up to where it is opaque, that of ray i at i + 1. Shared memory: the weight tile, two buffers as wide as any
// layer, points [3], sigma, colours [3], harmonics [16].
FF_KERNEL(kThreads, 2)
render(const __grid_constant__ GridLevels levels, const float* table, const __grid_constant__ MlpLayers density,
       const float* density_params, const __grid_constant__ MlpLayers color, const float* color_params,
       int harmonics_degree, int n, const float* origins, const float* directions, const float* jitter,
       const uint32_t* occupancy, const uint8_t* room, const __grid_constant__ MarchSteps steps,
       float min_transmittance, float* rgb, float* opacity, float* depth, int64_t* counts, int* queue) {
  FF_SHARED(float, tile);
  int width = density.widest(), color_width = counts ? 0 : color.widest();
  width = color_width > width ? color_width : width;
  float* even = tile + kTileSize;
  float* odd = even + width * kStride;
  float* points = odd + width * kStride;
  float* sigma = points + 3 * kStride;
  float* colors = sigma + kStride;
  float* directional = colors + 3 * kStride;
  MarchRule rule = march_rule(occupancy, room, steps);
  Rays rays{n, origins, directions, jitter};
  int latent = density.dims[density.layers], coefficients = harmonics_degree * harmonics_degree;
  int row = static_cast<int>(threadIdx.x);
  Place place;
  place.id = -1;
  auto finish = [&] {
    if (counts) {
      counts[place.id + 1] = place.count;
      return;
    }
    for (int a = 0; a < 3; ++a) rgb[static_cast<int64_t>(place.id) * 3 + a] = place.c.rgb[a];
    opacity[place.id] = place.c.opacity;
    depth[place.id] = place.c.depth;
  };
  if (counts && blockIdx.x == 0 && row == 0) counts[0] = 0;
  while (true) {
    bool has = false;
    if (row < kRows) {
      float x[3];
      int before = place.id;
      has = place.advance(rays, rule, queue, x, finish);
      for (int a = 0; a < 3; ++a) points[a * kStride + row] = has ? x[a] : 0.5f;
      if (has && place.id != before && !counts) {
        float y[16];
        const float* d = place.ray.d;
        harmonics_of(harmonics_degree, d[0], d[1], d[2], y);
        FF_UNROLL
        for (int k = 0; k < 16; ++k) {
          if (k < coefficients) directional[k * kStride + row] = y[k];
        }
      }
    }
    if (!__syncthreads_or(has)) break;
    for (int e = static_cast<int>(threadIdx.x); e < kRows * levels.n; e += kThreads) {
      int r = e % kRows, l = e / kRows;
      float x[3] = {points[r], points[kStride + r], points[2 * kStride + r]}, features[FF_FEATURES];
      grid_features<3, FF_FEATURES>(levels.level[l], x, table, features);
      for (int f = 0; f < FF_FEATURES; ++f) even[(l * FF_FEATURES + f) * kStride + r] = features[f];
    }
    float* to = density.layers & 1 ? odd : even;
    mlp_tile(density, density_params, even, odd, tile, [&](int j, int r, float h) {
      if (j == 0) sigma[r] = activate<float>(kExp, h);
      to[j * kStride + r] = h;
    });
    if (!counts) {
      for (int e = static_cast<int>(threadIdx.x); e < kRows * coefficients; e += kThreads) {
        to[(latent + e / kRows) * kStride + e % kRows] = directional[e / kRows * kStride + e % kRows];
      }
      mlp_tile(color, color_params, to, density.layers & 1 ? even : odd, tile,
               [&](int j, int r, float h) { colors[j * kStride + r] = h; });
    }
    __syncthreads();  // sigma and colours are complete
    if (has) {
      float c[3] = {colors[row], colors[kStride + row], colors[2 * kStride + row]};
      if (counts) c[0] = c[1] = c[2] = 0.0f;
      composite_add(place.c, sigma[row], c, place.t0, place.t0 + place.dt);
      ++place.count;
      if (place.c.transmittance < min_transmittance) place.ray.t = place.ray.t_end;
    }
    int evaluated = __popc(__ballot_sync(kFullWarp, has));
    if (lane_index() == 0 && evaluated > 0) atomicAdd(queue + 1, evaluated);
  }
}

}  // namespace fieldfit
