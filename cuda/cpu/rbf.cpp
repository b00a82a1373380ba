// A layer of Gaussian neurons in feature space, forward and backward, over tiles of samples that stay in the cache.
//
// Squared distances in the expanded form are a product: with z = [x, x^2], half the distance is z B + a row, where column k
// of B holds -P c / D and P / 2D, P = exp(b). Its gradients are products too, of z with the cotangents of the distances.
#include "rbf.h"

#include "../rbf.h"
#include "mlp_tile.h"
#include "threads.h"

namespace fieldfit {
namespace {

float clamped(float x, float most) { return std::min(std::max(x, -most), most); }

// The parameters in the orders that products read, shared by threads.
struct PackedRbf {
  const Rbf layer;
  int width;        // of z, padded
  int pad_neurons;
  int pad_outputs;
  std::vector<float> precision;  // [K, D] P / 2D

  explicit PackedRbf(const Rbf& r) : layer(r), width(padded(2 * r.features)), pad_neurons(padded(r.neurons)), pad_outputs(padded(r.outputs)) {
    size_t d = r.features, k = r.neurons, o = r.outputs;
    size_t rows = std::max<size_t>(o, 4);  // narrow products read four
    storage_ = Aligned(sizeof(float) * (2 * d * pad_neurons + k * width + pad_neurons + rows * pad_neurons + k * pad_outputs));
    forward = reinterpret_cast<float*>(storage_.data());
    backward = forward + 2 * d * pad_neurons;
    constant = backward + k * width;
    weight = constant + pad_neurons;
    weight_columns = weight + rows * pad_neurons;
    precision.resize(k * d);
    for (size_t i = 0; i < k; ++i) {
      for (size_t j = 0; j < d; ++j) {
        float c = r.centers[i * d + j];
        float p = std::exp(clamped(r.log_precision[i * d + j], kMostLogPrecision)) / (2 * static_cast<float>(d));
        precision[i * d + j] = p;
        forward[j * pad_neurons + i] = backward[i * width + j] = -2 * p * c;
        forward[(d + j) * pad_neurons + i] = backward[i * width + d + j] = p;
        constant[i] += p * c * c;
      }
      for (size_t j = 0; j < o; ++j) weight[j * pad_neurons + i] = weight_columns[i * pad_outputs + j] = r.weight[j * k + i];
    }
  }

  size_t kept_bytes() const { return sizeof(float) * kTile * pad_neurons; }

  float* forward;         // [2D, pad(K)]
  float* backward;        // [K, pad(2D)]
  float* constant;        // [pad(K)]
  float* weight;          // [max(O, 4), pad(K)]
  float* weight_columns;  // [K, pad(O)]

 private:
  Aligned storage_{0};
};

// What one thread has added up.
struct Sums {
  std::vector<float> distance;  // [K to 4, pad(2D)] of cotangents times z
  std::vector<float> total;     // [pad(K)] of cotangents
  std::vector<float> weight;    // [O to 4, pad(K)]
  std::vector<float> bias;      // [O]

  explicit Sums(const PackedRbf& p)
      : distance(static_cast<size_t>((p.layer.neurons + 3) / 4 * 4) * p.width),
        total(p.pad_neurons),
        weight(static_cast<size_t>((p.layer.outputs + 3) / 4 * 4) * p.pad_neurons),
        bias(p.layer.outputs) {}
};

// The scratch of one thread.
class RbfTile {
 public:
  explicit RbfTile(const PackedRbf& packed)
      : p_(packed), memory_(sizeof(float) * kTile * (2 * static_cast<size_t>(p_.width) + 2 * p_.pad_neurons + p_.pad_outputs)) {
    z_ = reinterpret_cast<float*>(memory_.data());
    d_z_ = z_ + kTile * p_.width;
    own_ = d_z_ + kTile * p_.width;
    g_ = own_ + kTile * p_.pad_neurons;
    y_ = g_ + kTile * p_.pad_neurons;
  }

  void read(const float* x, int n) {
    int d = p_.layer.features;
    for (int i = 0; i < n; ++i) {
      float* row = z_ + static_cast<size_t>(i) * p_.width;
      for (int j = 0; j < d; ++j) {
        float f = clamped(x[static_cast<size_t>(i) * d + j], kMostFeature);
        row[j] = f;
        row[d + j] = f * f;
      }
    }
  }

