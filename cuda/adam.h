// One step of Adam (Kingma & Ba 2015) on one parameter.
#pragma once
#include "lane.h"

namespace fieldfit {

struct AdamRule {
  float learning_rate, beta1, beta2, eps;
  float correction1, correction2;  // 1 - beta^step
};

template <class F>
FF_LANE void adam_step(const AdamRule& rule, F g, F& param, F& m, F& v) {
  m = fma(splat<F>(rule.beta1), m, splat<F>(1.0f - rule.beta1) * g);
  v = fma(splat<F>(rule.beta2), v, splat<F>(1.0f - rule.beta2) * g * g);
  F scale = sqrt_(v / splat<F>(rule.correction2)) + splat<F>(rule.eps);
  param = param - splat<F>(rule.learning_rate / rule.correction1) * m / scale;
}

}  // namespace fieldfit
