// Rendering in one pass on tensor cores, by warps that need nothing of each other. A warp has a place for a ray in each
// lane. Each round takes the next sample of every ray, through the grid by lanes, the perceptrons by the warp, and
// compositing by lanes; a lane whose ray has left or is opaque takes the next ray of the queue, so that warps stay full
// until none is left.
#include "../composite.h"
#include "../harmonics.h"
#include "grid.cuh"
#include "march.cuh"
#include "network.cuh"

#ifndef FF_FEATURES
#define FF_FEATURES 4
#define FF_IN 32
#define FF_WIDTH 64
#define FF_HIDDEN 1
#define FF_LATENT 16
#define FF_ACTIVATION 1
#define FF_BIAS 0
#define FF_COLOR_WIDTH 64
#define FF_COLOR_HIDDEN 2
#define FF_COLOR_ACTIVATION 1
#define FF_COLOR_OUTPUT_ACTIVATION 4
#define FF_COLOR_BIAS 0
#define FF_DEGREE 4
#endif
#ifndef FF_COUNT  // 1: no colours, only how many samples each ray has up to where it is opaque
#define FF_COUNT 0
#endif

namespace fieldfit {
namespace {

constexpr int kCoefficients = FF_DEGREE * FF_DEGREE;
constexpr int kFeatureStride =
    (FF_IN + 15) / 16 * 8 + 4;  // words of a row; rows of a fragment fall into different banks
constexpr int kDirectionStride = 8 + 4;
constexpr int kWarpWords = 32 * (kFeatureStride + kDirectionStride + 4);

static_assert(FF_FEATURES % 2 == 0, "features are stored in pairs");
static_assert(FF_LATENT % 16 == 0, "the latent is whole tiles, so that directions follow it as one");

using Density = Network<FF_IN, FF_WIDTH, FF_HIDDEN, FF_LATENT, FF_ACTIVATION, kIdentity, FF_BIAS != 0>;
using Color = Network<FF_LATENT + kCoefficients, FF_COLOR_WIDTH, FF_COLOR_HIDDEN, 3, FF_COLOR_ACTIVATION,
                      FF_COLOR_OUTPUT_ACTIVATION, FF_COLOR_BIAS != 0>;

// Rows first .. first + 15 of a matrix of halves in shared memory, as a left operand.
FF_LANE Fragment load_fragment(const uint32_t* rows, int stride, int first, int tile) {
  const uint32_t* at = rows + (first + fragment_row()) * stride + tile * 8 + (lane_index() & 3);
  return Fragment{{at[0], at[8 * stride], at[4], at[8 * stride + 4]}};
}

struct Outputs {
  float* rgb;
  float* opacity;
  float* depth;
  int64_t* counts;

