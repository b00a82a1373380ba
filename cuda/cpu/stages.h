// Where the time of a rendering goes. Reading the clock a few times per block of rays costs nothing that can be measured.
#pragma once
#include <chrono>

namespace fieldfit {

enum Stage { kMarch, kEncode, kNetworks, kComposite, kStages };

struct StageSeconds {
  double of[kStages] = {};

  // The mean over threads: what each stage takes of the time that passes.
  void add(const StageSeconds& thread, int n_threads) {
    for (int s = 0; s < kStages; ++s) of[s] += thread.of[s] / n_threads;
  }
};

// One thread's.
class StageClock {
 public:
  StageSeconds seconds;

  // What has passed since the last lap belongs to this stage.
  void lap(Stage stage) {
    auto now = std::chrono::steady_clock::now();
    seconds.of[stage] += std::chrono::duration<double>(now - at_).count();
    at_ = now;
  }

 private:
  std::chrono::steady_clock::time_point at_ = std::chrono::steady_clock::now();
};

}  // namespace fieldfit
