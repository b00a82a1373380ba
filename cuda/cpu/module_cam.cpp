// Python bindings of perceptrons with coordinate-aware modulation.
#include "bindings.h"
#include "cam.h"

using namespace fieldfit;

namespace {

struct CamSpec {
  MlpSpec mlp;
  Cam cam{};

  CamSpec(const std::vector<int>& dims, int activation, int output_activation, const std::vector<std::tuple<int, bool>>& axes,
          bool each, bool normalised)
      : mlp(dims, activation, output_activation, true, false) {
    expect(dims.size() >= 3, "a modulated perceptron has a hidden layer at least");
    expect(activation == kRelu || activation == kSilu, "a modulated perceptron has relu or silu");
    for (size_t l = 2; l + 1 < dims.size(); ++l) expect(dims[l] == dims[1], "hidden layers are equally wide");
    expect(axes.size() <= kMaxAxes, "a modulation has at most " + std::to_string(kMaxAxes) + " axes");
    double entries = 1;
    for (auto [vertices, wraps] : axes) {
      expect(vertices >= 1, "an axis has a vertex at least");
      cam.axes[cam.n_axes++] = {vertices, wraps};
      entries *= vertices;
    }
    cam.each = each;
    cam.normalised = normalised;
    expect(entries * 2 * (each ? dims[1] : 1) < 2e9, "a modulation grid has fewer than 2e9 values");
  }

  Cam view(const Vec& params, const Vec& grids) const {
    Cam c = cam;
    c.mlp = mlp.view(params);
    expect_size(grids.shape(0), grid_values(c), "grids");
    c.grids = grids.data();
    return c;
  }
  static size_t grid_values(const Cam& c) { return static_cast<size_t>(c.mlp.layers - 1) * c.entries() * 2 * c.channels(); }

  CamInput input(const Mat& x, const Mat& at, const std::optional<Mat>& aux, const std::optional<IntVec>& index) const {
    expect_shape(at, x.shape(0), cam.n_axes, "at");
    return {mlp.input(x, aux, index), at.data()};
  }
  size_t outputs() const { return mlp.mlp.dims[mlp.mlp.layers]; }
};

}  // namespace

namespace fieldfit {

void bind_cam(nb::module_& m) {
  nb::class_<CamSpec>(m, "CamSpec")
      .def(nb::init<const std::vector<int>&, int, int, const std::vector<std::tuple<int, bool>>&, bool, bool>())
      .def("forward",
           [](const CamSpec& spec, const Mat& x, const Mat& at, const Vec& params, const Vec& grids, const std::optional<Mat>& aux,
              const std::optional<IntVec>& index, const Mat& out, Tape* tape) {
             Cam cam = spec.view(params, grids);
             CamInput in = spec.input(x, at, aux, index);
             expect_shape(out, x.shape(0), spec.outputs(), "out");
             nb::gil_scoped_release release;
             cam_forward(cam, in, out.data(), tape);
           },
           nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none())
      .def("backward",
           [](const CamSpec& spec, const Mat& x, const Mat& at, const Vec& params, const Vec& grids, const std::optional<Mat>& aux,
              const std::optional<IntVec>& index, const Mat& d_out, const std::optional<Mat>& d_x, const std::optional<Mat>& d_at,
              const Vec& d_params, const std::optional<Vec>& d_grids, const Tape* tape) {
             Cam cam = spec.view(params, grids);
             CamInput in = spec.input(x, at, aux, index);
             size_t n = x.shape(0);
             expect_shape(d_out, n, spec.outputs(), "d_out");
             if (d_x) expect_shape(*d_x, n, x.shape(1), "d_x");
             if (d_at) expect_shape(*d_at, n, at.shape(1), "d_at");
             expect_size(d_params.shape(0), params.shape(0), "d_params");
             if (d_grids) expect_size(d_grids->shape(0), grids.shape(0), "d_grids");
             CamGradients to{d_x ? d_x->data() : nullptr, d_at ? d_at->data() : nullptr, d_params.data(),
                             d_grids ? d_grids->data() : nullptr};
             nb::gil_scoped_release release;
             cam_backward(cam, in, tape, d_out.data(), to);
           },
           nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none(),
           nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg().none());
}

}  // namespace fieldfit
