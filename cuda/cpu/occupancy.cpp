// Occupancy grids: what a visit to some cells changes, and which cells count from then on.
#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "threads.h"

namespace fieldfit {

std::vector<int64_t> set_bits(const uint32_t* words, int64_t n_words) {
  int64_t count = 0;
  for (int64_t i = 0; i < n_words; ++i) count += __builtin_popcount(words[i]);
  std::vector<int64_t> set;
  set.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < n_words; ++i) {
    for (uint32_t word = words[i]; word; word &= word - 1) set.push_back(i * 32 + __builtin_ctz(word));
  }
  return set;
}

namespace {

// Every cell once: what it had, faded, or the largest of what was found there.
void fade_and_raise(const CellVisits& visits, int64_t n_cells, float* density) {
  std::vector<uint32_t> faded(static_cast<size_t>((n_cells + 31) / 32), 0);
  for (int64_t i = 0; i < visits.n; ++i) {
    int64_t cell = visits.cells[i];
    uint32_t &word = faded[static_cast<size_t>(cell / 32)], bit = 1u << (cell % 32);
    float before = density[cell];
    if (!(word & bit)) before = std::isinf(before) ? 0.0f : before * visits.decay;
    word |= bit;
    density[cell] = std::max(before, visits.found[i]);
  }
}

// Of the cells that have been visited; infinite without any.
double mean_density(int64_t n_cells, const float* density) {
  double sum = 0;
  int64_t count = 0;
#pragma omp parallel for reduction(+ : sum, count) schedule(static) num_threads(threads_for(n_cells, 65536))
  for (int64_t first = 0; first < n_cells; first += 4096) {
    float part = 0;
    for (int64_t i = first; i < std::min(first + 4096, n_cells); ++i) {
      bool finite = density[i] < INFINITY;
      part += finite ? density[i] : 0.0f;
      count += finite;
    }
    sum += part;
  }
  return count ? sum / static_cast<double>(count) : INFINITY;
}

}  // namespace

void visit_cells(const CellVisits& visits, float threshold, const uint32_t* allowed, int64_t n_cells, float* density, uint32_t* bits) {
  fade_and_raise(visits, n_cells, density);
  float least = static_cast<float>(std::min<double>(threshold, mean_density(n_cells, density)));
#pragma omp parallel for schedule(static) num_threads(threads_for(n_cells, 65536))
  for (int64_t first = 0; first < n_cells; first += 32) {
    uint32_t word = 0;
    for (int64_t i = first; i < std::min(first + 32, n_cells); ++i) word |= (density[i] > least ? 1u : 0u) << (i - first);
    bits[first / 32] = word & allowed[first / 32];
  }
}

}  // namespace fieldfit
