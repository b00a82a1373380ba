// Memory for what a forward pass leaves for its backward pass. It is taken from a few buffers that stay allocated, since
// fresh pages cost as much as the pass itself.
#pragma once
#include <cstddef>

namespace fieldfit {

class Tape {
 public:
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape();

  // Memory on a cache line's boundary, not initialised, once per tape; null if that would be more than kMostBytes.
  char* reserve(size_t bytes);
  char* data() const { return data_; }

  static constexpr size_t kMostBytes = size_t{256} << 20;

 private:
  char* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace fieldfit
