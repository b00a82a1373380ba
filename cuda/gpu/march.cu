// Occupancy marching for training in two passes, a thread for each ray: how many samples, then, when their places are
// known, the samples. Before them, which coarse cells are empty, so that rays cross these in one step.
#include "march.cuh"

namespace fieldfit {

// A thread for each coarse cell: one where it is empty. How far it is to others is not looked at here.
FF_KERNEL(256, 4) coarse_occupancy(int resolution, const uint32_t* occupancy, uint8_t* room) {
  int n = (resolution + kCoarse - 1) / kCoarse, i = thread_index();
  bool some = false;
  int x0 = i % n * kCoarse, y0 = i / n % n * kCoarse, z0 = i / (n * n) * kCoarse;
  for (int z = z0; z < z0 + kCoarse && z < resolution; ++z) {
    for (int y = y0; y < y0 + kCoarse && y < resolution; ++y) {
      for (int x = x0; x < x0 + kCoarse && x < resolution; ++x) {
        uint32_t cell = static_cast<uint32_t>((z * resolution + y) * resolution + x);
        some |= ((occupancy[cell >> 5] >> (cell & 31u)) & 1u) != 0u;
      }
    }
  }
  if (i < n * n * n) room[i] = some ? 0 : 1;
}

// counts[i + 1] = samples of ray i, counts[0] = 0: their running sum is the offsets.
FF_KERNEL(256, 4)
march_count(int n, const float* origins, const float* directions, const float* jitter, const uint32_t* occupancy,
            const uint8_t* room, const __grid_constant__ MarchSteps steps, int max_samples, int64_t* counts) {
  int i = thread_index();
  if (i == 0) counts[0] = 0;
  if (i >= n) return;
  MarchRule rule = march_rule(occupancy, room, steps);
  RayState<float> ray;
  load_ray(ray, Rays{n, origins, directions, jitter}, i, rule);
  int count = 0;
  while (ray.t < ray.t_end && count < max_samples) {
    float t0, dt, x[3];
    if (march_step(ray, rule, t0, dt, x)) ++count;
  }
  counts[i + 1] = count;
}

FF_KERNEL(256, 4)
march_write(int n, const float* origins, const float* directions, const float* jitter, const uint32_t* occupancy,
            const uint8_t* room, const __grid_constant__ MarchSteps steps, const int64_t* offsets, float* t0s,
            float* t1s, float* xs, int32_t* rays) {
  int i = thread_index();
  if (i >= n) return;
  MarchRule rule = march_rule(occupancy, room, steps);
  RayState<float> ray;
  load_ray(ray, Rays{n, origins, directions, jitter}, i, rule);
  int64_t s = offsets[i], end = offsets[i + 1];
  while (ray.t < ray.t_end && s < end) {
    float t0, dt, x[3];
    if (!march_step(ray, rule, t0, dt, x)) continue;
    t0s[s] = t0;
    t1s[s] = t0 + dt;
    for (int a = 0; a < 3; ++a) xs[s * 3 + a] = x[a];
    rays[s] = i;
    ++s;
  }
}

}  // namespace fieldfit
