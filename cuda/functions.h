// Elementary functions on lanes, accurate to a few units in the last place of fp32.
#pragma once
#include "lane.h"

namespace fieldfit {

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
FF_LANE float exp_(float x) { return expf(x); }
FF_LANE float exp_within(float x) { return expf(x); }
FF_LANE float log_(float x) { return logf(x); }
FF_LANE float sin_pi(float x) { return sinpif(x); }
FF_LANE float cos_pi(float x) { return cospif(x); }
#else
// exp(x - n ln(2)), where that lies within ln(2)/2 of 0, by a polynomial of degree 7.
template <class F>
FF_LANE F exp_remainder(F x, F n) {
  F r = fma(n, splat<F>(-0.693359375f), x);
  r = fma(n, splat<F>(2.12194440e-4f), r);
  F p = splat<F>(1.9875691500e-4f);
  p = fma(p, r, splat<F>(1.3981999507e-3f));
  p = fma(p, r, splat<F>(8.3334519073e-3f));
  p = fma(p, r, splat<F>(4.1665795894e-2f));
  p = fma(p, r, splat<F>(1.6666665459e-1f));
  p = fma(p, r, splat<F>(5.0000001201e-1f));
  return fma(p, r * r, r + 1.0f);
}
// exp(x) = 2^n exp(x - n ln(2)); saturates outside [-87, 88] instead of overflowing.
template <class F>
FF_LANE F exp_(F x) {
  x = minimum(maximum(x, splat<F>(-87.0f)), splat<F>(88.0f));
  F n = floor_(fma(x, splat<F>(1.44269504088896341f), splat<F>(0.5f)));
  return exp_remainder(x, n) * bits_to_float((to_int(n) + 127) << 23);
}
// The same of |x| <= 86.5, where n can be added to the remainder's exponent as it is; for inner loops.
template <class F>
FF_LANE F exp_within(F x) {
  F whole = splat<F>(12582912.0f);  // 1.5 * 2^23: adding it rounds, and leaves n in the lowest bits
  F t = fma(x, splat<F>(1.44269504088896341f), whole), n = t - whole;
  return bits_to_float(float_to_bits(exp_remainder(x, n)) + (float_to_bits(t) << 23));
}
// log(x) of a positive normal number: x = 2^n m with m in [0.7, 1.4), and a polynomial of m - 1 (Cephes' logf).
template <class F>
FF_LANE F log_(F x) {
  Int<F> bits = float_to_bits(x);
  Int<F> exponent = (bits >> 23) - 127;
  F m = bits_to_float((bits & 0x7fffff) | 0x3f800000);
  Mask<F> big = m > splat<F>(1.41421356f);
  F n = to_float(exponent) + select(big, splat<F>(1.0f), splat<F>(0.0f));
  F r = select(big, m * splat<F>(0.5f), m) - splat<F>(1.0f);
  F p = splat<F>(7.0376836292e-2f);
  p = fma(p, r, splat<F>(-1.1514610310e-1f));
  p = fma(p, r, splat<F>(1.1676998740e-1f));
  p = fma(p, r, splat<F>(-1.2420140846e-1f));
  p = fma(p, r, splat<F>(1.4249322787e-1f));
  p = fma(p, r, splat<F>(-1.6668057665e-1f));
  p = fma(p, r, splat<F>(2.0000714765e-1f));
  p = fma(p, r, splat<F>(-2.4999993993e-1f));
  p = fma(p, r, splat<F>(3.3333331174e-1f));
  F r2 = r * r;
  F y = fma(p * r, r2, r2 * splat<F>(-0.5f));
  return fma(n, splat<F>(0.693147180559945f), y + r);
}
#endif

// sin(x) with a three-part reduction by pi, good to |x| of some thousands of radians. On a GPU too: the library's
// sinf keeps a stack for arguments that no network has.
template <class F>
FF_LANE F sin_(F x) {
  F n = floor_(fma(x, splat<F>(0.318309886183790672f), splat<F>(0.5f)));
  F r = fma(n, splat<F>(-3.140625f), x);
  r = fma(n, splat<F>(-9.67502593994140625e-4f), r);
  r = fma(n, splat<F>(-1.509957990978376432e-7f), r);
  F r2 = r * r;
  F p = splat<F>(2.6083159809786593541503e-6f);
  p = fma(p, r2, splat<F>(-1.981069071916863322258e-4f));
  p = fma(p, r2, splat<F>(8.33307858556509017944e-3f));
  p = fma(p, r2, splat<F>(-1.66666597127914428711e-1f));
  p = fma(p, r2 * r, r);
  return select((to_int(n) & 1) != 0, -p, p);
}
template <class F>
FF_LANE F cos_(F x) {
  return sin_(x + splat<F>(1.57079632679489662f));
}

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
// sin(pi x): the reduction is exact, however large x is.
template <class F>
FF_LANE F sin_pi(F x) {
  F n = floor_(x + splat<F>(0.5f));
  F s = sin_((x - n) * splat<F>(3.14159265358979324f));
  F half = n * splat<F>(0.5f);
  return select(half != floor_(half), -s, s);
}
template <class F>
FF_LANE F cos_pi(F x) {
  F n = floor_(x + splat<F>(0.5f));
  F c = cos_((x - n) * splat<F>(3.14159265358979324f));
  F half = n * splat<F>(0.5f);
  return select(half != floor_(half), -c, c);
}
#endif

template <class F>
FF_LANE F sigmoid(F x) {
  return reciprocal(splat<F>(1.0f) + exp_(-x));
}

}  // namespace fieldfit
