#include "front.h"

#include <algorithm>

#include "packet.h"
#include "threads.h"

namespace fieldfit {
namespace {

struct LaneSample {
  float t0, t1, x[3];
};

}  // namespace

Front::Front(const RayBatch& rays, const MarchRule& rule, int max_samples, float most_depth, int at_once)
    : coarse_(rule), most_depth_(most_depth), max_samples_(max_samples), at_once_(at_once), passed_(rays.n), kept_(rays.n) {
  for (int64_t first = 0; first < rays.n; first += kLanes) {
    Packet packet;
    packet.begin(rays, first, coarse_.rule);
    for (int l = 0; l < kLanes; ++l) {
      if (!packet.active[l]) continue;
      if (going_.size() % kLanes == 0) states_.push_back(packet.ray);  // lanes that no ray takes hold one all the same
      copy_lane(packet.ray, l, states_.back(), static_cast<int>(going_.size() % kLanes));
      going_.push_back(static_cast<int32_t>(first + l));
    }
  }
}

const Front::Round& Front::next() {
  int64_t n = static_cast<int64_t>(going_.size());
  int quota = std::min(std::max(at_once_, first_), max_samples_ - first_);
  ended_.assign(going_.size(), 0);
  int n_threads = threads_for(n, 256);
  std::vector<Round> parts(n_threads);
#pragma omp parallel num_threads(n_threads)
  {
    Round& part = parts[omp_get_thread_num()];
    std::vector<LaneSample> found(static_cast<size_t>(kLanes) * quota);
    int count[kLanes];
    Packet packet;
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kLanes);
    for (int64_t first = range.begin; first < range.end; first += kLanes) {
      packet.ray = states_[first / kLanes];
      for (int l = 0; l < kLanes; ++l) packet.active[l] = first + l < n ? -1 : 0;
      std::fill_n(count, kLanes, 0);
      packet.begin_round();
      while (any(packet.running)) {
        packet.step(quota, coarse_.rule, [&](uint32_t bits, FloatV t0, FloatV t1, const FloatV* x) {
          for (; bits; bits &= bits - 1) {
            int l = __builtin_ctz(bits);
            found[l * quota + count[l]++] = {t0[l], t1[l], {x[0][l], x[1][l], x[2][l]}};
          }
        });
      }
      states_[first / kLanes] = packet.ray;
      for (int l = 0; l < kLanes && first + l < n; ++l) {
        ended_[first + l] = !packet.active[l];
        part.ray.insert(part.ray.end(), count[l], going_[first + l]);
        for (int i = 0; i < count[l]; ++i) {
          const LaneSample& s = found[l * quota + i];
          part.samples.add(s.t0, s.t1, s.x);
        }
      }
    }
  }
  Round round = std::move(parts[0]);
  for (int t = 1; t < n_threads; ++t) {
    round.samples.append(parts[t].samples);
    round.ray.insert(round.ray.end(), parts[t].ray.begin(), parts[t].ray.end());
  }
  first_ += quota;
  rounds_.push_back(std::move(round));
  return rounds_.back();
}

void Front::absorb(const float* sigma) {
  const Round& round = rounds_.back();
  for (size_t i = 0; i < round.ray.size(); ++i) {
    float& passed = passed_[round.ray[i]];
    kept_[round.ray[i]] += passed <= most_depth_;
    passed += sigma[i] * (round.samples.t1[i] - round.samples.t0[i]);
  }
  size_t still = 0;
  for (size_t i = 0; i < going_.size(); ++i) {
    if (ended_[i] || !(passed_[going_[i]] <= most_depth_) || first_ >= max_samples_) continue;
    copy_lane(states_[i / kLanes], static_cast<int>(i % kLanes), states_[still / kLanes], static_cast<int>(still % kLanes));
    going_[still++] = going_[i];
  }
  going_.resize(still);
}

Front::Seen Front::seen() const {
  Seen found;
  std::vector<int64_t>& offsets = found.samples.offsets;
  offsets.assign(kept_.size() + 1, 0);
  for (size_t r = 0; r < kept_.size(); ++r) offsets[r + 1] = offsets[r] + kept_[r];
  size_t n = static_cast<size_t>(offsets.back());
  SampleBuffer& of = found.samples.of;
  of.t0.resize(n);
  of.t1.resize(n);
  of.x.resize(3 * n);
  found.samples.ray.resize(n);
  found.row.resize(n);
  std::vector<int64_t> at(offsets.begin(), offsets.end() - 1);
  int64_t row = 0;
  for (const Round& round : rounds_) {
    for (size_t i = 0; i < round.ray.size(); ++i, ++row) {
      int32_t ray = round.ray[i];
      int64_t to = at[ray]++;
      if (to >= offsets[ray + 1]) continue;
      of.t0[to] = round.samples.t0[i];
      of.t1[to] = round.samples.t1[i];
      std::copy_n(&round.samples.x[3 * i], 3, &of.x[3 * to]);
      found.samples.ray[to] = ray;
      found.row[to] = row;
    }
  }
  return found;
}

}  // namespace fieldfit
