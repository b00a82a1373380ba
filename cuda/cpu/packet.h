// A packet of kLanes rays that march together, each lane at its own distance.
#pragma once
#include "kernels.h"

namespace fieldfit {

// All that a lane holds, to another one.
inline void copy_lane(const RayState<FloatV>& from, int a, RayState<FloatV>& to, int b) {
  for (int axis = 0; axis < 3; ++axis) {
    to.o[axis][b] = from.o[axis][a];
    to.d[axis][b] = from.d[axis][a];
    to.inverse[axis][b] = from.inverse[axis][a];
  }
  to.t[b] = from.t[a];
  to.t_end[b] = from.t_end[a];
}

struct Packet {
  RayState<FloatV> ray;
  IntV active;   // lanes that have not come to their end
  IntV running;  // those that have not filled their quota either
  IntV count;    // samples of this round

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

  void begin_round() {
    running = active;
    count = IntV{};
  }

  // One step of the running lanes; calls emit(lanes, t0, t1, x) with a bit for each that has found a sample.
  template <class Emit>
  void step(int quota, const MarchRule& rule, Emit emit) {
    FloatV t0, dt, x[3], before = ray.t;
    IntV hit = march_step(ray, rule, t0, dt, x) & running;
    ray.t = select(running, ray.t, before);
    if (uint32_t bits = mask_bits(hit)) emit(bits, t0, t0 + dt, x);
    count = count - hit;
    active = active & (ray.t < ray.t_end);
    running = running & active & (count < quota);
  }
};

}  // namespace fieldfit
