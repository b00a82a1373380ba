// Python bindings of the layer of Gaussian neurons.
#include "bindings.h"
#include "rbf.h"

namespace fieldfit {
namespace {

Rbf layer_of(const Mat& centers, const Mat& log_precision, const Mat& weight, const Vec& bias) {
  size_t k = centers.shape(0), d = centers.shape(1), o = weight.shape(0);
  expect(k > 0 && d > 0 && o > 0, "a layer of Gaussian neurons has features, neurons and outputs");
  expect_shape(log_precision, k, d, "log_precision");
  expect_shape(weight, o, k, "weight");
  expect_size(bias.shape(0), o, "bias");
  return {static_cast<int>(d), static_cast<int>(k), static_cast<int>(o), centers.data(), log_precision.data(), weight.data(), bias.data()};
}

}  // namespace

void bind_rbf(nb::module_& m) {
  m.def("rbf_forward", [](const Mat& x, const Mat& centers, const Mat& log_precision, const Mat& weight, const Vec& bias,
                          const Mat& out, Tape* tape) {
    Rbf layer = layer_of(centers, log_precision, weight, bias);
    size_t n = x.shape(0);
    expect_shape(x, n, layer.features, "x");
    expect_shape(out, n, layer.outputs, "out");
    nb::gil_scoped_release release;
    rbf_forward(layer, static_cast<int64_t>(n), x.data(), out.data(), tape);
  }, nb::arg("x"), nb::arg("centers"), nb::arg("log_precision"), nb::arg("weight"), nb::arg("bias"), nb::arg("out"),
     nb::arg("tape").none());
  m.def("rbf_backward", [](const Mat& x, const Mat& centers, const Mat& log_precision, const Mat& weight, const Vec& bias,
                           const Mat& d_out, const std::tuple<Mat, Mat, Mat, Vec>& gradients, const std::optional<Mat>& d_x,
                           const Tape* tape) {
    Rbf layer = layer_of(centers, log_precision, weight, bias);
    size_t n = x.shape(0);
    auto& [d_centers, d_log_precision, d_weight, d_bias] = gradients;
    expect_shape(x, n, layer.features, "x");
    expect_shape(d_out, n, layer.outputs, "d_out");
    if (d_x) expect_shape(*d_x, n, layer.features, "d_x");
    layer_of(d_centers, d_log_precision, d_weight, d_bias);  // of the same form
    expect_shape(d_centers, layer.neurons, layer.features, "d_centers");
    expect_size(d_bias.shape(0), layer.outputs, "d_bias");
    RbfGradients to{d_centers.data(), d_log_precision.data(), d_weight.data(), d_bias.data()};
    nb::gil_scoped_release release;
    rbf_backward(layer, static_cast<int64_t>(n), x.data(), tape, d_out.data(), d_x ? d_x->data() : nullptr, to);
  }, nb::arg("x"), nb::arg("centers"), nb::arg("log_precision"), nb::arg("weight"), nb::arg("bias"), nb::arg("d_out"),
     nb::arg("gradients"), nb::arg("d_x").none(), nb::arg("tape").none());
}

}  // namespace fieldfit
