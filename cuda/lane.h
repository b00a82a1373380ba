// The lane vocabulary: the same device functions run with one value per lane on a GPU and with W values per vector on a CPU.
//
// A function is a template over `F`, the lane's float type: `float` on CUDA (a lane is a thread) and in scalar CPU code,
// or `FloatV`, a vector of `kLanes` floats, in CPU code. `Int<F>`, `UInt<F>` and `Mask<F>` are the matching types.
// Multiply-adds contract only where `fma` is written: the build forbids contraction elsewhere.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define FF_LANE __device__ __forceinline__
#else
#if defined(FF_SHIM)  // kernels as host programs for tests, compiled for checks and not for speed
#define FF_LANE inline
#else
#define FF_LANE inline __attribute__((always_inline))
#endif
#include <math.h>
#include <string.h>
#endif

#if !defined(__CUDACC_RTC__)
#include <stdint.h>
#else  // NVRTC has no standard headers
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned long long uintptr_t;
#endif

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__) && (defined(__AVX2__) || defined(__AVX512F__))
#include <immintrin.h>
#elif !defined(__CUDACC__) && !defined(__CUDACC_RTC__) && defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fieldfit {

template <class F>
struct LaneTypes;
template <>
struct LaneTypes<float> {
  using Int = int32_t;
  using UInt = uint32_t;
  using Mask = bool;
};
template <class F>
using Int = typename LaneTypes<F>::Int;
template <class F>
using UInt = typename LaneTypes<F>::UInt;
template <class F>
using Mask = typename LaneTypes<F>::Mask;

// One value, the same in every lane.
template <class F>
FF_LANE F splat(float x);
template <>
FF_LANE float splat<float>(float x) {
  return x;
}

FF_LANE bool any(bool m) { return m; }
FF_LANE float select(bool m, float a, float b) { return m ? a : b; }
FF_LANE uint32_t select(bool m, uint32_t a, uint32_t b) { return m ? a : b; }
FF_LANE int32_t select(bool m, int32_t a, int32_t b) { return m ? a : b; }
FF_LANE float fma(float a, float b, float c) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
FF_LANE float minimum(float a, float b) { return a < b ? a : b; }
FF_LANE float maximum(float a, float b) { return a > b ? a : b; }
FF_LANE float floor_(float x) { return floorf(x); }
FF_LANE float sqrt_(float x) { return sqrtf(x); }
FF_LANE float reciprocal(float x) { return 1.0f / x; }
FF_LANE float abs_(float x) { return fabsf(x); }
FF_LANE int32_t to_int(float x) { return static_cast<int32_t>(x); }
FF_LANE uint32_t to_uint(float x) { return static_cast<uint32_t>(static_cast<int32_t>(x)); }
FF_LANE float to_float(int32_t x) { return static_cast<float>(x); }
FF_LANE float bits_to_float(int32_t x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
  return __int_as_float(x);
#else
  float f;
  memcpy(&f, &x, 4);
  return f;
#endif
}
FF_LANE int32_t float_to_bits(float x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
  return __float_as_int(x);
#else
  int32_t i;
  memcpy(&i, &x, 4);
  return i;
#endif
}
FF_LANE float gather(const float* p, uint32_t i) { return p[i]; }
FF_LANE uint32_t gather(const uint32_t* p, uint32_t i) { return p[i]; }
FF_LANE int32_t gather(const uint8_t* p, uint32_t i) { return p[i]; }

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float FloatV __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntV __attribute__((vector_size(kLanes * 4)));
typedef uint32_t UIntV __attribute__((vector_size(kLanes * 4)));

template <>
struct LaneTypes<FloatV> {
  using Int = IntV;
  using UInt = UIntV;
  using Mask = IntV;  // all bits set where true
};

template <>
FF_LANE FloatV splat<FloatV>(float x) {
#if defined(__AVX512F__)
  return (FloatV)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (FloatV)_mm256_set1_ps(x);
#elif defined(__SSE2__)
  return (FloatV)_mm_set1_ps(x);
#else
  FloatV v;
  for (int l = 0; l < kLanes; ++l) v[l] = x;
  return v;
#endif
}
FF_LANE FloatV load(const float* p) {
  FloatV v;
  memcpy(&v, p, sizeof v);
  return v;
}
FF_LANE UIntV load(const uint32_t* p) {
  UIntV v;
  memcpy(&v, p, sizeof v);
  return v;
}
FF_LANE IntV load(const int32_t* p) {
  IntV v;
  memcpy(&v, p, sizeof v);
  return v;
}
FF_LANE void store(float* p, FloatV v) { memcpy(p, &v, sizeof v); }
FF_LANE void store(uint32_t* p, UIntV v) { memcpy(p, &v, sizeof v); }
FF_LANE void store(int32_t* p, IntV v) { memcpy(p, &v, sizeof v); }

