// Python bindings. Shapes are checked here, once, so that no kernel can read outside its arrays; tensors cross without
// copies, and the interpreter lock is released while a kernel runs.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "pair_product.h"

#if defined(__AMX_BF16__)
#include <cpuid.h>
#endif

namespace nb = nanobind;
using namespace fieldfit;

namespace {

using Vec = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Mat = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using IntVec = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using LongVec = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void expect(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument("fieldfit native core: " + what);
}

void expect_shape(const Mat& m, size_t rows, size_t columns, const char* name) {
  expect(m.shape(0) == rows && m.shape(1) == columns,
         std::string(name) + " must be [" + std::to_string(rows) + ", " + std::to_string(columns) + "], got [" +
             std::to_string(m.shape(0)) + ", " + std::to_string(m.shape(1)) + "]");
}

void expect_size(size_t got, size_t wanted, const char* name) {
  expect(got == wanted, std::string(name) + " must have " + std::to_string(wanted) + " values, got " + std::to_string(got));
}

struct GridSpec {
  int dim, features;
  std::vector<GridLevel> levels;
  size_t entries = 0;

  GridSpec(int dim, int features, const std::vector<std::tuple<uint32_t, uint32_t, uint32_t, float>>& sizes)
      : dim(dim), features(features) {
    expect(dim >= 2 && dim <= 4, "a grid has 2, 3 or 4 dimensions, got " + std::to_string(dim));
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

MarchRule rule_of(const IntVec& occupancy, int resolution, bool contracted, float near, float far, float step, float cone_angle) {
  expect(resolution > 0 && resolution <= 1024, "the occupancy grid has 1 to 1024 cells per axis");
  int64_t cells = static_cast<int64_t>(resolution) * resolution * resolution;
  expect_size(occupancy.shape(0), static_cast<size_t>((cells + 31) / 32), "occupancy");
  expect(step > 0 && far > near && near >= 0 && cone_angle >= 0, "marching needs step > 0, 0 <= near < far, cone_angle >= 0");
  return {reinterpret_cast<const uint32_t*>(occupancy.data()), nullptr, resolution, contracted, near, far, step, cone_angle};
}

RayBatch rays_of(const Mat& origins, const Mat& directions, const std::optional<Vec>& jitter) {
  size_t n = origins.shape(0);
  expect_shape(origins, n, 3, "origins");
  expect_shape(directions, n, 3, "directions");
  if (jitter) expect_size(jitter->shape(0), n, "jitter");
  return {static_cast<int64_t>(n), origins.data(), directions.data(), jitter ? jitter->data() : nullptr};
}

CompositeInput composite_input(const LongVec& offsets, const Vec& sigma, const Mat& rgb, const Vec& t0, const Vec& t1) {
  size_t s = sigma.shape(0);
  expect(offsets.shape(0) >= 1, "offsets has at least one value");
  size_t n = offsets.shape(0) - 1;
  expect_shape(rgb, s, 3, "rgb");
  expect_size(t0.shape(0), s, "t0");
  expect_size(t1.shape(0), s, "t1");
  const int64_t* o = offsets.data();
  bool ordered = o[0] == 0 && o[n] == static_cast<int64_t>(s);
  for (size_t i = 0; i < n; ++i) ordered &= o[i] <= o[i + 1];
  expect(ordered, "offsets must rise from 0 to the number of samples");
  return {static_cast<int64_t>(n), o, sigma.data(), rgb.data(), t0.data(), t1.data()};
}

Rendering rendering(const Mat& rgb, const Vec& opacity, const Vec& depth, size_t n) {
  expect_shape(rgb, n, 3, "rgb of the rays");
  expect_size(opacity.shape(0), n, "opacity");
  expect_size(depth.shape(0), n, "depth");
  return {rgb.data(), opacity.data(), depth.data()};
}

RadianceModel radiance_model(const GridSpec& grid, const Mat& table, const MlpSpec& density, const Vec& density_params,
                             const MlpSpec& color, const Vec& color_params, int harmonics_degree) {
  expect(harmonics_degree >= 1 && harmonics_degree <= 4, "harmonics have degree 1 to 4");
  RadianceModel model{grid.view(table), density.view(density_params), color.view(color_params), harmonics_degree};
  expect(model.density.dims[0] == static_cast<int>(grid.width()), "the density network takes the grid's features");
  expect(model.color.dims[0] == model.density.dims[model.density.layers] + harmonics_degree * harmonics_degree,
         "the colour network takes the latent and the harmonics");
  expect(grid.dim == 3 && model.color.dims[model.color.layers] == 3, "a radiance field maps 3 coordinates to 3 colours");
  return model;
}

template <class T>
using Owned = nb::ndarray<nb::pytorch, T, nb::device::cpu>;

template <class T>
Owned<T> owned(std::vector<T>& values, std::vector<size_t> shape, const nb::capsule& owner) {
  return Owned<T>(values.data(), shape.size(), shape.data(), owner);
}

// Runs a march without the interpreter lock and hands its arrays to torch without copies.
template <class March>
nb::tuple sampled(March march) {
  auto samples = std::make_unique<Samples>();
  {
    nb::gil_scoped_release release;
    *samples = march();
  }
  Samples* s = samples.release();
  nb::capsule owner(s, [](void* p) noexcept { delete static_cast<Samples*>(p); });
  size_t n = s->of.t0.size();
  return nb::make_tuple(owned(s->offsets, {s->offsets.size()}, owner), owned(s->of.t0, {n}, owner),
                        owned(s->of.t1, {n}, owner), owned(s->of.x, {n, 3}, owner), owned(s->ray, {n}, owner));
}

bool supported() {
#if defined(__AMX_BF16__)
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1) || !may_use_tiles()) return false;
#endif
#if defined(__AVX512BF16__)
  if (!__builtin_cpu_supports("avx512bf16")) return false;
#endif
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace

NB_MODULE(FIELDFIT_MODULE, m) {
  nb::set_leak_warnings(false);  // cached descriptions of grids and networks live until the interpreter ends
  m.attr("lanes") = kLanes;

  m.attr("has_bfloat16") = kHasBFloat16;

  nb::class_<Tape>(m, "Tape").def(nb::init<>());

  nb::class_<GridSpec>(m, "GridSpec")
      .def(nb::init<int, int, const std::vector<std::tuple<uint32_t, uint32_t, uint32_t, float>>&>())
      .def("forward",
           [](const GridSpec& spec, const Mat& x, const Mat& table, const Mat& out) {
             size_t n = x.shape(0);
             expect_shape(x, n, spec.dim, "x");
             expect_shape(out, n, spec.width(), "out");
             Grid grid = spec.view(table);
             nb::gil_scoped_release release;
             grid_forward(grid, static_cast<int64_t>(n), x.data(), out.data());
           })
      .def("backward", [](const GridSpec& spec, const Mat& x, const Mat& table, const Mat& d_out,
                          const std::optional<Mat>& d_table, const std::optional<Bytes>& touched,
                          const std::optional<Mat>& d_x) {
        size_t n = x.shape(0);
        expect_shape(x, n, spec.dim, "x");
        expect_shape(d_out, n, spec.width(), "d_out");
        if (d_table) expect_shape(*d_table, spec.entries, spec.features, "d_table");
        if (touched) expect_size(touched->shape(0), spec.entries / kTouchedEntries, "touched");
        if (d_x) expect_shape(*d_x, n, spec.dim, "d_x");
        Grid grid = spec.view(table);
        nb::gil_scoped_release release;
        grid_backward(grid, static_cast<int64_t>(n), x.data(), d_out.data(), d_table ? d_table->data() : nullptr,
                      touched ? touched->data() : nullptr, d_x ? d_x->data() : nullptr);
      }, nb::arg("x"), nb::arg("table"), nb::arg("d_out"), nb::arg("d_table").none(), nb::arg("touched").none(),
         nb::arg("d_x").none());

  nb::class_<MlpSpec>(m, "MlpSpec")
      .def(nb::init<const std::vector<int>&, int, int, bool, bool>())
      .def_ro("size", &MlpSpec::size)
      .def("forward", [](const MlpSpec& spec, const Mat& x, const Vec& params, const std::optional<Mat>& aux,
                         const std::optional<IntVec>& index, const Mat& out, Tape* tape) {
        Mlp mlp = spec.view(params);
        MlpInput in = spec.input(x, aux, index);
        expect_shape(out, x.shape(0), mlp.dims[mlp.layers], "out");
        nb::gil_scoped_release release;
        mlp_forward(mlp, in, out.data(), tape);
      }, nb::arg("x"), nb::arg("params"), nb::arg("aux").none(), nb::arg("index").none(), nb::arg("out"), nb::arg("tape") = nb::none())
      .def("backward", [](const MlpSpec& spec, const Mat& x, const Vec& params, const std::optional<Mat>& aux,
                          const std::optional<IntVec>& index, const Mat& d_out, const std::optional<Mat>& d_x, const Vec& d_params,
                          const Tape* tape) {
        Mlp mlp = spec.view(params);
        MlpInput in = spec.input(x, aux, index);
        expect_shape(d_out, x.shape(0), mlp.dims[mlp.layers], "d_out");
        if (d_x) expect_shape(*d_x, x.shape(0), x.shape(1), "d_x");
        expect_size(d_params.shape(0), spec.size, "d_params");
        nb::gil_scoped_release release;
        mlp_backward(mlp, in, tape, d_out.data(), d_x ? d_x->data() : nullptr, d_params.data());
      }, nb::arg("x"), nb::arg("params"), nb::arg("aux").none(), nb::arg("index").none(), nb::arg("d_out"),
         nb::arg("d_x").none(), nb::arg("d_params"), nb::arg("tape") = nb::none());

  m.def("harmonics", [](int degree, const Mat& d, const Mat& out) {
    expect(degree >= 1 && degree <= 4, "harmonics have degree 1 to 4");
    expect_shape(d, d.shape(0), 3, "directions");
    expect_shape(out, d.shape(0), degree * degree, "out");
    nb::gil_scoped_release release;
    harmonics(degree, static_cast<int64_t>(d.shape(0)), d.data(), out.data());
  });
  m.def("frequency", [](int n_frequencies, const Mat& x, const Mat& out) {
    expect(n_frequencies >= 1 && n_frequencies <= 24, "1 to 24 frequencies");
    expect_shape(out, x.shape(0), x.shape(1) * n_frequencies * 2, "out");
    nb::gil_scoped_release release;
    frequency(static_cast<int>(x.shape(1)), n_frequencies, static_cast<int64_t>(x.shape(0)), x.data(), out.data());
  });
  m.def("frequency_backward", [](int n_frequencies, const Mat& x, const Mat& d_out, const Mat& d_x) {
    expect(n_frequencies >= 1 && n_frequencies <= 24, "1 to 24 frequencies");
    expect_shape(d_out, x.shape(0), x.shape(1) * n_frequencies * 2, "d_out");
    expect_shape(d_x, x.shape(0), x.shape(1), "d_x");
    nb::gil_scoped_release release;
    frequency_backward(static_cast<int>(x.shape(1)), n_frequencies, static_cast<int64_t>(x.shape(0)), x.data(), d_out.data(), d_x.data());
  });

  m.def("march", [](const Mat& origins, const Mat& directions, const std::optional<Vec>& jitter, const IntVec& occupancy,
                    int resolution, bool contracted, float near, float far, float step, float cone_angle, int max_samples) {
    MarchRule rule = rule_of(occupancy, resolution, contracted, near, far, step, cone_angle);
    RayBatch rays = rays_of(origins, directions, jitter);
    return sampled([&] { return march(rays, rule, max_samples); });
  }, nb::arg("origins"), nb::arg("directions"), nb::arg("jitter").none(), nb::arg("occupancy"), nb::arg("resolution"),
     nb::arg("contracted"), nb::arg("near"), nb::arg("far"), nb::arg("step"), nb::arg("cone_angle"), nb::arg("max_samples"));

  m.def("march_visible", [](const GridSpec& grid, const Mat& table, const MlpSpec& density, const Vec& density_params,
                            const Mat& origins, const Mat& directions, const std::optional<Vec>& jitter, const IntVec& occupancy,
                            int resolution, bool contracted, float near, float far, float step, float cone_angle,
                            float min_transmittance) {
    MarchRule rule = rule_of(occupancy, resolution, contracted, near, far, step, cone_angle);
    RayBatch rays = rays_of(origins, directions, jitter);
    Grid view = grid.view(table);
    Mlp mlp = density.view(density_params);
    expect(grid.dim == 3 && mlp.dims[0] == static_cast<int>(grid.width()), "the density network takes the features of a 3-D grid");
    return sampled([&] { return march_visible(view, mlp, rays, rule, min_transmittance); });
  }, nb::arg("grid"), nb::arg("table"), nb::arg("density"), nb::arg("density_params"), nb::arg("origins"), nb::arg("directions"),
     nb::arg("jitter").none(), nb::arg("occupancy"), nb::arg("resolution"), nb::arg("contracted"), nb::arg("near"),
     nb::arg("far"), nb::arg("step"), nb::arg("cone_angle"), nb::arg("min_transmittance"));

  m.def("composite_forward", [](const LongVec& offsets, const Vec& sigma, const Mat& rgb, const Vec& t0, const Vec& t1,
                                const Mat& out_rgb, const Vec& opacity, const Vec& depth) {
    CompositeInput in = composite_input(offsets, sigma, rgb, t0, t1);
    Rendering out = rendering(out_rgb, opacity, depth, static_cast<size_t>(in.n_rays));
    nb::gil_scoped_release release;
    composite_forward(in, out);
  });
  m.def("composite_backward", [](const LongVec& offsets, const Vec& sigma, const Mat& rgb, const Vec& t0, const Vec& t1,
                                 const Mat& out_rgb, const Vec& opacity, const Vec& depth, const Mat& d_rgb, const Vec& d_opacity,
                                 const Vec& d_depth, const Vec& d_sigma, const Mat& d_sample_rgb) {
    CompositeInput in = composite_input(offsets, sigma, rgb, t0, t1);
    size_t n = static_cast<size_t>(in.n_rays);
    Rendering out = rendering(out_rgb, opacity, depth, n);
    rendering(d_rgb, d_opacity, d_depth, n);
    expect_size(d_sigma.shape(0), sigma.shape(0), "d_sigma");
    expect_shape(d_sample_rgb, sigma.shape(0), 3, "d_sample_rgb");
    nb::gil_scoped_release release;
    composite_backward(in, out, d_rgb.data(), d_opacity.data(), d_depth.data(), d_sigma.data(), d_sample_rgb.data());
  });

  m.def("adam", [](const Vec& param, const Vec& grad, const Vec& moment1, const Vec& moment2, float learning_rate, float beta1,
                   float beta2, float eps, float correction1, float correction2, bool skip_zero) {
    size_t n = param.shape(0);
    expect_size(grad.shape(0), n, "grad");
    expect_size(moment1.shape(0), n, "moment1");
    expect_size(moment2.shape(0), n, "moment2");
    AdamRule rule{learning_rate, beta1, beta2, eps, correction1, correction2};
    nb::gil_scoped_release release;
    adam(rule, skip_zero, static_cast<int64_t>(n), param.data(), grad.data(), moment1.data(), moment2.data());
  });

  m.def("adam_touched", [](const Mat& param, const Mat& grad, const Bytes& touched, const Mat& moment1, const Mat& moment2,
                           float learning_rate, float beta1, float beta2, float eps, float correction1, float correction2) {
    size_t n = param.shape(0), features = param.shape(1);
    expect_shape(grad, n, features, "grad");
    expect_shape(moment1, n, features, "moment1");
    expect_shape(moment2, n, features, "moment2");
    expect(n % kTouchedEntries == 0, "a table is a multiple of " + std::to_string(kTouchedEntries) + " entries");
    expect_size(touched.shape(0), n / kTouchedEntries, "touched");
    AdamRule rule{learning_rate, beta1, beta2, eps, correction1, correction2};
    nb::gil_scoped_release release;
    adam_touched(rule, static_cast<int>(features), static_cast<int64_t>(touched.shape(0)), touched.data(), param.data(),
                 grad.data(), moment1.data(), moment2.data());
  });

  nb::class_<RadianceTape>(m, "RadianceTape").def(nb::init<>()).def_ro("n_samples", &RadianceTape::n_samples);

  m.def("render", [](const GridSpec& grid, const Mat& table, const MlpSpec& density, const Vec& density_params, const MlpSpec& color,
                     const Vec& color_params, int harmonics_degree, const Mat& origins, const Mat& directions,
                     const std::optional<Vec>& jitter, const IntVec& occupancy, int resolution, bool contracted, float near,
                     float far, float step, float cone_angle, float min_transmittance, const Mat& rgb, const Vec& opacity,
                     const Vec& depth, RadianceTape* tape) {
    RadianceModel model = radiance_model(grid, table, density, density_params, color, color_params, harmonics_degree);
    MarchRule rule = rule_of(occupancy, resolution, contracted, near, far, step, cone_angle);
    RayBatch rays = rays_of(origins, directions, jitter);
    Rendering out = rendering(rgb, opacity, depth, origins.shape(0));
    nb::gil_scoped_release release;
    return render(model, rays, rule, min_transmittance, out, tape);
  }, nb::arg("grid"), nb::arg("table"), nb::arg("density"), nb::arg("density_params"), nb::arg("color"), nb::arg("color_params"),
     nb::arg("harmonics_degree"), nb::arg("origins"), nb::arg("directions"), nb::arg("jitter").none(), nb::arg("occupancy"),
     nb::arg("resolution"), nb::arg("contracted"), nb::arg("near"), nb::arg("far"), nb::arg("step"), nb::arg("cone_angle"),
     nb::arg("min_transmittance"), nb::arg("rgb"), nb::arg("opacity"), nb::arg("depth"), nb::arg("tape") = nb::none());

  m.def("render_backward", [](const GridSpec& grid, const Mat& table, const MlpSpec& density, const Vec& density_params,
                              const MlpSpec& color, const Vec& color_params, int harmonics_degree, const Mat& directions,
                              RadianceTape& tape, const Mat& rgb, const Vec& opacity, const Vec& depth, const Mat& d_rgb,
                              const Vec& d_opacity, const Vec& d_depth, const Mat& d_table, const std::optional<Bytes>& touched,
                              const Vec& d_density, const Vec& d_color) {
    RadianceModel model = radiance_model(grid, table, density, density_params, color, color_params, harmonics_degree);
    RayBatch rays = rays_of(directions, directions, std::nullopt);
    size_t n = directions.shape(0);
    expect(tape.n_rays == rays.n, "the tape of these rays, which serves one backward pass");
    Rendering out = rendering(rgb, opacity, depth, n), cotangents = rendering(d_rgb, d_opacity, d_depth, n);
    expect_shape(d_table, grid.entries, grid.features, "d_table");
    if (touched) expect_size(touched->shape(0), grid.entries / kTouchedEntries, "touched");
    expect_size(d_density.shape(0), density.size, "d_density");
    expect_size(d_color.shape(0), color.size, "d_color");
    nb::gil_scoped_release release;
    render_backward(model, rays, tape, out, cotangents,
                    {d_table.data(), touched ? touched->data() : nullptr, d_density.data(), d_color.data()});
  }, nb::arg("grid"), nb::arg("table"), nb::arg("density"), nb::arg("density_params"), nb::arg("color"), nb::arg("color_params"),
     nb::arg("harmonics_degree"), nb::arg("directions"), nb::arg("tape"), nb::arg("rgb"), nb::arg("opacity"), nb::arg("depth"),
     nb::arg("d_rgb"), nb::arg("d_opacity"), nb::arg("d_depth"), nb::arg("d_table"), nb::arg("touched").none(),
     nb::arg("d_density"), nb::arg("d_color"));

  m.def("supported", &supported);
}