  FF_LANE void write(int ray, const Composite<float>& c, int count) const {
    if constexpr (FF_COUNT != 0) {
      counts[ray + 1] = count;
    } else {
      for (int a = 0; a < 3; ++a) rgb[static_cast<int64_t>(ray) * 3 + a] = c.rgb[a];
      opacity[ray] = c.opacity;
      depth[ray] = c.depth;
    }
  }
};

// Takes rays from the queue for the lanes that want one; -1 where there are no more.
FF_LANE int take(int* queue, bool wants, int n) {
  unsigned who = __ballot_sync(kFullWarp, wants);
  if (who == 0u) return -1;
  int first = 0;
  if (lane_index() == 0) first = atomicAdd(queue, __popc(who));
  first = __shfl_sync(kFullWarp, first, 0);
  int mine = first + __popc(who & ((1u << lane_index()) - 1u));
  return wants && mine < n ? mine : -1;
}

}  // namespace

// queue: [next ray, samples evaluated], zeros at the start.
// Shared memory: weights of both networks, then kWarpWords words of each warp.
FF_KERNEL(128, 3)
render_tensor(const __grid_constant__ GridLevels levels, const float* table, const float* density_params,
              const float* color_params, int n, const float* origins, const float* directions, const float* jitter,
              const uint32_t* occupancy, const uint8_t* room, const __grid_constant__ MarchSteps steps,
              float min_transmittance, float* rgb, float* opacity, float* depth, int64_t* counts, int* queue) {
  FF_SHARED(uint2, density);
  uint2* color = density + Density::kWeights + (Density::kBias + 1) / 2;
  uint2* after = FF_COUNT ? color : color + Color::kWeights + (Color::kBias + 1) / 2;
  uint32_t* features = reinterpret_cast<uint32_t*>(after) + warp_index() * kWarpWords;
  uint32_t* toward = features + 32 * kFeatureStride;
  float* results = reinterpret_cast<float*>(toward + 32 * kDirectionStride);  // [32, 4]: sigma, rgb
  Density::load(density_params, density);
  if (!FF_COUNT) Color::load(color_params, color);
  for (int k = FF_IN / 2; k < Density::kIn * 8; ++k)
    features[lane_index() * kFeatureStride + k] = 0u;  // beyond the features
  __syncthreads();

  MarchRule rule = march_rule(occupancy, room, steps);
  Rays rays{n, origins, directions, jitter};
  Outputs out{rgb, opacity, depth, counts};
  int lane = lane_index(), id = -1, count = 0, evaluated = 0;
  bool queue_empty = false;
  RayState<float> ray;
  Composite<float> c;
  composite_begin(c);
  ray.t = ray.t_end = 0.0f;
  if (FF_COUNT && thread_index() == 0) counts[0] = 0;
  while (true) {
    float t0 = 0.0f, dt = 0.0f, x[3];
    bool has = false;
    while (true) {
      for (int step = 0; step < 8; ++step) {
        if (!has && id >= 0 && ray.t < ray.t_end) has = march_step(ray, rule, t0, dt, x);
      }
      bool ended = !has && !(ray.t < ray.t_end);
      if (ended && id >= 0) {
        out.write(id, c, count);
        id = -1;
      }
      if (!queue_empty) {
        int next = take(queue, ended, n);
        queue_empty = __any_sync(kFullWarp, ended && next < 0) != 0;
        if (ended && next >= 0) {
          id = next;
          count = 0;
          load_ray(ray, rays, id, rule);
          composite_begin(c);
          if constexpr (FF_COUNT == 0) {
            float y[16];
            harmonics_of(FF_DEGREE, ray.d[0], ray.d[1], ray.d[2], y);
            FF_UNROLL
            for (int k = 0; k < 16; k += 2) {
              toward[lane * kDirectionStride + k / 2] =
                  pack_halves(k < kCoefficients ? y[k] : 0.0f, k + 1 < kCoefficients ? y[k + 1] : 0.0f);
            }
          }
        }
      }
      // On with the round when most rays have their sample, or none can have one.
      int ready = __popc(__ballot_sync(kFullWarp, has));
      int able = __popc(__ballot_sync(kFullWarp, has || (id >= 0 && ray.t < ray.t_end)));
      if (ready * 4 >= able * 3) break;
    }
    if (!__any_sync(kFullWarp, has)) {
      if (!__any_sync(kFullWarp, id >= 0)) break;
      continue;
    }
    for (int l = 0; has && l < levels.n; ++l) {
      float f[FF_FEATURES];
      grid_features<3, FF_FEATURES>(levels.level[l], x, table, f);
      FF_UNROLL
      for (int k = 0; k < FF_FEATURES; k += 2) {
        features[lane * kFeatureStride + (l * FF_FEATURES + k) / 2] = pack_halves(f[k], f[k + 1]);
      }
    }
    __syncwarp();  // features and directions of all lanes are there
    unsigned samples = __ballot_sync(kFullWarp, has);
    auto ignore = [](int, int, const Fragment&, const Fragment&) {};
#if !defined(FF_SHIM)
#pragma unroll 1
#endif
    for (int first = 0; first < 32; first += 16) {
      if (((samples >> first) & 0xffffu) == 0u) continue;
      Fragment a[Density::kIn], latent[FF_LATENT / 16 + 1];
      FF_UNROLL
      for (int k = 0; k < Density::kIn; ++k) a[k] = load_fragment(features, kFeatureStride, first, k);
      Density::forward(a, density, ignore, [&](int m, float* z) {
        if (m == 0 && (lane & 3) == 0) {
          results[(first + fragment_row()) * 4] = activate<float>(kExp, z[0]);
          results[(first + fragment_row() + 8) * 4] = activate<float>(kExp, z[2]);
        }
        latent[m >> 1].w[(m & 1) * 2] = pack_halves(z[0], z[1]);
        latent[m >> 1].w[(m & 1) * 2 + 1] = pack_halves(z[2], z[3]);
      });
      if constexpr (FF_COUNT == 0) {
        latent[FF_LATENT / 16] = load_fragment(toward, kDirectionStride, first, 0);
        Color::forward(latent, color, ignore, [&](int, float* z) {
          FF_UNROLL
          for (int i = 0; i < 4; ++i) {
            int channel = fragment_column() + (i & 1);
            float* to = results + (first + fragment_row() + (i >> 1) * 8) * 4 + 1;
            if (channel < 3) to[channel] = activate(FF_COLOR_OUTPUT_ACTIVATION, z[i]);
          }
        });
      }
    }
    __syncwarp();  // results of all lanes are there
    if (has) {
      const float* r = results + lane * 4;
      float sample[3] = {FF_COUNT ? 0.0f : r[1], FF_COUNT ? 0.0f : r[2], FF_COUNT ? 0.0f : r[3]};
      composite_add(c, r[0], sample, t0, t0 + dt);
      ++count;
      ++evaluated;
      if (c.transmittance < min_transmittance) ray.t = ray.t_end;
    }
  }
  atomicAdd(queue + 1, evaluated);
}

}  // namespace fieldfit
