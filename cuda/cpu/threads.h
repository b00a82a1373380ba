// Splitting work over OpenMP threads by contiguous ranges that depend on the thread count alone.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>

struct Range {
  int64_t begin, end;
};

// Share `part` of `parts` of n items, in multiples of `multiple`.
inline Range share(int64_t n, int part, int parts, int64_t multiple) {
  int64_t blocks = (n + multiple - 1) / multiple;
  int64_t begin = blocks * part / parts * multiple;
  int64_t end = blocks * (part + 1) / parts * multiple;
  return {std::min(begin, n), std::min(end, n)};
}

inline int threads_for(int64_t n, int64_t least_per_thread) {
  int64_t useful = std::max<int64_t>(1, n / least_per_thread);
  return static_cast<int>(std::min<int64_t>(omp_get_max_threads(), useful));
}
