// A packet of kLanes rays that march together, each lane at its own distance.
#pragma once
#include "kernels.h"

namespace fieldfit {

struct Packet {
  RayState<FloatV> ray;
  IntV active;

  void begin(const RayBatch& rays, int64_t first, const MarchRule& rule) {
    int lanes = static_cast<int>(rays.n - first < kLanes ? rays.n - first : kLanes);
    FloatV jitter = splat<FloatV>(0.5f);
    active = IntV{};
    for (int l = 0; l < kLanes; ++l) {
      int64_t i = first + (l < lanes ? l : lanes - 1);
      for (int a = 0; a < 3; ++a) {
        ray.o[a][l] = rays.origins[i * 3 + a];
        ray.d[a][l] = rays.directions[i * 3 + a];
      }
      if (rays.jitter) jitter[l] = rays.jitter[i];
      active[l] = l < lanes ? -1 : 0;
    }
    march_begin(ray, jitter, rule);
    active = active & (ray.t < ray.t_end);
  }

  // Marches every active lane until it has `quota` more samples or ends, and calls emit(lane, t0, t1, x) for each sample.
  template <class Emit>
  void advance(int quota, const MarchRule& rule, Emit emit) {
    IntV count{};
    IntV running = active;
    while (any(running)) {
      FloatV t0, dt, x[3], before = ray.t;
      IntV hit = march_step(ray, rule, t0, dt, x) & running;
      ray.t = select(running, ray.t, before);
      uint32_t bits = mask_bits(hit);
      while (bits) {
        int l = __builtin_ctz(bits);
        bits &= bits - 1;
        const float point[3] = {x[0][l], x[1][l], x[2][l]};
        emit(l, t0[l], t0[l] + dt[l], point);
      }
      count = count - hit;
      active = active & (ray.t < ray.t_end);
      running = running & active & (count < quota);
    }
  }
};

}  // namespace fieldfit
