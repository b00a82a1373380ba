// Real spherical harmonics of a unit direction, up to degree 4 (16 values), in the usual order: l = 0, then m = -l .. l.
#pragma once
#include "lane.h"

namespace fieldfit {

template <class F>
FF_LANE void harmonics_of(int degree, F x, F y, F z, F* out) {
  auto c = [](float v) { return splat<F>(v); };
  out[0] = c(0.28209479177387814f);
  if (degree <= 1) return;
  out[1] = c(-0.48860251190291987f) * y;
  out[2] = c(0.48860251190291987f) * z;
  out[3] = c(-0.48860251190291987f) * x;
  if (degree <= 2) return;
  F xx = x * x, yy = y * y, zz = z * z;
  out[4] = c(1.0925484305920792f) * x * y;
  out[5] = c(-1.0925484305920792f) * y * z;
  out[6] = fma(c(0.94617469575755997f), zz, c(-0.31539156525251999f));
  out[7] = c(-1.0925484305920792f) * x * z;
  out[8] = c(0.54627421529603959f) * (xx - yy);
  if (degree <= 3) return;
  out[9] = c(0.59004358992664352f) * y * (yy - c(3.0f) * xx);
  out[10] = c(2.8906114426405538f) * x * y * z;
  out[11] = c(0.45704579946446572f) * y * (c(1.0f) - c(5.0f) * zz);
  out[12] = c(0.3731763325901154f) * z * (c(5.0f) * zz - c(3.0f));
  out[13] = c(0.45704579946446572f) * x * (c(1.0f) - c(5.0f) * zz);
  out[14] = c(1.4453057213202769f) * z * (xx - yy);
  out[15] = c(0.59004358992664352f) * x * (c(3.0f) * yy - xx);
}

}  // namespace fieldfit
