// Occupancy marching for training: packets of rays, samples packed ray after ray.
#include "packet.h"
#include "threads.h"

namespace fieldfit {
namespace {

struct Buffer {
  std::vector<float> t0, t1, x;
  std::vector<int32_t> ray;
};

}  // namespace

Samples march(const RayBatch& rays, const MarchRule& rule, int max_samples) {
  Samples out;
  out.offsets.assign(rays.n + 1, 0);
  int n_threads = threads_for(rays.n, 256);
  std::vector<Buffer> buffers(n_threads);
#pragma omp parallel num_threads(n_threads)
  {
    Buffer& buffer = buffers[omp_get_thread_num()];
    std::vector<float> lanes[kLanes];  // t0 t1 x y z of each sample
    Packet packet;
    Range range = share(rays.n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    for (int64_t first = range.begin; first < range.end; first += kLanes) {
      packet.begin(rays, first, rule);
      for (auto& lane : lanes) lane.clear();
      packet.advance(max_samples, rule, [&](int l, float t0, float t1, const float* x) {
        const float sample[5] = {t0, t1, x[0], x[1], x[2]};
        lanes[l].insert(lanes[l].end(), sample, sample + 5);
      });
      for (int l = 0; l < kLanes && first + l < range.end; ++l) {
        size_t count = lanes[l].size() / 5;
        out.offsets[first + l + 1] = static_cast<int64_t>(count);
        const float* from = lanes[l].data();
        for (size_t s = 0; s < count; ++s, from += 5) {
          buffer.t0.push_back(from[0]);
          buffer.t1.push_back(from[1]);
          buffer.x.insert(buffer.x.end(), from + 2, from + 5);
        }
        buffer.ray.insert(buffer.ray.end(), count, static_cast<int32_t>(first + l));
      }
    }
  }
  for (int64_t i = 0; i < rays.n; ++i) out.offsets[i + 1] += out.offsets[i];
  size_t total = static_cast<size_t>(out.offsets[rays.n]);
  out.t0.reserve(total);
  out.t1.reserve(total);
  out.x.reserve(total * 3);
  out.ray.reserve(total);
  for (Buffer& b : buffers) {
    out.t0.insert(out.t0.end(), b.t0.begin(), b.t0.end());
    out.t1.insert(out.t1.end(), b.t1.begin(), b.t1.end());
    out.x.insert(out.x.end(), b.x.begin(), b.x.end());
    out.ray.insert(out.ray.end(), b.ray.begin(), b.ray.end());
  }
  return out;
}

}  // namespace fieldfit
