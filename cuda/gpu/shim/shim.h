// CUDA's vocabulary for a host compiler: one fiber for each CUDA thread, all in one thread of the host, so that sanitizers
// see the races, and reads past the end, that a block would have on a GPU. For tests only; nothing here is fast.
//
// What orders memory on a GPU orders it here, and nothing else does: switching from fiber to fiber says nothing to
// ThreadSanitizer, to which each is a thread. `__syncthreads` and `__syncwarp` are barriers. Collectives of a warp
// (shuffles, votes, matrix operations) meet without ordering anything: a missing `__syncwarp` beside a shuffle is a race
// here as well. Blocks share nothing but what the kernel was given, and no barrier stands between them.
//
// Standard headers are few: tests compile this some hundred times.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#else
#error "the shim is for -fsanitize=address or -fsanitize=thread"
#endif

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

// Functions that neither sanitizer looks into: fibers share what is written there, and run one at a time.
#define SHIM_UNSEEN __attribute__((noinline, no_sanitize("address", "thread", "undefined")))

struct Meeting {
  unsigned arrived = 0, round = 0;
  char order[2] = {};  // of the even and the odd rounds: who leaves one may arrive at the next before others leave
};

struct Warp {
  Meeting barrier, meeting;
  uint32_t slot[32][8];
};

struct Block {
  Index index;
  unsigned char* shared;
  Meeting barrier, meeting;
  int votes[2] = {0, 0};
  Warp warps[32];
};

struct Fiber {
  Index thread;
  Block* block = nullptr;
  unsigned vote_round = 0;
  bool ended = false;
  Fiber* next = nullptr;  // in a ring
  ucontext_t context;
  const void* stack = nullptr;
  size_t stack_bytes = 0;
  void* known_as = nullptr;  // to ThreadSanitizer
};

constexpr size_t kStack = 1 << 20;

inline Fiber host;  // who launches
inline Fiber* running = &host;
inline unsigned idle;  // turns that fibers have taken, one after another, only to wait
inline unsigned live;

}  // namespace shim

inline shim::Index threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

SHIM_UNSEEN inline void show(const Fiber& fiber) {
  threadIdx.x = fiber.thread.x;
  if (fiber.block) {
    blockIdx.x = fiber.block->index.x;
    blockIdx.y = fiber.block->index.y;
    blockIdx.z = fiber.block->index.z;
  }
}

SHIM_UNSEEN inline void switch_to(Fiber& to) {
  Fiber& from = *running;
  running = &to;
  show(to);
#if defined(__SANITIZE_ADDRESS__)
  void* frames;
  __sanitizer_start_switch_fiber(&frames, to.stack, to.stack_bytes);
  swapcontext(&from.context, &to.context);
  __sanitizer_finish_switch_fiber(frames, nullptr, nullptr);
#else
  __tsan_switch_to_fiber(to.known_as, __tsan_switch_to_fiber_no_sync);
  swapcontext(&from.context, &to.context);
#endif
}

SHIM_UNSEEN inline void give_way() {
  if (++idle > 2 * blockDim.x + 2) {
    fprintf(stderr, "shim: threads wait for each other\n");
    _Exit(3);
  }
  Fiber* to = running->next;
  while (to->ended) to = to->next;
  if (to != running) switch_to(*to);
}

// All threads have arrived; nothing else is implied.
SHIM_UNSEEN inline void meet(Meeting& at, unsigned threads) {
  unsigned now = at.round;
  if (++at.arrived == threads) {
    at.arrived = idle = 0;
    ++at.round;
  }
  while (at.round == now) give_way();
}

// ... and what they did before is done.
SHIM_UNSEEN inline void synchronise(Meeting& at, unsigned threads) {
#if defined(__SANITIZE_THREAD__)
  char* order = &at.order[at.round & 1];
  __tsan_release(order);
  meet(at, threads);
  __tsan_acquire(order);
#else
  meet(at, threads);
#endif
}

SHIM_UNSEEN inline Fiber& self() { return *running; }
SHIM_UNSEEN inline void* shared() { return running->block->shared; }
SHIM_UNSEEN inline Warp& warp() { return running->block->warps[running->thread.x / 32]; }
SHIM_UNSEEN inline unsigned lane() { return running->thread.x % 32; }

