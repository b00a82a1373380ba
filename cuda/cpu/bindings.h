// What the Python bindings share: shapes are checked here, once, so that no kernel can read outside its arrays; tensors cross
// without copies, and the interpreter lock is released while a kernel runs.
#pragma once
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "arrays.h"
#include "kernels.h"

namespace nb = nanobind;

namespace fieldfit {

using Vec = Array<float, 1>;
using Mat = Array<float, 2>;
using IntVec = Array<int32_t, 1>;
using Bytes = Array<uint8_t, 1>;
using LongVec = Array<int64_t, 1>;

inline void expect(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument("fieldfit native core: " + what);
}

inline void expect_shape(const Mat& m, size_t rows, size_t columns, const char* name) {
  expect(m.shape(0) == rows && m.shape(1) == columns,
         std::string(name) + " must be [" + std::to_string(rows) + ", " + std::to_string(columns) + "], got [" +
             std::to_string(m.shape(0)) + ", " + std::to_string(m.shape(1)) + "]");
}

inline void expect_size(size_t got, size_t wanted, const char* name) {
  expect(got == wanted, std::string(name) + " must have " + std::to_string(wanted) + " values, got " + std::to_string(got));
}

struct GridSpec {
  int dim, features;
  std::vector<GridLevel> levels;
  size_t entries = 0;

  GridSpec(int dim, int features, const std::vector<std::tuple<uint32_t, uint32_t, uint32_t, float>>& sizes)
      : dim(dim), features(features) {
    expect(dim >= 1 && dim <= 4, "a grid has 1 to 4 dimensions, got " + std::to_string(dim));
    expect(features == 1 || features == 2 || features == 4 || features == 8,
           "a grid has 1, 2, 4 or 8 features per level, got " + std::to_string(features));
    for (auto [size, resolution, hashed, scale] : sizes) {
      double dense = 1;
      for (int d = 0; d < dim; ++d) dense *= resolution;
      expect(scale >= 0 && scale + 2.0 <= resolution + 0.5, "a level needs scale + 1.5 vertices per axis at least");
      expect(size % kTouchedEntries == 0, "a level's table is a multiple of " + std::to_string(kTouchedEntries) + " entries");
      expect(hashed ? (size > 0 && (size & (size - 1)) == 0) : size >= dense, "a level's table is too small");
      levels.push_back({static_cast<uint32_t>(entries), size, resolution, hashed, scale});
      entries += size;
    }
    expect(entries < (1ull << 32), "a grid has fewer than 2^32 entries");
  }

  Grid view(const Mat& table) const {
    expect_shape(table, entries, features, "table");
    return {dim, features, static_cast<int>(levels.size()), levels.data(), table.data()};
  }
  size_t width() const { return levels.size() * features; }
};

struct MlpSpec {
  Mlp mlp{};
  size_t size = 0;

  MlpSpec(const std::vector<int>& dims, int activation, int output_activation, bool bias, bool bfloat16) {
    expect(dims.size() >= 2 && dims.size() <= kMaxLayers + 1, "a perceptron has 1 to " + std::to_string(kMaxLayers) + " layers");
    mlp.layers = static_cast<int>(dims.size()) - 1;
    mlp.activation = activation;
    mlp.output_activation = output_activation;
    mlp.bias = bias;
    mlp.bfloat16 = bfloat16;
    for (size_t i = 0; i < dims.size(); ++i) {
      expect(dims[i] > 0, "a layer has at least one value");
      mlp.dims[i] = dims[i];
      if (i > 0) size += static_cast<size_t>(dims[i]) * (dims[i - 1] + (bias ? 1 : 0));
    }
  }

  Mlp view(const Vec& params) const {
    expect_size(params.shape(0), size, "params");
    Mlp m = mlp;
    m.params = params.data();
    return m;
  }
  MlpInput input(const Mat& x, const std::optional<Mat>& aux, const std::optional<IntVec>& index) const {
    MlpInput in{static_cast<int64_t>(x.shape(0)), x.data(), static_cast<int>(x.shape(1)), nullptr, nullptr, 0};
    if (aux) {
      in.aux = aux->data();
      in.aux_dim = static_cast<int>(aux->shape(1));
      if (index) {
        expect_size(index->shape(0), x.shape(0), "index");
        int32_t rows = static_cast<int32_t>(aux->shape(0));
        uint32_t bad = 0;
        for (size_t i = 0; i < index->shape(0); ++i) bad |= static_cast<uint32_t>(index->data()[i]) >= static_cast<uint32_t>(rows);
        expect(!bad, "index points outside of aux");
        in.index = index->data();
      } else {
        expect_size(aux->shape(0), x.shape(0), "aux");
      }
    }
    expect(in.x_dim + in.aux_dim == mlp.dims[0],
           "the perceptron takes " + std::to_string(mlp.dims[0]) + " values, got " + std::to_string(in.x_dim + in.aux_dim));
    return in;
  }
};

void bind_cam(nb::module_& m);
void bind_codec(nb::module_& m);
void bind_rendering(nb::module_& m);
void bind_kan(nb::module_& m);
void bind_rbf(nb::module_& m);

}  // namespace fieldfit
