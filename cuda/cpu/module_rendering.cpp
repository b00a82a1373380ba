// Python bindings of marching, occupancy, compositing and rendering.
#include "bindings.h"
#include "front.h"

namespace fieldfit {
namespace {

MarchRule rule_of(const IntVec& occupancy, int resolution, bool contracted, float near, float far, float step, float cone_angle) {
  expect(resolution > 0 && resolution <= 1024, "the occupancy grid has 1 to 1024 cells per axis");
  int64_t cells = static_cast<int64_t>(resolution) * resolution * resolution;
  expect_size(occupancy.shape(0), static_cast<size_t>((cells + 31) / 32), "occupancy");
  expect(step > 0 && far > near && near >= 0 && cone_angle >= 0, "marching needs step > 0, 0 <= near < far, cone_angle >= 0");
  return {reinterpret_cast<const uint32_t*>(occupancy.data()), nullptr, resolution, contracted, near, far, step, cone_angle, log_(1.0f + cone_angle)};
}

RayBatch rays_of(const Mat& origins, const Mat& directions, const std::optional<Vec>& jitter) {
  size_t n = origins.shape(0);
  expect_shape(origins, n, 3, "origins");
  expect_shape(directions, n, 3, "directions");
  if (jitter) expect_size(jitter->shape(0), n, "jitter");
  return {static_cast<int64_t>(n), origins.data(), directions.data(), jitter ? jitter->data() : nullptr};
}

void expect_offsets(const LongVec& offsets, size_t samples) {
  expect(offsets.shape(0) >= 1, "offsets has at least one value");
  size_t n = offsets.shape(0) - 1;
  const int64_t* o = offsets.data();
  bool ordered = o[0] == 0 && o[n] == static_cast<int64_t>(samples);
  for (size_t i = 0; i < n; ++i) ordered &= o[i] <= o[i + 1];
  expect(ordered, "offsets must rise from 0 to the number of samples");
}

CompositeInput composite_input(const LongVec& offsets, const Vec& sigma, const Mat& rgb, const Vec& t0, const Vec& t1) {
  size_t s = sigma.shape(0);
  expect_offsets(offsets, s);
  expect_shape(rgb, s, 3, "rgb");
  expect_size(t0.shape(0), s, "t0");
  expect_size(t1.shape(0), s, "t1");
  return {static_cast<int64_t>(offsets.shape(0)) - 1, offsets.data(), sigma.data(), rgb.data(), t0.data(), t1.data()};
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

// Hands a vector to torch without a copy.
template <class T>
nb::object given(std::vector<T> values, std::vector<size_t> shape) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::cast(owned(*kept, std::move(shape), owner));
}

nb::tuple given(Samples samples) {
  auto* s = new Samples(std::move(samples));
  nb::capsule owner(s, [](void* p) noexcept { delete static_cast<Samples*>(p); });
  size_t n = s->of.t0.size();
  return nb::make_tuple(owned(s->offsets, {s->offsets.size()}, owner), owned(s->of.t0, {n}, owner),
                        owned(s->of.t1, {n}, owner), owned(s->of.x, {n, 3}, owner), owned(s->ray, {n}, owner));
}

// Runs a march without the interpreter lock.
template <class March>
decltype(auto) unlocked(March march) {
  nb::gil_scoped_release release;
  return march();
}

// A front as Python follows it: samples as (x [n, 3], ray [n]).
class FrontOf {
 public:
  FrontOf(const Mat& origins, const Mat& directions, const std::optional<Vec>& jitter, const IntVec& occupancy, int resolution,
          bool contracted, float near, float far, float step, float cone_angle, int max_samples, float most_depth, int at_once) {
    MarchRule rule = rule_of(occupancy, resolution, contracted, near, far, step, cone_angle);
    RayBatch rays = rays_of(origins, directions, jitter);
    expect(at_once > 0 && max_samples > 0, "some samples are looked at");
    nb::gil_scoped_release release;
    front_.emplace(rays, rule, max_samples, most_depth, at_once);
  }

  nb::tuple next() {
    expect(!asked_, "what was asked for is absorbed first");
    const Front::Round& round = unlocked([&]() -> const Front::Round& { return front_->next(); });
    asked_ = round.ray.size();
    return nb::make_tuple(given(round.samples.x, {asked_, 3}), given(round.ray, {asked_}));
  }
  void absorb(const Vec& sigma) {
    expect_size(sigma.shape(0), asked_, "sigma");
    asked_ = 0;
    nb::gil_scoped_release release;
    front_->absorb(sigma.data());
  }
  nb::tuple seen() const {
    Front::Seen found = unlocked([&] { return front_->seen(); });
    size_t n = found.row.size();
    return nb::make_tuple(given(std::move(found.samples)), given(std::move(found.row), {n}));
  }

