// Python bindings of the codec.
#include "bindings.h"
#include "codec.h"
#include "codec_integer.h"
#include "codec_motion.h"

namespace fieldfit {
namespace {

using Doubles = Array<double, 1>;
using Cube = Array<float, 3>;
using IntCube = Array<int32_t, 3>;
using Samples16 = Array<uint16_t, 3>;

nb::bytes bytes_of(const std::vector<uint8_t>& v) { return nb::bytes(v.data(), v.size()); }

// Weights of a file's context network, which is checked, and the largest latents of its levels.
struct IntegerContext {
  const int32_t *weights, *most;
  IntegerContext(const CodecShape& shape, const IntVec& context, const IntVec& largest, const IntVec& latents)
      : weights(context.data()), most(largest.data()) {
    expect_size(context.shape(0), shape.context_size(), "context");
    expect_size(largest.shape(0), kLevels, "most");
    expect_size(latents.shape(0), shape.latents(), "latents");
    for (int i = 0; i < kLevels; ++i) expect(most[i] >= 0 && most[i] <= kMostLatent, "latents are at most " + std::to_string(kMostLatent));
    expect(context_fits(weights), "weights of the context network are too large for 32 bits");
  }
};

std::vector<Group> groups_of(const std::vector<std::tuple<int, int, int>>& groups, size_t n) {
  std::vector<Group> of;
  size_t total = 0;
  for (auto [count, scale, most] : groups) {
    expect(count >= 0 && scale >= 0 && scale < kScales && most >= 0 && most <= kMostWeight, "a group of weights is out of range");
    of.push_back({count, scale, most});
    total += count;
  }
  expect_size(n, total, "values");
  return of;
}

void expect_within(const int32_t* values, size_t n, int32_t most) {
  bool bad = false;
  for (size_t i = 0; i < n; ++i) bad |= values[i] < -most || values[i] > most;
  expect(!bad, "a value is larger than the largest");
}

CodecShape shape_of(int height, int width, int channels, int hidden, int known) {
  expect(height > 0 && width > 0 && height <= 65536 && width <= 65536, "an image of the codec has 1 to 65536 rows and columns");
  expect(channels >= 1 && channels <= kMaxChannels, "an image of the codec has 1 to 4 channels");
  expect(hidden >= 1 && hidden <= 256, "the synthesis network has 1 to 256 hidden values");
  expect(known == 0 || known == channels, "what is known of an image is a prediction of each channel, or nothing");
  return {height, width, channels, hidden, known};
}

// What is known [known, height, width], which is checked against the shape.
template <class Array>
auto* known_of(const CodecShape& s, const std::optional<Array>& known) {
  expect(known.has_value() == (s.known > 0), "known planes are missing, or too many");
  if (known) {
    expect(known->shape(0) == static_cast<size_t>(s.known) && known->shape(1) == static_cast<size_t>(s.height) &&
               known->shape(2) == static_cast<size_t>(s.width), "known must be [known, height, width]");
  }
  return known ? known->data() : nullptr;
}

References references_of(const IntCube& first, const std::optional<IntCube>& second) {
  if (second) {
    for (int i = 0; i < 3; ++i) expect(second->shape(i) == first.shape(i), "frames must have one shape");
  }
  return {static_cast<int>(first.shape(1)), static_cast<int>(first.shape(2)), static_cast<int>(first.shape(0)), {first.data(), second ? second->data() : nullptr}};
}

// Blocks [rows, columns, kMotion].
void expect_motion(int rows, int columns, int references, const IntVec& motion) {
  expect_size(motion.shape(0), kMotion * static_cast<size_t>(rows) * columns, "motion");
  for (size_t i = 0; i < motion.shape(0); ++i) {
    int32_t v = motion.data()[i];
    bool fits = i % kMotion ? v >= -kMostMotion && v <= kMostMotion : v >= 0 && v < (references == 2 ? kSources : kSecond);
    expect(fits, "a block moves too far, or comes from no frame");
  }
}

}  // namespace

void bind_codec(nb::module_& m) {
  nb::class_<CodecModel>(m, "CodecModel")
      .def("__init__", [](CodecModel* at, int height, int width, int channels, int hidden, int known) {
        new (at) CodecModel(shape_of(height, width, channels, hidden, known));
      }, nb::arg("height"), nb::arg("width"), nb::arg("channels"), nb::arg("hidden"), nb::arg("known") = 0)
      .def_prop_ro("latents", [](const CodecModel& c) { return c.shape.latents(); })
      .def_prop_ro("context_size", [](const CodecModel& c) { return c.shape.context_size(); })
      .def_prop_ro("synthesis_size", [](const CodecModel& c) { return c.shape.synthesis_size(); })
      .def("rate", [](CodecModel& c, const Vec& latents, const Vec& context, float weight, const Doubles& bits,
                      const std::optional<Vec>& d_latents, const std::optional<Vec>& d_context) {
        expect_size(latents.shape(0), c.shape.latents(), "latents");
        expect_size(context.shape(0), c.shape.context_size(), "context");
        expect_size(bits.shape(0), kLevels, "bits");
        expect(d_latents.has_value() || !d_context.has_value(), "the gradient by weights comes with that by latents");
        if (d_latents) expect_size(d_latents->shape(0), c.shape.latents(), "d_latents");
        if (d_context) expect_size(d_context->shape(0), c.shape.context_size(), "d_context");
        nb::gil_scoped_release release;
        c.rate(latents.data(), context.data(), weight, bits.data(), d_latents ? d_latents->data() : nullptr,
               d_context ? d_context->data() : nullptr);
      }, nb::arg("latents"), nb::arg("context"), nb::arg("weight"), nb::arg("bits"), nb::arg("d_latents").none(),
         nb::arg("d_context").none())
      .def("distortion", [](CodecModel& c, const Vec& latents, const Vec& synthesis, const Cube& target, float weight,
                            const std::optional<Vec>& d_latents, const std::optional<Vec>& d_synthesis, const std::optional<Cube>& known) {
        expect_size(latents.shape(0), c.shape.latents(), "latents");
        expect_size(synthesis.shape(0), c.shape.synthesis_size(), "synthesis");
        expect(target.shape(0) == static_cast<size_t>(c.shape.channels) && target.shape(1) == static_cast<size_t>(c.shape.height) &&
                   target.shape(2) == static_cast<size_t>(c.shape.width), "target must be [channels, height, width]");
        expect(d_latents.has_value() || !d_synthesis.has_value(), "the gradient by weights comes with that by latents");
        if (d_latents) expect_size(d_latents->shape(0), c.shape.latents(), "d_latents");
        if (d_synthesis) expect_size(d_synthesis->shape(0), c.shape.synthesis_size(), "d_synthesis");
        const float* planes = known_of(c.shape, known);
        nb::gil_scoped_release release;
        return c.distortion(latents.data(), synthesis.data(), planes, target.data(), weight, d_latents ? d_latents->data() : nullptr,
                            d_synthesis ? d_synthesis->data() : nullptr);
      }, nb::arg("latents"), nb::arg("synthesis"), nb::arg("target"), nb::arg("weight"), nb::arg("d_latents").none(),
         nb::arg("d_synthesis").none(), nb::arg("known") = nb::none());
  m.def("codec_write_latents", [](int height, int width, const IntVec& context, const IntVec& most, const IntVec& latents) {
    CodecShape shape = shape_of(height, width, 1, 1, 0);
    IntegerContext net(shape, context, most, latents);
    const int32_t* level = latents.data();
    for (int i = 0; i < kLevels; ++i) {
      size_t n = static_cast<size_t>(shape.rows(i)) * shape.columns(i);
      expect_within(level, n, net.most[i]);
      level += n;
    }
    std::vector<uint8_t> out;
    {
      nb::gil_scoped_release release;
      out = write_latents(shape, net.weights, net.most, latents.data());
    }
    return bytes_of(out);
  });
  m.def("codec_read_latents", [](int height, int width, const IntVec& context, const IntVec& most, nb::bytes data, const IntVec& latents) {
    CodecShape shape = shape_of(height, width, 1, 1, 0);
    IntegerContext net(shape, context, most, latents);
    const uint8_t* from = reinterpret_cast<const uint8_t*>(data.c_str());
    size_t size = data.size();
    nb::gil_scoped_release release;
    return read_latents(shape, net.weights, net.most, from, size, latents.data());
  });
  m.def("codec_synthesise", [](int hidden, const IntVec& latents, const IntVec& synthesis, int white, const Samples16& samples,
                               const std::optional<IntCube>& known) {
    int channels = static_cast<int>(samples.shape(2));
    CodecShape shape = shape_of(static_cast<int>(samples.shape(0)), static_cast<int>(samples.shape(1)), channels, hidden, known ? channels : 0);
    const int32_t* planes = known_of(shape, known);
    if (known) {
      bool bad = false;
      for (size_t i = 0; i < known->size(); ++i) bad |= planes[i] < 0 || planes[i] > (16 << kValueBits);
      expect(!bad, "what is known is out of range");
    }
    expect_size(latents.shape(0), shape.latents(), "latents");
    expect_size(synthesis.shape(0), shape.synthesis_size(), "synthesis");
    expect(white >= 1 && white <= 65535, "samples have 1 to 16 bits");
    expect_within(latents.data(), latents.shape(0), kMostLatent);
    expect(synthesis_fits(shape, synthesis.data()), "weights of the synthesis are too large for 32 bits");
    nb::gil_scoped_release release;
    synthesise(shape, latents.data(), synthesis.data(), planes, white, samples.data());
  }, nb::arg("hidden"), nb::arg("latents"), nb::arg("synthesis"), nb::arg("white"), nb::arg("samples"), nb::arg("known") = nb::none());
  m.def("codec_predict", [](const IntCube& first, const std::optional<IntCube>& second, const IntVec& motion, const IntCube& to) {
    References from = references_of(first, second);
    expect_motion(from.block_rows(), from.block_columns(), from.count(), motion);
    references_of(first, to);
    nb::gil_scoped_release release;
    predict(from, motion.data(), to.data());
  }, nb::arg("first"), nb::arg("second").none(), nb::arg("motion"), nb::arg("to"));
  m.def("codec_search_motion", [](const IntCube& first, const std::optional<IntCube>& second, const IntCube& wanted, float weight, const IntVec& motion) {
    References from = references_of(first, second);
    expect_motion(from.block_rows(), from.block_columns(), from.count(), motion);
    references_of(first, wanted);
    expect(weight >= 0 && weight <= 1e30f, "the weight of a bit is a finite number from zero on");
    nb::gil_scoped_release release;
    search_motion(from, wanted.data(), weight, motion.data());
  }, nb::arg("first"), nb::arg("second").none(), nb::arg("wanted"), nb::arg("weight"), nb::arg("motion"));
  m.def("codec_write_motion", [](int rows, int columns, int references, const IntVec& motion) {
    expect_motion(rows, columns, references, motion);
    return bytes_of(write_motion(rows, columns, references, motion.data()));
  });
  m.def("codec_read_motion", [](int rows, int columns, int references, nb::bytes data, const IntVec& motion) {
    expect_size(motion.shape(0), kMotion * static_cast<size_t>(rows) * columns, "motion");
    std::fill_n(motion.data(), motion.shape(0), 0);
    return read_motion(rows, columns, references, reinterpret_cast<const uint8_t*>(data.c_str()), data.size(), motion.data());
  });
  m.def("codec_write_integers", [](const std::vector<std::tuple<int, int, int>>& groups, const IntVec& values) {
    std::vector<Group> of = groups_of(groups, values.shape(0));
    const int32_t* at = values.data();
    for (const Group& g : of) {
      expect_within(at, g.count, g.most);
      at += g.count;
    }
    return bytes_of(write_integers(of, values.data()));
  });
  m.def("codec_read_integers", [](const std::vector<std::tuple<int, int, int>>& groups, nb::bytes data, const IntVec& values) {
    std::vector<Group> of = groups_of(groups, values.shape(0));
    return read_integers(of, reinterpret_cast<const uint8_t*>(data.c_str()), data.size(), values.data());
  });
  m.def("codec_integer_bits", [](const IntVec& values, int most, const Doubles& bits) {
    expect_size(bits.shape(0), kScales, "bits");
    expect(most >= 0 && most <= kMostWeight, "a group of weights is out of range");
    expect_within(values.data(), values.shape(0), most);
    integer_bits(static_cast<int32_t>(values.shape(0)), most, values.data(), bits.data());
  });
  m.def("codec_perturb", [](const Vec& latents, bool round, float temperature, float shape, uint32_t seed, const Vec& out,
                            const Vec& slope) {
    size_t n = latents.shape(0);
    expect_size(out.shape(0), n, "out");
    expect_size(slope.shape(0), n, "slope");
    nb::gil_scoped_release release;
    perturb({round, temperature, shape, seed}, static_cast<int64_t>(n), latents.data(), out.data(), slope.data());
  });
}

}  // namespace fieldfit
