// What this machine can do at most: rates that `limits.py` measures beside the kernels. Compiled for the machine it runs
// on. Every function runs on `threads` threads for about `seconds` and returns operations per second of all of them.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__AVX512BF16__) || defined(__FMA__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kAccumulators = 24;  // of 32 registers: latency 4 on two ports needs 8
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kAccumulators = 12;  // of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kAccumulators = 12;
#endif
typedef float Vector __attribute__((vector_size(kVectorBytes)));

constexpr int kIndices = 1024;  // places of one round, in the first cache
constexpr double kWarm = 3e-3;  // seconds before counting: threads start, clocks settle

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Keeps this thread on a core of its own, where the system lets it choose.
void settle_on(int thread) {
#if defined(__linux__)
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || thread-- > 0) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    return;
  }
#else
  (void)thread;
#endif
}

// Sum over threads of operations per second. `work(thread)` makes the state of a thread; calling that does some operations
// and returns how many.
template <class Work>
double rate(int threads, double seconds, Work work) {
  std::atomic<int> ready{0};
  std::vector<double> rates(threads);
  auto run = [&](int thread) {
    auto step = work(thread);
    ready.fetch_add(1);
    while (ready.load() < threads) {
    }
    for (double end = now() + kWarm; now() < end;) step();
    double begin = now(), end = begin + seconds, at = begin, done = 0;
    while (at < end) {
      done += step();
      at = now();
    }
    rates[thread] = done / (at - begin);
  };
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&run, t] {
      settle_on(t);
      run(t);
    });
  }
  for (auto& worker : workers) worker.join();
  double total = 0;
  for (double r : rates) total += r;
  return total;
}

// The compiler has to believe that the value is used and may have changed: nothing is folded, hoisted or left out.
template <class T>
inline void keep(T& value) {
  asm volatile("" : "+v"(value));
}

// Draws kIndices independent places in [0, n) at a time: a fixed set, moved by another random distance every round.
struct Places {
  uint32_t n, state;
  uint32_t base[kIndices], at[kIndices];

  Places(int64_t n, uint32_t seed) : n(static_cast<uint32_t>(n)), state(seed) {
    for (uint32_t& b : base) b = below();
  }
  uint32_t below() {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return static_cast<uint32_t>((static_cast<uint64_t>(state) * n) >> 32);
  }
  void draw() {
    uint32_t distance = below();
    for (int i = 0; i < kIndices; ++i) {
      uint32_t moved = base[i] + distance;
      at[i] = moved >= n ? moved - n : moved;
    }
  }
};

template <class Entry>
double random_reads(int threads, double seconds, const void* memory, int64_t entries) {
  return rate(threads, seconds, [&](int thread) {
    auto table = static_cast<const Entry*>(memory);
    return [table, places = Places(entries, 0x9e3779b9u * (thread + 1))]() mutable {
      places.draw();
      Entry a{}, b{}, c{}, d{};
      for (int i = 0; i < kIndices; i += 4) {
        a += table[places.at[i]];
        b += table[places.at[i + 1]];
        c += table[places.at[i + 2]];
        d += table[places.at[i + 3]];
      }
      a += b, c += d, a += c;
      asm volatile("" ::"m"(a));
      return kIndices;
    };
  });
}

// Every thread adds to a table of its own, `entries` long: two threads may not add to one place without atomics.
template <class Entry>
double random_adds(int threads, double seconds, void* memory, int64_t entries) {
  return rate(threads, seconds, [&](int thread) {
    auto table = static_cast<Entry*>(memory) + thread * entries;
    Entry one{};
    one += 1e-30f;
    return [table, one, places = Places(entries, 0x9e3779b9u * (thread + 1))]() mutable {
      places.draw();
      for (int i = 0; i < kIndices; ++i) table[places.at[i]] += one;
      asm volatile("" ::: "memory");
      return kIndices;
    };
  });
}

typedef float Float2 __attribute__((vector_size(8)));
typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));

}  // namespace

extern "C" {

int vector_bytes() { return kVectorBytes; }

// Multiply-adds of float32 on registers, counted as two operations each.
double fma_rate(int threads, double seconds) {
  return rate(threads, seconds, [](int) {
    return [] {
      constexpr int kSteps = 4096;
      Vector factor = Vector{} + 0.999f, term = Vector{} + 0.001f, sum[kAccumulators];
      keep(factor);
      keep(term);
#pragma GCC unroll 32
      for (int i = 0; i < kAccumulators; ++i) sum[i] = Vector{} + 1.0f * i, keep(sum[i]);
      for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 32
        for (int i = 0; i < kAccumulators; ++i) sum[i] = sum[i] * factor + term;
      }
#pragma GCC unroll 32
      for (int i = 0; i < kAccumulators; ++i) keep(sum[i]);
      return 2.0 * kSteps * kAccumulators * (kVectorBytes / 4);
    };
  });
}

