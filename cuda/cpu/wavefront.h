// A block of rays that advance together: each round takes a few more samples of every ray that is still transparent, so that
// samples are evaluated in batches that fill vectors and stay in the cache, and none is evaluated far behind a surface.
#pragma once
#include <algorithm>

#include "packet.h"

namespace fieldfit {

constexpr int kPackets = 64 / kLanes;
constexpr int kBlockRays = kPackets * kLanes;
constexpr int kQuota = 8;  // samples per ray and round
constexpr int kMaxSamples = kBlockRays * kQuota;

struct Wavefront {
  Packet packets[kPackets];
  float transmittance[kBlockRays];
  int count[kBlockRays];  // samples of this round
  float ray_t0[kBlockRays][kQuota], ray_t1[kBlockRays][kQuota], ray_x[kBlockRays][kQuota][3];
  // The round's samples, ray after ray.
  float x[kMaxSamples * 3], t0[kMaxSamples], t1[kMaxSamples];
  int owner[kMaxSamples];  // ray within the block

  // Calls evaluate(n) for every round of n samples; it has to bring `transmittance` up to date.
  template <class Evaluate>
  void run(const RayBatch& rays, int64_t first, int n_rays, const MarchRule& rule, float min_transmittance, Evaluate evaluate) {
    RayBatch block{first + n_rays, rays.origins, rays.directions, rays.jitter};
    std::fill_n(transmittance, kBlockRays, 1.0f);
    for (int p = 0; p < kPackets; ++p) {
      if (p * kLanes < n_rays) {
        packets[p].begin(block, first + p * kLanes, rule);
      } else {
        packets[p].active = IntV{};
      }
    }
    while (true) {
      int n = gather_round(rule);
      if (n == 0) return;
      evaluate(n);
      for (int r = 0; r < n_rays; ++r) {
        if (transmittance[r] < min_transmittance) packets[r / kLanes].active[r % kLanes] = 0;
      }
    }
  }

 private:
  int gather_round(const MarchRule& rule) {
    std::fill_n(count, kBlockRays, 0);
    for (int p = 0; p < kPackets; ++p) {
      packets[p].advance(kQuota, rule, [&](int l, float from, float to, const float* point) {
        int r = p * kLanes + l, k = count[r]++;
        ray_t0[r][k] = from;
        ray_t1[r][k] = to;
        memcpy(ray_x[r][k], point, 12);
      });
    }
    int n = 0;
    for (int r = 0; r < kBlockRays; ++r) {
      for (int k = 0; k < count[r]; ++k, ++n) {
        memcpy(x + n * 3, ray_x[r][k], 12);
        t0[n] = ray_t0[r][k];
        t1[n] = ray_t1[r][k];
        owner[n] = r;
      }
    }
    return n;
  }
};

}  // namespace fieldfit
