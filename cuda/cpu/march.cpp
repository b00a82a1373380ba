// Occupancy marching for training: packets of rays, samples packed ray after ray.
#include "packet.h"
#include "threads.h"

namespace fieldfit {
Samples march(const RayBatch& rays, const MarchRule& rule, int max_samples) {
  Samples out;
  out.offsets.assign(rays.n + 1, 0);
  int n_threads = threads_for(rays.n, 256);
  std::vector<SampleBuffer> buffers(n_threads);
#pragma omp parallel num_threads(n_threads)
  {
    SampleBuffer& buffer = buffers[omp_get_thread_num()];
    SampleBuffer lanes[kLanes];
    Packet packet;
    Range range = share(rays.n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    for (int64_t first = range.begin; first < range.end; first += kLanes) {
      packet.begin(rays, first, rule);
      for (SampleBuffer& lane : lanes) lane.clear();
      packet.advance(max_samples, rule, [&](int l, float t0, float t1, const float* x) { lanes[l].add(t0, t1, x); });
      for (int l = 0; l < kLanes && first + l < range.end; ++l) {
        out.offsets[first + l + 1] = static_cast<int64_t>(lanes[l].t0.size());
        buffer.append(lanes[l]);
      }
    }
  }
  out.collect(buffers);
  return out;
}

}  // namespace fieldfit