 private:
  std::optional<Front> front_;
  size_t asked_ = 0;
};

}  // namespace

void bind_rendering(nb::module_& m) {
  m.def("march", [](const Mat& origins, const Mat& directions, const std::optional<Vec>& jitter, const IntVec& occupancy,
                    int resolution, bool contracted, float near, float far, float step, float cone_angle, int max_samples) {
    MarchRule rule = rule_of(occupancy, resolution, contracted, near, far, step, cone_angle);
    RayBatch rays = rays_of(origins, directions, jitter);
    return given(unlocked([&] { return march(rays, rule, max_samples); }));
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
    return given(unlocked([&] { return march_visible(view, mlp, rays, rule, min_transmittance); }));
  }, nb::arg("grid"), nb::arg("table"), nb::arg("density"), nb::arg("density_params"), nb::arg("origins"), nb::arg("directions"),
     nb::arg("jitter").none(), nb::arg("occupancy"), nb::arg("resolution"), nb::arg("contracted"), nb::arg("near"),
     nb::arg("far"), nb::arg("step"), nb::arg("cone_angle"), nb::arg("min_transmittance"));

  nb::class_<FrontOf>(m, "Front")
      .def(nb::init<const Mat&, const Mat&, const std::optional<Vec>&, const IntVec&, int, bool, float, float, float, float, int, float, int>(),
           nb::arg("origins"), nb::arg("directions"), nb::arg("jitter").none(), nb::arg("occupancy"), nb::arg("resolution"),
           nb::arg("contracted"), nb::arg("near"), nb::arg("far"), nb::arg("step"), nb::arg("cone_angle"), nb::arg("max_samples"),
           nb::arg("most_depth"), nb::arg("at_once"), nb::keep_alive<1, 5>())  // the occupancy is read later
      .def("next", &FrontOf::next)
      .def("absorb", &FrontOf::absorb, nb::arg("sigma"))
      .def("seen", &FrontOf::seen);

  m.def("set_bits", [](const IntVec& words) {
    std::vector<int64_t> found = set_bits(reinterpret_cast<const uint32_t*>(words.data()), static_cast<int64_t>(words.shape(0)));
    size_t n = found.size();
    return given(std::move(found), {n});
  });
  m.def("visit_cells", [](const LongVec& cells, const Vec& found, float decay, float threshold, const IntVec& allowed,
                          const Vec& density, const IntVec& bits) {
    int64_t n = static_cast<int64_t>(density.shape(0));
    expect_size(found.shape(0), cells.shape(0), "found");
    expect_size(allowed.shape(0), static_cast<size_t>((n + 31) / 32), "allowed");
    expect_size(bits.shape(0), static_cast<size_t>((n + 31) / 32), "bits");
    bool inside = true;
    for (size_t i = 0; i < cells.shape(0); ++i) inside &= static_cast<uint64_t>(cells.data()[i]) < static_cast<uint64_t>(n);
    expect(inside, "cells lie in the grid");
    CellVisits visits{static_cast<int64_t>(cells.shape(0)), cells.data(), found.data(), decay};
    nb::gil_scoped_release release;
    visit_cells(visits, threshold, reinterpret_cast<const uint32_t*>(allowed.data()), n, density.data(),
                reinterpret_cast<uint32_t*>(bits.data()));
  });

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

  nb::class_<RadianceTape>(m, "RadianceTape")
      .def(nb::init<>())
      .def_ro("n_samples", &RadianceTape::n_samples)
      .def("stages", [](const RadianceTape& tape) {  // milliseconds
        const char* names[kStages] = {"march", "grid", "networks", "composite"};
        nb::dict found;
        for (const auto& [pass, seconds] : {std::pair{"forward", tape.forward}, std::pair{"backward", tape.backward}}) {
          for (int s = 0; s < kStages; ++s) {
            if (seconds.of[s] > 0) found[(std::string(pass) + ": " + names[s]).c_str()] = seconds.of[s] * 1e3;
          }
        }
        return found;
      });

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
}

}  // namespace fieldfit