// The same on registers of 256 bits, which is all that AVX2 has; 0 without them.
double fma256_rate(int threads, double seconds) {
#if defined(__FMA__)
  return rate(threads, seconds, [](int) {
    return [] {
      constexpr int kSteps = 4096, kSums = 12;
      __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f), sum[kSums];
      keep(factor);
      keep(term);
#pragma GCC unroll 32
      for (int i = 0; i < kSums; ++i) sum[i] = _mm256_set1_ps(1.0f * i), keep(sum[i]);
      for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 32
        for (int i = 0; i < kSums; ++i) sum[i] = _mm256_fmadd_ps(sum[i], factor, term);
      }
#pragma GCC unroll 32
      for (int i = 0; i < kSums; ++i) keep(sum[i]);
      return 2.0 * kSteps * kSums * 8;
    };
  });
#else
  (void)threads, (void)seconds;
  return 0;
#endif
}

// Dot products of pairs of bfloat16 added to float32, counted as four operations for each float32; 0 where the processor
// has none.
double bfloat16_rate(int threads, double seconds) {
#if defined(__AVX512BF16__)
  return rate(threads, seconds, [](int) {
    return [] {
      constexpr int kSteps = 4096;
      __m512i one = _mm512_set1_epi32(0x3f803f80);
      __m512 sum[kAccumulators];
      keep(one);
#pragma GCC unroll 32
      for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_setzero_ps(), keep(sum[i]);
      for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 32
        for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)one, (__m512bh)one);
      }
#pragma GCC unroll 32
      for (int i = 0; i < kAccumulators; ++i) keep(sum[i]);
      return 4.0 * kSteps * kAccumulators * 16;
    };
  });
#else
  (void)threads, (void)seconds;
  return 0;
#endif
}

// Products of 16 x 32 and 32 x 16 tiles of bfloat16 added to float32 (AMX); 0 where processor or system has none.
double tile_rate(int threads, double seconds) {
#if defined(__AMX_BF16__) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return 0;
  return rate(threads, seconds, [](int) {
    struct alignas(64) Shapes {
      uint8_t palette = 1, start = 0, unused[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    return [shapes = Shapes()] {
      constexpr int kSteps = 1024;
      _tile_loadconfig(&shapes);  // zeroes all tiles
      for (int step = 0; step < kSteps; ++step) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_release();
      return 4.0 * kSteps * 2 * 16 * 16 * 32;
    };
  });
#else
  (void)threads, (void)seconds;
  return 0;
#endif
}

// Bytes read and written per second by copying; each thread has its part of the two arrays, `bytes` long.
double copy_rate(int threads, double seconds, void* to, const void* from, int64_t bytes) {
  return rate(threads, seconds, [&](int thread) {
    int64_t part = bytes / threads / 4096 * 4096, chunk = 1 << 20, at = 0;
    auto out = static_cast<char*>(to) + thread * part;
    auto in = static_cast<const char*>(from) + thread * part;
    return [=]() mutable {
      memcpy(out + at, in + at, chunk);
      asm volatile("" ::: "memory");
      at = at + 2 * chunk <= part ? at + chunk : 0;
      return 2.0 * chunk;
    };
  });
}

// Bytes read per second by summing; each thread has its part of the array.
double read_rate(int threads, double seconds, const void* from, int64_t bytes) {
  return rate(threads, seconds, [&](int thread) {
    int64_t part = bytes / threads / 4096 * 4096, chunk = 1 << 20, at = 0;
    auto in = static_cast<const char*>(from) + thread * part;
    return [=]() mutable {
      auto v = reinterpret_cast<const Vector*>(in + at);
      Vector a{}, b{}, c{}, d{};
      for (int64_t i = 0; i < chunk / kVectorBytes; i += 4) {
        a += v[i], b += v[i + 1], c += v[i + 2], d += v[i + 3];
      }
      a += b, c += d, a += c;
      keep(a);
      at = at + 2 * chunk <= part ? at + chunk : 0;
      return 1.0 * chunk;
    };
  });
}

// Reads per second of entries of `features` float32 at independent random places of one table.
double random_read_rate(int threads, double seconds, const void* table, int64_t entries, int features) {
  switch (features) {
    case 1:
      return random_reads<float>(threads, seconds, table, entries);
    case 2:
      return random_reads<Float2>(threads, seconds, table, entries);
    case 4:
      return random_reads<Float4>(threads, seconds, table, entries);
    case 8:
      return random_reads<Float8>(threads, seconds, table, entries);
    default:
      return 0;
  }
}

// The same for adding to such places; the memory holds a table for every thread.
double random_add_rate(int threads, double seconds, void* tables, int64_t entries, int features) {
  switch (features) {
    case 1:
      return random_adds<float>(threads, seconds, tables, entries);
    case 2:
      return random_adds<Float2>(threads, seconds, tables, entries);
    case 4:
      return random_adds<Float4>(threads, seconds, tables, entries);
    case 8:
      return random_adds<Float8>(threads, seconds, tables, entries);
    default:
      return 0;
  }
}
}