// Gives `words` words of each lane to the others while `use` runs.
template <class Use>
auto exchange(const uint32_t* mine, int words, Use use) {
  Warp& w = warp();
  for (int i = 0; i < words; ++i) __atomic_store_n(&w.slot[lane()][i], mine[i], __ATOMIC_RELAXED);
  meet(w.meeting, 32);
  auto result = use([&](unsigned from, int word) { return __atomic_load_n(&w.slot[from & 31u][word], __ATOMIC_RELAXED); });
  meet(w.meeting, 32);
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

// One fiber per CUDA thread of a block, for one block after another.
template <class Kernel>
struct Launch {
  static inline const Kernel* kernel;
  static inline Block* blocks;
  static inline size_t n_blocks;
  static inline char done;  // what the host waits for

  SHIM_UNSEEN static void enter(Block& block) {
    running->block = &block;
    running->vote_round = 0;
    show(*running);
  }

  SHIM_UNSEEN static void leave() {
    running->ended = true;
    idle = 0;
    Fiber* to = running->next;
    if (--live == 0) to = &host;
    while (to->ended) to = to->next;
    switch_to(*to);
  }

  static void run() {
#if defined(__SANITIZE_ADDRESS__)
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (!host.stack) host.stack = stack, host.stack_bytes = bytes;  // the first fiber is switched to from there
#endif
    for (size_t b = 0; b < n_blocks; ++b) {
      enter(blocks[b]);
      (*kernel)();
    }
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&done);
#endif
    leave();
  }
};

template <class Kernel>
void launch(Index grid, unsigned threads, size_t shared_bytes, Kernel kernel) {
  using L = Launch<Kernel>;
  size_t bytes = (shared_bytes + 31) / 16 * 16;
  L::kernel = &kernel;
  L::n_blocks = size_t{grid.x} * grid.y * grid.z;
  L::blocks = new Block[L::n_blocks];
  for (size_t b = 0; b < L::n_blocks; ++b) {
    unsigned at = static_cast<unsigned>(b);
    L::blocks[b].index = {at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
    L::blocks[b].shared = static_cast<unsigned char*>(aligned_alloc(16, bytes));
    memset(L::blocks[b].shared, 0xff, bytes);  // NaNs: shared memory starts with anything
  }
  blockDim = {threads, 1, 1};
  gridDim = grid;
  live = threads;
  Fiber* fibers = new Fiber[threads];
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.thread = {t, 0, 0};
    fiber.next = &fibers[(t + 1) % threads];
    void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED || getcontext(&fiber.context) != 0) abort();
    fiber.stack = stack;
    fiber.stack_bytes = kStack;
    fiber.context.uc_stack = {stack, 0, kStack};
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, L::run, 0);
    fiber.context.uc_stack.ss_size = 0;  // or AddressSanitizer forgets, at each switch, where arrays there end
#if defined(__SANITIZE_THREAD__)
    fiber.known_as = __tsan_create_fiber(0);
#endif
  }
#if defined(__SANITIZE_THREAD__)
  host.known_as = __tsan_get_current_fiber();
#endif
  switch_to(fibers[0]);
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(&L::done);
  for (unsigned t = 0; t < threads; ++t) __tsan_destroy_fiber(fibers[t].known_as);
#endif
  for (unsigned t = 0; t < threads; ++t) munmap(fibers[t].context.uc_stack.ss_sp, kStack);
  for (size_t b = 0; b < L::n_blocks; ++b) free(L::blocks[b].shared);
  delete[] fibers;
  delete[] L::blocks;
}

}  // namespace shim

inline void __syncthreads() { shim::synchronise(shim::self().block->barrier, blockDim.x); }
inline void __syncwarp() { shim::synchronise(shim::warp().barrier, 32); }

namespace shim {

// How many threads of the block vote for it. They wait for each other twice: for all votes, and until all have seen
// them.
template <class Wait>
int vote(int predicate, Wait wait) {
  int& votes = self().block->votes[self().vote_round++ & 1];
  if (predicate) __atomic_fetch_add(&votes, 1, __ATOMIC_RELAXED);
  wait();
  int count = __atomic_load_n(&votes, __ATOMIC_RELAXED);
  wait();
  if (threadIdx.x == 0) __atomic_store_n(&votes, 0, __ATOMIC_RELAXED);
  return count;
}
inline int unordered_vote(int predicate) {  // that orders no memory: what a test puts in the place of a barrier
  return vote(predicate, [] { meet(self().block->meeting, blockDim.x); });
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
