#include "front.h"

#include <algorithm>

namespace fieldfit {

Front::Front(const int64_t* offsets, int64_t rays, const float* t0, const float* t1, float most_depth, int at_once)
    : offsets_(offsets), t0_(t0), t1_(t1), most_depth_(most_depth), rays_(rays), at_once_(at_once), kept_(rays), row_(offsets[rays]), passed_(rays) {
  for (int64_t r = 0; r < rays; ++r) {
    if (offsets[r + 1] > offsets[r]) going_.push_back(r);
  }
}

std::vector<int64_t> Front::next() {
  size_ = std::max(at_once_, first_ / 2);
  std::vector<int64_t> index;
  index.reserve(std::min<int64_t>(going_.size() * size_, row_.size()));
  for (int64_t r : going_) {
    int64_t begin = offsets_[r] + first_, end = std::min(begin + size_, offsets_[r + 1]);
    for (int64_t i = begin; i < end; ++i) {
      index.push_back(i);
      row_[i] = looked_at_++;
    }
  }
  asked_ = static_cast<int64_t>(index.size());
  return index;
}

void Front::absorb(const float* sigma) {
  size_t still = 0;
  for (int64_t r : going_) {
    int64_t begin = offsets_[r] + first_, end = std::min(begin + size_, offsets_[r + 1]);
    float passed = passed_[r];
    for (int64_t i = begin; i < end; ++i) {
      kept_[r] += passed <= most_depth_;
      passed += *sigma++ * (t1_[i] - t0_[i]);
    }
    passed_[r] = passed;
    if (passed <= most_depth_ && end < offsets_[r + 1]) going_[still++] = r;
  }
  going_.resize(still);
  first_ += size_;
  asked_ = 0;
}

Front::Seen Front::seen() const {
  Seen found;
  found.offsets.push_back(0);
  for (int64_t r = 0; r < rays_; ++r) {
    for (int64_t i = offsets_[r]; i < offsets_[r] + kept_[r]; ++i) {
      found.index.push_back(i);
      found.row.push_back(row_[i]);
    }
    found.offsets.push_back(static_cast<int64_t>(found.index.size()));
  }
  return found;
}

}  // namespace fieldfit
