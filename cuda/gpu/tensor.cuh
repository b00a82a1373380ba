// Matrix operations of a warp on 16-bit floats with 32-bit sums. Lane 4 g + t holds, of a 16 x 16 left operand, the
// words
//   w[0] = (row g, columns 2t, 2t + 1),  w[1] = (row g + 8, same),  w[2] = (row g, columns 2t + 8, 2t + 9),  w[3] =
//   (row g + 8, same);
// of a 16 x 8 right operand x = (rows 2t, 2t + 1; column g) and y = (rows 2t + 8, 2t + 9; column g); and of a 16 x 8
// sum
//   c[0], c[1] = (row g, columns 2t, 2t + 1),  c[2], c[3] = (row g + 8, same)
// so that two sums, rounded, are the next product's left operand without leaving the lane.
#pragma once
#include "device.cuh"

#if defined(FF_SHIM)
#include "shim/tensor.h"
#endif

namespace fieldfit {

struct Fragment {
  uint32_t w[4];
};

FF_LANE int fragment_row() { return lane_index() >> 2; }
FF_LANE int fragment_column() { return (lane_index() & 3) * 2; }

// Two halves in a word, `low` in the lower; what no half can hold becomes the largest that it can.
FF_LANE uint32_t pack_halves(float low, float high) {
  low = minimum(maximum(low, -65504.0f), 65504.0f);
  high = minimum(maximum(high, -65504.0f), 65504.0f);
#if defined(FF_SHIM)
  return shim::pack_halves(low, high);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  uint32_t word;
  asm("{.reg .b16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h};}"
      : "=r"(word)
      : "f"(low), "f"(high));
  return word;
#endif
}

FF_LANE void unpack_halves(uint32_t word, float& low, float& high) {
#if defined(FF_SHIM)
  shim::unpack_halves(word, low, high);
#else
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}"
      : "=f"(low), "=f"(high)
      : "r"(word));
#endif
}

// c += a b.
FF_LANE void multiply_add(float* c, const Fragment& a, uint2 b) {
#if defined(FF_SHIM)
  shim::multiply_add(c, a.w, b);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.w[0]), "r"(a.w[1]), "r"(a.w[2]), "r"(a.w[3]), "r"(b.x), "r"(b.y));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.w[0]), "r"(a.w[1]), "r"(b.x));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.w[2]), "r"(a.w[3]), "r"(b.y));
#endif
}

// The transpose of an 8 x 8 tile whose lane 4 g + t holds (row g, columns 2t, 2t + 1).
FF_LANE uint32_t transpose_tile(uint32_t word) {
#if defined(FF_SHIM)
  return shim::transpose_tile(word);
#else
  uint32_t turned;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(word));
  return turned;
#endif
}

FF_LANE uint4 transpose_tiles(const Fragment& f) {
  return uint4{transpose_tile(f.w[0]), transpose_tile(f.w[1]), transpose_tile(f.w[2]), transpose_tile(f.w[3])};
}
FF_LANE Fragment transpose_tiles(uint4 f) {
  return Fragment{{transpose_tile(f.x), transpose_tile(f.y), transpose_tile(f.z), transpose_tile(f.w)}};
}

}  // namespace fieldfit
