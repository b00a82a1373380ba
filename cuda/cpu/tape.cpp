// The buffers of tapes.
#include "tape.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <vector>

namespace fieldfit {
namespace {

constexpr size_t kIdleBuffers = 8;

struct Buffer {
  char* data;
  size_t capacity;
};

struct Pool {
  std::mutex mutex;
  std::vector<Buffer> idle;

  // The smallest that fits and is not much too big.
  Buffer take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    auto best = idle.end();
    for (auto it = idle.begin(); it != idle.end(); ++it) {
      if (it->capacity >= bytes && it->capacity <= 4 * bytes && (best == idle.end() || it->capacity < best->capacity)) best = it;
    }
    if (best == idle.end()) return {nullptr, 0};
    Buffer found = *best;
    idle.erase(best);
    return found;
  }

  void give(Buffer buffer) {
    std::lock_guard<std::mutex> lock(mutex);
    idle.push_back(buffer);
    if (idle.size() <= kIdleBuffers) return;
    std::free(idle.front().data);  // idle for the longest time
    idle.erase(idle.begin());
  }
};

Pool& pool() {
  static Pool* shared = new Pool;  // never destroyed: tapes may outlive static objects
  return *shared;
}

}  // namespace

Tape::~Tape() {
  if (data_) pool().give({data_, capacity_});
}

char* Tape::reserve(size_t bytes) {
  if (data_ || bytes == 0 || bytes > kMostBytes) return nullptr;
  Buffer buffer = pool().take(bytes);
  if (!buffer.data) {
    size_t capacity = (bytes + bytes / 4 + 4095) / 4096 * 4096;  // room for batches that vary a little
    buffer = {static_cast<char*>(std::aligned_alloc(4096, capacity)), capacity};
  }
  data_ = buffer.data;
  capacity_ = buffer.capacity;
  return data_;
}

}  // namespace fieldfit