  // phi of what was read, into `kept` or here.
  const float* neurons(int n, float* kept) {
    float* phi = kept ? kept : own_;
    Product of{z_, p_.width, 1, p_.forward, p_.pad_neurons, phi, p_.pad_neurons, 2 * p_.layer.features, p_.constant};
    product<Start::kRow, End::kStore>(of, round_rows(n), p_.pad_neurons);
    for (int64_t i = 0; i < static_cast<int64_t>(n) * p_.pad_neurons; i += kLanes) store(phi + i, rbf(load(phi + i)));
    return phi;
  }

  void outputs(const float* phi, int n, float* out) {
    int rows = round_rows(n), o = p_.layer.outputs;
    if (o <= kNarrow) {
      product_narrow(phi, p_.weight, y_, p_.pad_outputs, rows, p_.pad_neurons);
    } else {
      Product of{phi, p_.pad_neurons, 1, p_.weight_columns, p_.pad_outputs, y_, p_.pad_outputs, p_.layer.neurons};
      product<Start::kZero, End::kStore>(of, rows, p_.pad_outputs);
    }
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < o; ++j) out[static_cast<int64_t>(i) * o + j] = y_[i * p_.pad_outputs + j] + p_.layer.bias[j];
    }
  }

  void backward(const float* phi, const float* d_out, int n, Sums& to, float* d_x) {
    int rows = round_rows(n), o = p_.layer.outputs, k = p_.layer.neurons;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < o; ++j) to.bias[j] += d_out[static_cast<int64_t>(i) * o + j];
    }
    switch (o) {
      case 1:
        few_outputs<1>(phi, d_out, n, to);
        break;
      case 2:
        few_outputs<2>(phi, d_out, n, to);
        break;
      case 3:
        few_outputs<3>(phi, d_out, n, to);
        break;
      case 4:
        few_outputs<4>(phi, d_out, n, to);
        break;
      default:
        many_outputs(phi, d_out, n, to);
    }
    product_add({g_, 1, p_.pad_neurons, z_, p_.width, to.distance.data(), p_.width, n}, (k + 3) / 4 * 4, p_.width);
    if (d_x) cotangents(n, rows, d_x);
  }

 private:
  // Cotangents of half distances, and the sums for weights and constants, in one pass over the neurons.
  template <int O>
  void few_outputs(const float* phi, const float* d_out, int n, Sums& to) {
    for (int j = 0; j < p_.pad_neurons; j += kLanes) {
      FloatV weight[O], d_weight[O], total = load(to.total.data() + j);
      for (int o = 0; o < O; ++o) {
        weight[o] = load(p_.weight + o * p_.pad_neurons + j);
        d_weight[o] = load(to.weight.data() + o * p_.pad_neurons + j);
      }
      for (int i = 0; i < n; ++i) {
        const float* d = d_out + static_cast<int64_t>(i) * O;
        int64_t at = static_cast<int64_t>(i) * p_.pad_neurons + j;
        FloatV f = load(phi + at), d_phi = splat<FloatV>(d[0]) * weight[0];
        for (int o = 1; o < O; ++o) d_phi = fma(splat<FloatV>(d[o]), weight[o], d_phi);
        for (int o = 0; o < O; ++o) d_weight[o] = fma(splat<FloatV>(d[o]), f, d_weight[o]);
        FloatV g = rbf_vjp(f, d_phi);
        store(g_ + at, g);
        total = total + g;
      }
      for (int o = 0; o < O; ++o) store(to.weight.data() + o * p_.pad_neurons + j, d_weight[o]);
      store(to.total.data() + j, total);
    }
  }

  // The same by products.
  void many_outputs(const float* phi, const float* d_out, int n, Sums& to) {
    int rows = round_rows(n), o = p_.layer.outputs;
    memset(y_, 0, sizeof(float) * kTile * p_.pad_outputs);
    for (int i = 0; i < n; ++i) memcpy(y_ + i * p_.pad_outputs, d_out + static_cast<int64_t>(i) * o, sizeof(float) * o);
    product_add({y_, 1, p_.pad_outputs, phi, p_.pad_neurons, to.weight.data(), p_.pad_neurons, n}, (o + 3) / 4 * 4, p_.pad_neurons);
    product<Start::kZero, End::kStore>({y_, p_.pad_outputs, 1, p_.weight, p_.pad_neurons, g_, p_.pad_neurons, o}, rows, p_.pad_neurons);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < p_.pad_neurons; j += kLanes) {
        int64_t at = static_cast<int64_t>(i) * p_.pad_neurons + j;
        FloatV g = rbf_vjp(load(phi + at), load(g_ + at));
        store(g_ + at, g);
        store(to.total.data() + j, load(to.total.data() + j) + g);
      }
    }
  }

  void cotangents(int n, int rows, float* d_x) {
    int d = p_.layer.features;
    product<Start::kZero, End::kStore>({g_, p_.pad_neurons, 1, p_.backward, p_.width, d_z_, p_.width, p_.layer.neurons}, rows, p_.width);
    for (int i = 0; i < n; ++i) {
      const float* z = z_ + static_cast<size_t>(i) * p_.width;
      const float* d_z = d_z_ + static_cast<size_t>(i) * p_.width;
      for (int j = 0; j < d; ++j) d_x[static_cast<size_t>(i) * d + j] = d_z[j] + 2 * z[j] * d_z[d + j];
    }
  }

  const PackedRbf& p_;
  Aligned memory_;
  float *z_, *d_z_;   // [kTile, pad(2D)]
  float *own_, *g_;   // [kTile, pad(K)]
  float* y_;          // [kTile, pad(O)]
};

