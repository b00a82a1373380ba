// Python bindings of layers of learned functions.
#include "bindings.h"
#include "kan.h"
#include "../rational.h"

namespace fieldfit {
namespace {

Rational view(const Mat& x, const Vec& numerator, const Mat& denominator) {
  size_t width = x.shape(1), groups = denominator.shape(0);
  expect_size(numerator.shape(0), kNumerator, "numerator");
  expect_shape(denominator, groups, kDenominator, "denominator");
  expect(groups > 0 && width % groups == 0, "groups must divide the width");
  return {static_cast<int64_t>(x.shape(0)), static_cast<int>(width), static_cast<int>(groups), x.data(), numerator.data(), denominator.data()};
}

// kind, functions of an input, place of the first, spacing.
using Form = std::tuple<int, int, float, float>;

BasisLayer view(const Mat& x, const Mat& weight, const Vec& bias, const Form& form, const std::optional<Mat>& knots) {
  auto [kind, count, first, spacing] = form;
  size_t n_in = x.shape(1), n_out = weight.shape(0);
  expect(n_in > 0 && n_out > 0 && count > 0 && spacing > 0, "a layer has inputs, outputs, functions and a spacing");
  expect(kind >= kSplines && kind <= kHats, "a basis of a kind that there is");
  expect(kind != kWaves || count % 2 == 0, "as many sines as cosines");
  Basis basis{kind, count, first, spacing};
  size_t terms = weight.shape(1) / n_in;
  expect_shape(weight, n_out, n_in * terms, "weight");
  expect(terms == static_cast<size_t>(count) || terms == static_cast<size_t>(count) + 1, "an input has its functions, and one term more at most");
  expect_size(bias.shape(0), n_out, "bias");
  expect(knots.has_value() == (basis.knots() > 0), "splines have knots, and nothing else has");
  if (knots) expect_shape(*knots, n_in, static_cast<size_t>(basis.knots()) * kSplineRow, "knots");
  return {static_cast<int64_t>(x.shape(0)), static_cast<int>(n_in), static_cast<int>(n_out), static_cast<int>(terms), basis,
          knots ? knots->data() : nullptr, x.data(), weight.data(), bias.data()};
}

RationalLayer view(const Mat& x, const Vec& numerator, const Mat& denominator, float scale, const Mat& weight, const Vec& bias) {
  size_t n_in = x.shape(1), n_out = weight.shape(0);
  expect(n_in > 0 && n_out > 0, "a layer has inputs and outputs");
  expect_shape(weight, n_out, n_in, "weight");
  expect_size(bias.shape(0), n_out, "bias");
  Rational activation = view(x, numerator, denominator);
  activation.scale = scale;
  return {activation, static_cast<int>(n_out), weight.data(), bias.data()};
}

}  // namespace

void bind_kan(nb::module_& m) {
  m.def("rational_forward", [](const Mat& x, const Vec& numerator, const Mat& denominator, const Mat& out) {
    Rational r = view(x, numerator, denominator);
    expect_shape(out, x.shape(0), x.shape(1), "out");
    nb::gil_scoped_release release;
    rational_forward(r, out.data());
  });
  m.def("rational_backward", [](const Mat& x, const Vec& numerator, const Mat& denominator, const Mat& d_out, const Mat& d_x,
                                const Vec& d_numerator, const Mat& d_denominator) {
    Rational r = view(x, numerator, denominator);
    expect_shape(d_out, x.shape(0), x.shape(1), "d_out");
    expect_shape(d_x, x.shape(0), x.shape(1), "d_x");
    expect_size(d_numerator.shape(0), kNumerator, "d_numerator");
    expect_shape(d_denominator, denominator.shape(0), kDenominator, "d_denominator");
    nb::gil_scoped_release release;
    rational_backward(r, d_out.data(), d_x.data(), d_numerator.data(), d_denominator.data());
  });
  m.def("rational_layer_forward", [](const Mat& x, const Vec& numerator, const Mat& denominator, float scale, const Mat& weight,
                                     const Vec& bias, const Mat& out) {
    RationalLayer l = view(x, numerator, denominator, scale, weight, bias);
    expect_shape(out, x.shape(0), weight.shape(0), "out");
    nb::gil_scoped_release release;
    rational_layer_forward(l, out.data());
  });
  m.def("rational_layer_backward", [](const Mat& x, const Vec& numerator, const Mat& denominator, float scale, const Mat& weight,
                                      const Vec& bias, const Mat& d_out, const std::optional<Mat>& d_x, const Vec& d_numerator,
                                      const Mat& d_denominator, const Mat& d_weight, const Vec& d_bias) {
    RationalLayer l = view(x, numerator, denominator, scale, weight, bias);
    expect_shape(d_out, x.shape(0), weight.shape(0), "d_out");
    if (d_x) expect_shape(*d_x, x.shape(0), x.shape(1), "d_x");
    expect_size(d_numerator.shape(0), kNumerator, "d_numerator");
    expect_shape(d_denominator, denominator.shape(0), kDenominator, "d_denominator");
    expect_shape(d_weight, weight.shape(0), weight.shape(1), "d_weight");
    expect_size(d_bias.shape(0), weight.shape(0), "d_bias");
    nb::gil_scoped_release release;
    rational_layer_backward(l, d_out.data(), {d_x ? d_x->data() : nullptr, d_numerator.data(), d_denominator.data(), d_weight.data(), d_bias.data()});
  }, nb::arg("x"), nb::arg("numerator"), nb::arg("denominator"), nb::arg("scale"), nb::arg("weight"), nb::arg("bias"), nb::arg("d_out"),
     nb::arg("d_x").none(), nb::arg("d_numerator"), nb::arg("d_denominator"), nb::arg("d_weight"), nb::arg("d_bias"));
  m.def("basis_layer_forward", [](const Mat& x, const Mat& weight, const Vec& bias, const Form& form, const std::optional<Mat>& knots, const Mat& out) {
    BasisLayer l = view(x, weight, bias, form, knots);
    expect_shape(out, x.shape(0), weight.shape(0), "out");
    nb::gil_scoped_release release;
    basis_layer_forward(l, out.data());
  }, nb::arg("x"), nb::arg("weight"), nb::arg("bias"), nb::arg("form"), nb::arg("knots").none(), nb::arg("out"));
  m.def("basis_layer_backward", [](const Mat& x, const Mat& weight, const Vec& bias, const Form& form, const std::optional<Mat>& knots,
                                   const Mat& d_out, const std::optional<Mat>& d_x, const Mat& d_weight, const Vec& d_bias) {
    BasisLayer l = view(x, weight, bias, form, knots);
    expect_shape(d_out, x.shape(0), weight.shape(0), "d_out");
    if (d_x) expect_shape(*d_x, x.shape(0), x.shape(1), "d_x");
    expect_shape(d_weight, weight.shape(0), weight.shape(1), "d_weight");
    expect_size(d_bias.shape(0), weight.shape(0), "d_bias");
    nb::gil_scoped_release release;
    basis_layer_backward(l, d_out.data(), d_x ? d_x->data() : nullptr, d_weight.data(), d_bias.data());
  }, nb::arg("x"), nb::arg("weight"), nb::arg("bias"), nb::arg("form"), nb::arg("knots").none(), nb::arg("d_out"), nb::arg("d_x").none(),
     nb::arg("d_weight"), nb::arg("d_bias"));
}

}  // namespace fieldfit
