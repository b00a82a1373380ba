// Rays that are followed front to back, some samples at a time, until they are opaque: marched no further than they are
// looked at, and in the end told which samples are seen.
#pragma once
#include <cstdint>
#include <vector>

#include "coarse.h"

namespace fieldfit {

class Front {
 public:
  // The first `at_once` samples of a ray are looked at together, later as many as before. The occupancy must outlive this.
  Front(const RayBatch& rays, const MarchRule& rule, int max_samples, float most_depth, int at_once);

  // Samples to look at, those of a ray from near to far; none where no ray goes on.
  struct Round {
    SampleBuffer samples;
    std::vector<int32_t> ray;  // of each sample
  };
  const Round& next();
  // Densities of the samples to look at.
  void absorb(const float* sigma);

  struct Seen {
    Samples samples;
    std::vector<int64_t> row;  // of each sample, among all that were looked at
  };
  Seen seen() const;

 private:
  CoarseOccupancy coarse_;
  float most_depth_;
  int max_samples_, at_once_, first_ = 0;  // samples that each ray that goes on has been looked at
  std::vector<int32_t> going_;             // rays that go on
  std::vector<RayState<FloatV>> states_;   // of these, one in each lane
  std::vector<uint8_t> ended_;             // whether these have come to their end
  std::vector<Round> rounds_;
  std::vector<float> passed_;   // optical depth of each ray so far
  std::vector<int64_t> kept_;   // samples seen of each ray
};

}  // namespace fieldfit
