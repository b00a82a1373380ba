// Rays and steps as kernels take them.
#pragma once
#include "../march.h"
#include "device.cuh"

namespace fieldfit {

struct MarchSteps {
  int resolution;
  int contracted;
  float near, far, step, cone_angle;
};

struct Rays {
  int n;
  const float* origins;
  const float* directions;
  const float* jitter;  // or null for 0.5
};

FF_LANE MarchRule march_rule(const uint32_t* occupancy, const uint8_t* room, const MarchSteps& s) {
  return MarchRule{occupancy, room, s.resolution, s.contracted != 0, s.near, s.far, s.step, s.cone_angle, log_(1.0f + s.cone_angle)};
}

FF_LANE void load_ray(RayState<float>& ray, const Rays& rays, int i, const MarchRule& rule) {
  for (int a = 0; a < 3; ++a) {
    ray.o[a] = rays.origins[static_cast<int64_t>(i) * 3 + a];
    ray.d[a] = rays.directions[static_cast<int64_t>(i) * 3 + a];
  }
  march_begin(ray, rays.jitter ? rays.jitter[i] : 0.5f, rule);
}

}  // namespace fieldfit