FF_LANE FloatV select(IntV m, FloatV a, FloatV b) { return m ? a : b; }
FF_LANE UIntV select(IntV m, UIntV a, UIntV b) { return m ? a : b; }
FF_LANE IntV select(IntV m, IntV a, IntV b) { return m ? a : b; }
#if defined(__AVX512F__)
FF_LANE FloatV minimum(FloatV a, FloatV b) { return (FloatV)_mm512_min_ps((__m512)a, (__m512)b); }
FF_LANE FloatV maximum(FloatV a, FloatV b) { return (FloatV)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
FF_LANE FloatV minimum(FloatV a, FloatV b) { return (FloatV)_mm256_min_ps((__m256)a, (__m256)b); }
FF_LANE FloatV maximum(FloatV a, FloatV b) { return (FloatV)_mm256_max_ps((__m256)a, (__m256)b); }
#else
FF_LANE FloatV minimum(FloatV a, FloatV b) { return a < b ? a : b; }
FF_LANE FloatV maximum(FloatV a, FloatV b) { return a > b ? a : b; }
#endif
FF_LANE IntV to_int(FloatV x) { return __builtin_convertvector(x, IntV); }
FF_LANE UIntV to_uint(FloatV x) { return (UIntV)__builtin_convertvector(x, IntV); }
FF_LANE FloatV to_float(IntV x) { return __builtin_convertvector(x, FloatV); }
FF_LANE FloatV bits_to_float(IntV x) { return (FloatV)x; }
FF_LANE IntV float_to_bits(FloatV x) { return (IntV)x; }
FF_LANE FloatV abs_(FloatV x) { return (FloatV)((UIntV)x & 0x7fffffffu); }
FF_LANE FloatV gather(const float* p, UIntV i) {
  FloatV v;
  for (int l = 0; l < kLanes; ++l) v[l] = p[i[l]];
  return v;
}
FF_LANE UIntV gather(const uint32_t* p, UIntV i) {
#if defined(__AVX512F__)
  return (UIntV)_mm512_i32gather_epi32((__m512i)i, p, 4);
#elif defined(__AVX2__)
  return (UIntV)_mm256_i32gather_epi32(reinterpret_cast<const int*>(p), (__m256i)i, 4);
#endif
  UIntV v;
  for (int l = 0; l < kLanes; ++l) v[l] = p[i[l]];
  return v;
}

FF_LANE IntV gather(const uint8_t* p, UIntV i) {
  IntV v;
  for (int l = 0; l < kLanes; ++l) v[l] = p[i[l]];
  return v;
}

// Bit l is set where lane l of the mask is true.
FF_LANE uint32_t mask_bits(IntV m) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)m);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)m));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps((__m128)m));
#else
  uint32_t bits = 0;
  for (int l = 0; l < kLanes; ++l) bits |= (m[l] < 0 ? 1u : 0u) << l;
  return bits;
#endif
}
FF_LANE bool any(IntV m) { return mask_bits(m) != 0; }

// The lanes whose bit is set, side by side at p, where a whole vector may be written.
FF_LANE void store_some(float* p, uint32_t bits, FloatV v) {
#if defined(__AVX512F__)
  store(p, (FloatV)_mm512_maskz_compress_ps(static_cast<__mmask16>(bits), (__m512)v));
#else
  for (; bits; bits &= bits - 1) *p++ = v[__builtin_ctz(bits)];
#endif
}

#if defined(__AVX512F__)
FF_LANE FloatV fma(FloatV a, FloatV b, FloatV c) { return (FloatV)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
FF_LANE FloatV floor_(FloatV x) { return (FloatV)_mm512_floor_ps((__m512)x); }
FF_LANE FloatV sqrt_(FloatV x) { return (FloatV)_mm512_sqrt_ps((__m512)x); }
// To the last place but one, for normal numbers with a normal reciprocal, and without a division.
FF_LANE FloatV reciprocal(FloatV x) {
  FloatV r = (FloatV)_mm512_rcp14_ps((__m512)x);
  return fma(r, (FloatV)_mm512_fnmadd_ps((__m512)x, (__m512)r, _mm512_set1_ps(1.0f)), r);
}
#elif defined(__AVX2__)
FF_LANE FloatV fma(FloatV a, FloatV b, FloatV c) { return (FloatV)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
FF_LANE FloatV floor_(FloatV x) { return (FloatV)_mm256_floor_ps((__m256)x); }
FF_LANE FloatV sqrt_(FloatV x) { return (FloatV)_mm256_sqrt_ps((__m256)x); }
#else
FF_LANE FloatV fma(FloatV a, FloatV b, FloatV c) {
#if defined(__ARM_FEATURE_FMA)
  FloatV r;
  for (int l = 0; l < kLanes; ++l) r[l] = fmaf(a[l], b[l], c[l]);
  return r;
#else
  return a * b + c;
#endif
}
// Exact for |x| < 2^31, which is all that grids and phases need.
FF_LANE FloatV floor_(FloatV x) {
  FloatV t = to_float(to_int(x));
  return t - select(t > x, splat<FloatV>(1.0f), FloatV{});
}
FF_LANE FloatV sqrt_(FloatV x) {
#if defined(__SSE2__)
  return (FloatV)_mm_sqrt_ps((__m128)x);
#else
  FloatV r;
  for (int l = 0; l < kLanes; ++l) r[l] = sqrtf(x[l]);
  return r;
#endif
}
#endif
#if !defined(__AVX512F__)
FF_LANE FloatV reciprocal(FloatV x) { return 1.0f / x; }
#endif

FF_LANE float sum(FloatV v) {
  float s = 0;
  for (int l = 0; l < kLanes; ++l) s += v[l];
  return s;
}

#endif  // not CUDA

}  // namespace fieldfit
