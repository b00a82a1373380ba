// Compaction of packed samples: those that lie in front of where their ray has become opaque stay, those behind it go.
// A warp for each ray. The samples that stay are the ray's first, so that all they have moves as one piece.
#include "../activation.h"
#include "device.cuh"

namespace fieldfit {
namespace {

struct Range {
  int64_t begin, end;
};

FF_LANE Range of_ray(const int64_t* offsets, int ray) { return {offsets[ray], offsets[ray + 1]}; }

FF_LANE float density_of(const float* latent, int latent_dim, int64_t sample) {
  return activate<float>(kExp, latent[sample * latent_dim]);
}

// `count` rows of `width` values, by the lanes of a warp.
FF_LANE void move_rows(const float* from, int64_t first, float* to, int64_t first_to, int64_t count, int width) {
  const float* begin = from + first * width;
  float* target = to + first_to * width;
  for (int64_t i = lane_index(); i < count * width; i += 32) target[i] = begin[i];
}

}  // namespace

// counts[i + 1] = samples of ray i in front of which at least `min_transmittance` of the light is left, counts[0] = 0.
// The first of a sample's `latent_dim` values is its log density.
FF_KERNEL(128, 8)
visible_count(int n_rays, const int64_t* offsets, const float* latent, int latent_dim, const float* t0, const float* t1,
              float min_transmittance, int64_t* counts) {
  int ray = thread_index() >> 5;
  if (ray >= n_rays) return;
  Range samples = of_ray(offsets, ray);
  float before = 0.0f;
  int64_t count = 0;
  for (int64_t s = samples.begin; s < samples.end; s += 32) {
    int64_t i = s + lane_index();
    bool inside = i < samples.end;
    float thickness = warp_scan(inside ? density_of(latent, latent_dim, i) * (t1[i] - t0[i]) : 0.0f);
    float transmittance = exp_(-(before + warp_before(thickness)));
    int n = __popc(__ballot_sync(kFullWarp, inside && transmittance >= min_transmittance));
    count += n;
    if (n < 32) break;
    before += __shfl_sync(kFullWarp, thickness, 31);
  }
  if (lane_index() != 0) return;
  if (ray == 0) counts[0] = 0;
  counts[ray + 1] = count;
}

// The samples that stay, packed by `kept`, the running sum of their counts; with the ray and the density of each.
FF_KERNEL(128, 8)
visible_write(int n_rays, const int64_t* offsets, const int64_t* kept, const float* t0, const float* t1, const float* x,
              const float* features, int width, const float* latent, int latent_dim, float* to_t0, float* to_t1,
              float* to_x, int32_t* rays, float* to_features, float* to_latent, float* sigma) {
  int ray = thread_index() >> 5;
  if (ray >= n_rays) return;
  int64_t from = offsets[ray];
  Range to = of_ray(kept, ray);
  int64_t count = to.end - to.begin;
  move_rows(t0, from, to_t0, to.begin, count, 1);
  move_rows(t1, from, to_t1, to.begin, count, 1);
  move_rows(x, from, to_x, to.begin, count, 3);
  move_rows(features, from, to_features, to.begin, count, width);
  move_rows(latent, from, to_latent, to.begin, count, latent_dim);
  for (int64_t i = lane_index(); i < count; i += 32) {
    rays[to.begin + i] = ray;
    sigma[to.begin + i] = density_of(latent, latent_dim, from + i);
  }
}

}  // namespace fieldfit
