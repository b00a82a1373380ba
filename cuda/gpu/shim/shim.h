// CUDA's vocabulary for a host compiler: one thread of the host for each CUDA thread, so that sanitizers see the races,
// and reads past the end, that a block would have on a GPU. For tests only; nothing here is fast.
//
// What orders memory on a GPU orders it here, and nothing else does. `__syncthreads` and `__syncwarp` are barriers.
// Collectives of a warp (shuffles, votes, matrix operations) meet through relaxed atomics, which ThreadSanitizer does
// not take for synchronisation: a missing `__syncwarp` beside a shuffle is a race here as well. Blocks share nothing
// but what the kernel was given, and no barrier stands between them.
#pragma once
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#define __grid_constant__

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace shim {

struct Index {
  unsigned x, y, z;
};

inline void compiler_fence() {
#if defined(__x86_64__)
  asm volatile("" ::: "memory");
#else
  asm volatile("dmb ish" ::: "memory");
#endif
}

struct Meeting {
  std::atomic<uint32_t> arrived{0}, round{0};

  // All threads have arrived; nothing else is implied.
  void meet(uint32_t threads) {
    uint32_t now = round.load(std::memory_order_relaxed);
    compiler_fence();
    if (arrived.fetch_add(1, std::memory_order_relaxed) == threads - 1) {
      arrived.store(0, std::memory_order_relaxed);
      compiler_fence();
      round.store(now + 1, std::memory_order_relaxed);
      syscall(SYS_futex, &round, FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr, 0);
    } else {
      while (round.load(std::memory_order_relaxed) == now) {
        syscall(SYS_futex, &round, FUTEX_WAIT_PRIVATE, now, nullptr, nullptr, 0);
      }
    }
    compiler_fence();
  }
};

struct Warp {
  pthread_barrier_t barrier;
  Meeting meeting;
  std::atomic<uint32_t> slot[32][8];

  Warp() { pthread_barrier_init(&barrier, nullptr, 32); }
  void meet() { meeting.meet(32); }
};

struct Block {
  Index index;
  pthread_barrier_t barrier;
  Meeting meeting;
  std::vector<Warp> warps;
  std::atomic<int> votes[2] = {0, 0};
  unsigned char* shared;

  Block(Index at, unsigned threads, size_t bytes) : index(at), warps(threads / 32) {
    pthread_barrier_init(&barrier, nullptr, threads);
    shared = static_cast<unsigned char*>(aligned_alloc(16, bytes));
    memset(shared, 0xff, bytes);  // NaNs: shared memory starts with anything
  }
  ~Block() { free(shared); }
};

inline thread_local Block* block;
inline thread_local unsigned vote_round;

inline void* shared() { return block->shared; }
inline Warp& warp();

}  // namespace shim

inline thread_local shim::Index threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

inline Warp& warp() { return block->warps[threadIdx.x / 32]; }
inline unsigned lane() { return threadIdx.x % 32; }

// Gives `words` words of each lane to the others while `use` runs.
template <class Use>
auto exchange(const uint32_t* mine, int words, Use use) {
  Warp& w = warp();
  for (int i = 0; i < words; ++i) w.slot[lane()][i].store(mine[i], std::memory_order_relaxed);
  w.meet();
  auto result = use([&](unsigned from, int word) { return w.slot[from & 31u][word].load(std::memory_order_relaxed); });
  w.meet();
  return result;
}

template <class T>
uint32_t bits(T v) {
  static_assert(sizeof(T) == 4, "collectives here move words");
  uint32_t b;
  memcpy(&b, &v, 4);
  return b;
}
template <class T>
T value(uint32_t b) {
  T v;
  memcpy(&v, &b, 4);
  return v;
}

inline void expect_full(unsigned mask) {
  if (mask != 0xffffffffu) {
    fprintf(stderr, "shim: collectives take whole warps, got mask %08x\n", mask);
    abort();
  }
}

template <class T>
T shuffle(unsigned mask, T v, unsigned from) {
  expect_full(mask);
  uint32_t mine = bits(v);
  return value<T>(exchange(&mine, 1, [&](auto of) { return of(from, 0); }));
}

// One thread of the host per CUDA thread of a block, for one block after another.
template <class Kernel>
void launch(Index grid, unsigned threads, size_t shared_bytes, Kernel kernel) {
  std::vector<Block*> blocks;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x)
        blocks.push_back(new Block({x, y, z}, threads, (shared_bytes + 31) / 16 * 16));
    }
  }
  std::vector<std::thread> host;
  for (unsigned t = 0; t < threads; ++t) {
    host.emplace_back([&, t] {
      for (Block* b : blocks) {
        block = b;
        vote_round = 0;
        threadIdx = {t, 0, 0};
        blockIdx = b->index;
        blockDim = {threads, 1, 1};
        gridDim = grid;
        kernel();
      }
    });
  }
  for (std::thread& t : host) t.join();
  for (Block* b : blocks) delete b;
}

}  // namespace shim

inline void __syncthreads() { pthread_barrier_wait(&shim::block->barrier); }
inline void __syncwarp() { pthread_barrier_wait(&shim::warp().barrier); }

namespace shim {

// How many threads of the block vote for it. They wait for each other twice: for all votes, and until all have seen
// them.
template <class Wait>
int vote(int predicate, Wait wait) {
  std::atomic<int>& votes = block->votes[vote_round++ & 1];
  if (predicate) votes.fetch_add(1, std::memory_order_relaxed);
  wait();
  int count = votes.load(std::memory_order_relaxed);
  wait();
  if (threadIdx.x == 0) votes.store(0, std::memory_order_relaxed);
  return count;
}
inline int unordered_vote(int predicate) {  // that orders no memory: what a test puts in the place of a barrier
  return vote(predicate, [] { block->meeting.meet(blockDim.x); });
}

}  // namespace shim

inline int __syncthreads_or(int predicate) { return shim::vote(predicate, __syncthreads) != 0; }

template <class T>
T __shfl_sync(unsigned mask, T v, int from) {
  return shim::shuffle(mask, v, static_cast<unsigned>(from));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int with) {
  return shim::shuffle(mask, v, shim::lane() ^ static_cast<unsigned>(with));
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by) {
  return shim::shuffle(mask, v, shim::lane() < by ? shim::lane() : shim::lane() - by);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  shim::expect_full(mask);
  uint32_t mine = predicate ? 1u : 0u;
  return shim::exchange(&mine, 1, [](auto of) {
    unsigned all = 0;
    for (unsigned l = 0; l < 32; ++l) all |= of(l, 0) << l;
    return all;
  });
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline unsigned __match_any_sync(unsigned mask, unsigned v) {
  shim::expect_full(mask);
  return shim::exchange(&v, 1, [v](auto of) {
    unsigned same = 0;
    for (unsigned l = 0; l < 32; ++l) same |= (of(l, 0) == v ? 1u : 0u) << l;
    return same;
  });
}

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }

inline float atomicAdd(float* at, float v) {
  uint32_t* word = reinterpret_cast<uint32_t*>(at);
  uint32_t old = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &old, shim::bits(shim::value<float>(old) + v), true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return shim::value<float>(old);
}
inline int atomicAdd(int* at, int v) { return __atomic_fetch_add(at, v, __ATOMIC_RELAXED); }
