// A block of rays that advance together: each round takes a few more samples of every ray that is still transparent, so that
// samples are evaluated in batches that fill vectors and stay in the cache, and none is evaluated far behind a surface.
#pragma once
#include <algorithm>

#include "packet.h"

namespace fieldfit {

constexpr int kPackets = 64 / kLanes;
constexpr int kBlockRays = kPackets * kLanes;
constexpr int kQuota = 8;  // samples per ray and round
constexpr int kFew = 4;    // a packet's round ends when no more than one in so many of its rays look for samples still
constexpr int kMaxSamples = kBlockRays * kQuota;

struct Wavefront {
  float transmittance[kBlockRays];
  // The round's samples, those of a ray from near to far; a vector may be written past the last.
  float x[3][kMaxSamples + kLanes], t0[kMaxSamples + kLanes], t1[kMaxSamples + kLanes];
  float owner[kMaxSamples + kLanes];  // ray within the block

  // Calls evaluate(n) for every round of n samples; it has to bring `transmittance` up to date.
  template <class Evaluate>
  void run(const RayBatch& rays, int64_t first, int n_rays, const MarchRule& rule, float min_transmittance, Evaluate evaluate) {
    RayBatch block{first + n_rays, rays.origins, rays.directions, rays.jitter};
    std::fill_n(transmittance, kBlockRays, 1.0f);
    n_packets = (n_rays + kLanes - 1) / kLanes;
    for (int p = 0; p < n_packets; ++p) {
      packets[p].begin(block, first + p * kLanes, rule);
      for (int l = 0; l < kLanes; ++l) ray_of[p][l] = static_cast<float>(p * kLanes + l);
    }
    close_ranks(min_transmittance);
    while (n_packets > 0) {
      if (int n = gather_round(rule)) evaluate(n);
      close_ranks(min_transmittance);
    }
  }

 private:
  int n_packets;
  Packet packets[kPackets];
  FloatV ray_of[kPackets];

  // Rays that go on, side by side: others take no lane.
  void close_ranks(float min_transmittance) {
    int to = 0;
    for (int p = 0; p < n_packets; ++p) {
      for (uint32_t bits = mask_bits(packets[p].active); bits; bits &= bits - 1) {
        int l = __builtin_ctz(bits);
        float ray = ray_of[p][l];
        if (transmittance[static_cast<int>(ray)] < min_transmittance) continue;
        if (to != p * kLanes + l) copy_lane(packets[p].ray, l, packets[to / kLanes].ray, to % kLanes);
        ray_of[to / kLanes][to % kLanes] = ray;
        ++to;
      }
    }
    n_packets = (to + kLanes - 1) / kLanes;
    for (int l = 0; l < n_packets * kLanes; ++l) packets[l / kLanes].active[l % kLanes] = l < to ? -1 : 0;
  }

  // Packets take turns, since a step of one need not wait for that of another. One ends its round when few of its rays look
  // for samples still: these go on in the next, when others do too.
  int gather_round(const MarchRule& rule) {
    int n = 0, least[kPackets];
    for (int p = 0; p < n_packets; ++p) {
      packets[p].begin_round();
      least[p] = __builtin_popcount(mask_bits(packets[p].active)) / kFew;
    }
    for (bool more = true; more;) {
      more = false;
      for (int p = 0; p < n_packets; ++p) {
        if (__builtin_popcount(mask_bits(packets[p].running)) <= least[p]) continue;
        more = true;
        packets[p].step(kQuota, rule, [&](uint32_t bits, FloatV from, FloatV to, const FloatV* point) {
          for (int a = 0; a < 3; ++a) store_some(x[a] + n, bits, point[a]);
          store_some(t0 + n, bits, from);
          store_some(t1 + n, bits, to);
          store_some(owner + n, bits, ray_of[p]);
          n += __builtin_popcount(bits);
        });
      }
    }
    return n;
  }
};

}  // namespace fieldfit
