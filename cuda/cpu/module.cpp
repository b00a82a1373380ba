// Python bindings of grids, perceptrons, encodings and the optimiser, and what the module says of itself.
#include "bindings.h"
#include "pair_product.h"
#include "processor.h"

using namespace fieldfit;

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

  bind_cam(m);
  bind_codec(m);
  bind_rendering(m);
  bind_kan(m);
  bind_rbf(m);
  m.def("processor_runs", &processor_runs);
}
