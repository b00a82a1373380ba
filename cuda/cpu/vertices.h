// Features of a grid's vertices as short vectors, since scalar addresses are as fast as vector gathers. Two vertices that
// differ along the first axis alone go together: most of their arithmetic is the same.
#pragma once
#include "kernels.h"

namespace fieldfit {

// The features of one vertex.
template <int F>
struct Features {
  typedef float Vector __attribute__((vector_size(F * 4)));
  static FF_LANE Vector load(const float* p) {
    Vector v;
    memcpy(&v, p, sizeof v);
    return v;
  }
  static FF_LANE void store(float* p, Vector v) { memcpy(p, &v, sizeof v); }
  static FF_LANE Vector fma(Vector a, float w, Vector c) {
#if defined(__FMA__)
    if constexpr (F == 4) return (Vector)_mm_fmadd_ps((__m128)a, _mm_set1_ps(w), (__m128)c);
    if constexpr (F == 8) return (Vector)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(w), (__m256)c);
#endif
    return c + a * w;
  }
};
template <>
struct Features<1> {
  using Vector = float;
  static FF_LANE float load(const float* p) { return *p; }
  static FF_LANE void store(float* p, float v) { *p = v; }
  static FF_LANE float fma(float a, float w, float c) { return fieldfit::fma(a, w, c); }
};

// Sums of features over pairs of vertices, those of near and of far vertices apart; or cotangents that each pair shares.
template <int F>
class VertexPair {
 public:
  using Vector = typename Features<F>::Vector;

  // Adds the features of two vertices, which the other axes weigh alike.
  FF_LANE void take(const float* near, const float* far, float weight) {
    near_ = Features<F>::fma(Features<F>::load(near), weight, near_);
    far_ = Features<F>::fma(Features<F>::load(far), weight, far_);
  }
  // What lies between near and far.
  FF_LANE void join(float fraction, float* out) const {
    Features<F>::store(out, Features<F>::fma(far_ - near_, fraction, near_));
  }
  // The inverse: the cotangents of near and far.
  FF_LANE void part(float fraction, const float* d_out) {
    Vector d = Features<F>::load(d_out);
    far_ = d * fraction;
    near_ = d - far_;
  }
  FF_LANE void give(float* near, float* far, float weight) const {
    Features<F>::store(near, Features<F>::fma(near_, weight, Features<F>::load(near)));
    Features<F>::store(far, Features<F>::fma(far_, weight, Features<F>::load(far)));
  }

 private:
  Vector near_{}, far_{};
};

#if defined(__FMA__)
// Half a register each, so that one multiply-add does for both.
template <>
class VertexPair<2> {
 public:
  FF_LANE void take(const float* near, const float* far, float weight) {
    both_ = _mm_fmadd_ps(load(near, far), _mm_set1_ps(weight), both_);
  }
  FF_LANE void join(float fraction, float* out) const {
    __m128 step = _mm_sub_ps(_mm_movehl_ps(both_, both_), both_);
    _mm_storel_pi(reinterpret_cast<__m64*>(out), _mm_fmadd_ps(step, _mm_set1_ps(fraction), both_));
  }
  FF_LANE void part(float fraction, const float* d_out) {
    __m128 d = load(d_out, d_out), far = _mm_mul_ps(d, _mm_set1_ps(fraction));
    both_ = _mm_movelh_ps(_mm_sub_ps(d, far), far);
  }
  FF_LANE void give(float* near, float* far, float weight) const {
    __m128 sum = _mm_fmadd_ps(both_, _mm_set1_ps(weight), load(near, far));
    _mm_storel_pi(reinterpret_cast<__m64*>(near), sum);
    _mm_storeh_pi(reinterpret_cast<__m64*>(far), sum);
  }

 private:
  __m128 both_ = _mm_setzero_ps();

  static FF_LANE __m128 load(const float* near, const float* far) {
    __m128 low = _mm_castpd_ps(_mm_load_sd(reinterpret_cast<const double*>(near)));
    return _mm_loadh_pi(low, reinterpret_cast<const __m64*>(far));
  }
};
#endif

}  // namespace fieldfit
