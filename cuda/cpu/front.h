// Rays that are followed front to back, some samples at a time, until they are opaque: which samples are looked at next,
// and which are seen in the end.
#pragma once
#include <cstdint>
#include <vector>

namespace fieldfit {

class Front {
 public:
  // Samples of ray i are offsets[i] .. offsets[i + 1], and lie between t0 and t1. The first `at_once` of
  // a ray are looked at together, later half as many as before. All arrays must outlive this.
  Front(const int64_t* offsets, int64_t rays, const float* t0, const float* t1, float most_depth, int at_once);

  // Indices of the samples to look at; none where no ray goes on.
  std::vector<int64_t> next();
  // How many these were, and what their densities are, in the same order.
  int64_t asked() const { return asked_; }
  void absorb(const float* sigma);

  struct Seen {
    std::vector<int64_t> offsets, index, row;  // of the samples that are seen, and their places among all looked at
  };
  Seen seen() const;

 private:
  const int64_t* offsets_;
  const float *t0_, *t1_;
  float most_depth_;
  int64_t rays_, first_ = 0, size_ = 0, at_once_, looked_at_ = 0, asked_ = 0;
  std::vector<int64_t> going_, kept_, row_;  // rays that go on; samples seen of each ray; place of each sample
  std::vector<float> passed_;                // optical depth of each ray so far
};

}  // namespace fieldfit
