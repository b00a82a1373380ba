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
  // The round's samples, those of a ray from near to far; a vector may be written past the last.
  float x[3][kMaxSamples + kLanes], t0[kMaxSamples + kLanes], t1[kMaxSamples + kLanes];
  float owner[kMaxSamples + kLanes];  // ray within the block

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
    while (int n = gather_round(rule)) {
      evaluate(n);
      for (int p = 0; p < kPackets; ++p) packets[p].active &= load(transmittance + p * kLanes) >= min_transmittance;
    }
  }

 private:
  // Packets take turns, since a step of one need not wait for that of another.
  int gather_round(const MarchRule& rule) {
    FloatV lane;
    for (int l = 0; l < kLanes; ++l) lane[l] = static_cast<float>(l);
    for (Packet& packet : packets) packet.begin_round();
    int n = 0;
    for (bool more = true; more;) {
      more = false;
      for (int p = 0; p < kPackets; ++p) {
        if (!any(packets[p].running)) continue;
        more = true;
        packets[p].step(kQuota, rule, [&](uint32_t bits, FloatV from, FloatV to, const FloatV* point) {
          for (int a = 0; a < 3; ++a) store_some(x[a] + n, bits, point[a]);
          store_some(t0 + n, bits, from);
          store_some(t1 + n, bits, to);
          store_some(owner + n, bits, lane + splat<FloatV>(static_cast<float>(p * kLanes)));
          n += __builtin_popcount(bits);
        });
      }
    }
    return n;
  }
};

}  // namespace fieldfit
