// The codec's entropy coder, and the distributions that it codes under, all in integers. It is the range coder of
// constriction (Bamler 2022), word for word: here because what is decoded says under what to decode next, and that it
// ends in bytes instead of words.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace fieldfit {

constexpr int kProbabilityBits = 24;
constexpr uint32_t kWhole = 1u << kProbabilityBits;

// An interval of the whole, as a symbol has it.
struct Interval {
  uint32_t begin, size;
};

class RangeEncoder {
 public:
  void put(Interval s) {
    uint64_t unit = range_ >> kProbabilityBits, before = low_;
    low_ += unit * s.begin;
    if (low_ < before) carry();
    range_ = unit * s.size;
    while (range_ < (1ull << 32)) {
      words_.push_back(static_cast<uint32_t>(low_ >> 32));
      low_ <<= 32;
      range_ <<= 32;
    }
  }

  // The shortest bytes that decode to what was put; a reader takes zeros behind their end.
  std::vector<uint8_t> finish() {
    int kept = 8;
    uint64_t value = low_;
    for (int bytes = 0; bytes <= 8; ++bytes) {  // as few bytes as can point into the interval
      uint64_t rest = bytes == 8 ? 0 : ~0ull >> (8 * bytes), up = low_ + rest;
      bool over = up < low_;
      uint64_t candidate = up & ~rest;
      if (candidate - low_ < range_) {
        if (over) carry();
        value = candidate;
        kept = bytes;
        break;
      }
    }
    std::vector<uint8_t> out;
    for (uint32_t w : words_) {
      for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(w >> shift));
    }
    for (int i = 0; i < kept; ++i) out.push_back(static_cast<uint8_t>(value >> (56 - 8 * i)));
    while (!out.empty() && out.back() == 0) out.pop_back();
    return out;
  }

 private:
  void carry() {
    for (size_t i = words_.size(); i-- > 0;) {
      if (++words_[i] != 0) break;
    }
  }
  uint64_t low_ = 0, range_ = ~0ull;
  std::vector<uint32_t> words_;
};

class RangeDecoder {
 public:
  RangeDecoder(const uint8_t* data, size_t size) : data_(data), size_(size) {
    for (int i = 0; i < 8; ++i) code_ = code_ << 8 | next();
  }
  // Where in the whole the next symbol lies.
  uint32_t peek() {
    unit_ = range_ >> kProbabilityBits;
    return static_cast<uint32_t>(std::min<uint64_t>(code_ / unit_, kWhole - 1));
  }
  void take(Interval s) {  // after peek
    code_ -= unit_ * s.begin;
    range_ = unit_ * s.size;
    while (range_ < (1ull << 32)) {
      for (int i = 0; i < 4; ++i) code_ = code_ << 8 | next();
      range_ <<= 32;
    }
  }
  // Whether all data have been read: an encoder leaves none behind its last symbol.
  bool at_end() const { return at_ >= size_; }

 private:
  uint8_t next() { return at_ < size_ ? data_[at_++] : (++at_, 0); }
  const uint8_t* data_;
  size_t size_, at_ = 0;
  uint64_t code_ = 0, range_ = ~0ull, unit_ = 0;
};

// The probability of a yes, which follows what came before: quickly at first, then by a 32nd.
class AdaptiveBit {
 public:
  Interval interval(bool bit) const { return bit ? Interval{0, yes_ << 8} : Interval{yes_ << 8, kWhole - (yes_ << 8)}; }
  bool find(uint32_t place) const { return place < yes_ << 8; }
  void see(bool bit) {
    static constexpr uint32_t kShare[] = {2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28};
    uint32_t share = seen_ < 12 ? kShare[seen_++] : 32;
    yes_ = bit ? yes_ + (kMost - yes_) / share : yes_ - (yes_ - kLeast) / share;
  }

 private:
  static constexpr uint32_t kLeast = 1 << 8, kMost = (1 << 16) - (1 << 8);
  uint32_t yes_ = 1 << 15;  // of 2^16
  uint32_t seen_ = 0;
};

constexpr int kScales = 64;  // b_k = exp(k / 8 - 3)
constexpr int kSteps = 16;   // of a location to one
constexpr int kMostLatent = 127;
constexpr int kMostWeight = 2047;

