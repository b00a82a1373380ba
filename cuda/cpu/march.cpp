// Occupancy marching for training: packets of rays, samples packed ray after ray.
#include "coarse.h"
#include "packet.h"
#include "threads.h"

namespace fieldfit {

Samples march(const RayBatch& rays, const MarchRule& fine, int max_samples) {
  CoarseOccupancy coarse(fine);
  const MarchRule& rule = coarse.rule;
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
      packet.begin_round();
      for (SampleBuffer& lane : lanes) lane.clear();
      while (any(packet.running)) {
        packet.step(max_samples, rule, [&](uint32_t bits, FloatV t0, FloatV t1, const FloatV* x) {
          for (; bits; bits &= bits - 1) {
            int l = __builtin_ctz(bits);
            const float point[3] = {x[0][l], x[1][l], x[2][l]};
            lanes[l].add(t0[l], t1[l], point);
          }
        });
      }
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