// From sums over samples of g, g x and g x^2 (g the cotangents of half distances) to the gradients of the parameters.
void finish(const PackedRbf& p, const std::vector<std::unique_ptr<Sums>>& parts, const RbfGradients& to) {
  size_t d = p.layer.features, k = p.layer.neurons, o = p.layer.outputs;
  std::unique_ptr<Sums> all = std::make_unique<Sums>(p);
  for (const auto& part : parts) {
    if (!part) continue;
    auto add = [](const std::vector<float>& from, std::vector<float>& sum) {
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += from[i];
    };
    add(part->distance, all->distance);
    add(part->total, all->total);
    add(part->weight, all->weight);
    add(part->bias, all->bias);
  }
  for (size_t i = 0; i < k; ++i) {
    for (size_t j = 0; j < d; ++j) {
      float c = p.layer.centers[i * d + j], precision = p.precision[i * d + j];
      float first = all->distance[i * p.width + j], second = all->distance[i * p.width + d + j], g = all->total[i];
      bool inside = std::abs(p.layer.log_precision[i * d + j]) <= kMostLogPrecision;
      to.centers[i * d + j] = 2 * precision * (c * g - first);
      to.log_precision[i * d + j] = inside ? precision * (second - 2 * c * first + c * c * g) : 0.0f;
    }
    for (size_t j = 0; j < o; ++j) to.weight[j * k + i] = all->weight[j * p.pad_neurons + i];
  }
  std::copy_n(all->bias.begin(), o, to.bias);
}

}  // namespace

void rbf_forward(const Rbf& layer, int64_t n, const float* x, float* out, Tape* tape) {
  PackedRbf packed(layer);
  size_t step = packed.kept_bytes();
  char* kept = tape ? tape->reserve(step * static_cast<size_t>((n + kTile - 1) / kTile)) : nullptr;
#pragma omp parallel num_threads(threads_for(n, 4 * kTile))
  {
    RbfTile tile(packed);
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kTile);
    for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
      int size = static_cast<int>(std::min<int64_t>(kTile, range.end - begin));
      tile.read(x + begin * layer.features, size);
      const float* phi = tile.neurons(size, kept ? reinterpret_cast<float*>(kept + begin / kTile * step) : nullptr);
      tile.outputs(phi, size, out + begin * layer.outputs);
    }
  }
}

void rbf_backward(const Rbf& layer, int64_t n, const float* x, const Tape* tape, const float* d_out, float* d_x, const RbfGradients& to) {
  PackedRbf packed(layer);
  size_t step = packed.kept_bytes();
  char* kept = tape ? tape->data() : nullptr;
  int n_threads = threads_for(n, 4 * kTile);
  std::vector<std::unique_ptr<Sums>> sums(n_threads);
#pragma omp parallel num_threads(n_threads)
  {
    RbfTile tile(packed);
    auto& own = sums[omp_get_thread_num()];
    own = std::make_unique<Sums>(packed);
    Range range = share(n, omp_get_thread_num(), omp_get_num_threads(), kTile);
    for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
      int size = static_cast<int>(std::min<int64_t>(kTile, range.end - begin));
      tile.read(x + begin * layer.features, size);
      const float* phi = kept ? reinterpret_cast<const float*>(kept + begin / kTile * step) : tile.neurons(size, nullptr);
      tile.backward(phi, d_out + begin * layer.outputs, size, *own, d_x ? d_x + begin * layer.features : nullptr);
    }
  }
  finish(packed, sums, to);
}

}  // namespace fieldfit