// floor(2^32 exp(-1 / (16 b_k))): what a sixteenth further out is left of the tail.
constexpr uint32_t kDecay[kScales] = {
    1223967808u, 1418507033u, 1615718013u, 1812411092u, 2005790141u, 2193515738u, 2373724999u, 2545018318u,
    2706423265u, 2857344639u, 2997507990u, 3126902040u, 3245723793u, 3354328649u, 3453186769u, 3542846102u,
    3623901930u, 3696972476u, 3762679888u, 3821635867u, 3874431186u, 3921628407u, 3963757156u, 4001311421u,
    4034748382u, 4064488417u, 4090915943u, 4114380849u, 4135200330u, 4153660948u, 4170020831u, 4184511893u,
    4197342033u, 4208697265u, 4218743737u, 4227629635u, 4235486959u, 4242433152u, 4248572607u, 4253998037u,
    4258791717u, 4263026612u, 4266767391u, 4270071344u, 4272989197u, 4275565849u, 4277841028u, 4279849871u,
    4281623453u, 4283189244u, 4284571525u, 4285791754u, 4286868892u, 4287819687u, 4288658936u, 4289399707u,
    4290053542u, 4290630631u, 4291139976u, 4291589521u, 4291986282u, 4292336453u, 4292645502u, 4292918254u,
};

// (a b) / 2^32 of numbers below 2^32.
constexpr uint32_t scaled(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }

// Laplace distributions over -most .. most, whose values below n together have
//   below(n) = G(n - 1/2 - mu) (2^24 - 2 most - 1) / 2^24 + n + most,   in 2^24ths,
// where G is the cumulative distribution from a table of tails.
class Laplaces {
 public:
  // Tails 2^31 exp(-distance / b) of each scale, at sixteenths from zero on, or at halves of odd numbers.
  Laplaces(int count, bool halves) : count_(count), tails_(static_cast<size_t>(kScales) * count) {
    for (int k = 0; k < kScales; ++k) {
      uint32_t decay = kDecay[k], first = 1u << 31;
      if (halves) {  // distances 1/2, 3/2, ...
        for (int i = 0; i < 3; ++i) decay = scaled(decay, decay);
        first = decay >> 1;
        decay = scaled(decay, decay);
      }
      uint32_t* tail = &tails_[static_cast<size_t>(k) * count];
      tail[0] = first;
      for (int j = 1; j < count; ++j) tail[j] = scaled(tail[j - 1], decay);
    }
  }

  // Of integers around zero.
  uint32_t below(int k, int n, int most) const { return cut(n, most, n <= 0 ? tail(k, -n) : kWhole - tail(k, n - 1)); }
  // Of latents around `mu` sixteenths.
  uint32_t below(int k, int mu, int n, int most) const {
    int t = kSteps * n - kSteps / 2 - mu;
    return cut(n, most, t < 0 ? tail(k, -t) : kWhole - tail(k, t));
  }

  // The interval of a value, and the value of a place, with `at(n)` for what is below n.
  template <class Below>
  static Interval interval(int n, Below at) {
    uint32_t begin = at(n);
    return {begin, at(n + 1) - begin};
  }
  template <class Below>
  static int find(uint32_t place, int most, Below at) {
    int lo = -most, hi = most;  // at(lo) <= place < at(hi + 1)
    while (lo < hi) {
      int middle = lo + (hi - lo + 1) / 2;
      if (at(middle) <= place) {
        lo = middle;
      } else {
        hi = middle - 1;
      }
    }
    return lo;
  }

 private:
  uint32_t tail(int k, int j) const { return tails_[static_cast<size_t>(k) * count_ + std::min(j, count_ - 1)] >> 8; }
  static uint32_t cut(int n, int most, uint32_t cumulative) {
    if (n <= -most) return 0;
    if (n > most) return kWhole;
    uint32_t values = 2 * most + 1;
    return static_cast<uint32_t>(static_cast<uint64_t>(cumulative) * (kWhole - values) >> kProbabilityBits) + static_cast<uint32_t>(n + most);
  }
  int count_;
  std::vector<uint32_t> tails_;
};

}  // namespace fieldfit
