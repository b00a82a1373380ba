// The codec as its files have it: no floating point, so that every machine decodes the same bits and the same pixels.
// Weights are in 1024ths, values between layers in 256ths, from -32768 to 32767.
#pragma once
#include <cstdint>
#include <vector>

#include "codec.h"
#include "range_coder.h"

namespace fieldfit {

constexpr int kWeightBits = 10, kValueBits = 8;
constexpr int32_t kMostValue = 32767;

// Whether no sum of a layer can leave 32 bits: weights [out, in], biases [out], and what else may be added.
bool layer_fits(const int32_t* weights, const int32_t* biases, int out, int in, int64_t more = 0);
bool context_fits(const int32_t* context);
bool synthesis_fits(const CodecShape&, const int32_t* synthesis);

// Latents under the context network, in the order in which a decoder can know them: finest level last, and within a level
// along slanted waves, all positions with the same x + 4 y together, from top to bottom. most[i]: the largest magnitude in level i.
std::vector<uint8_t> write_latents(const CodecShape&, const int32_t* context, const int32_t* most, const int32_t* latents);
// False where the data are not what an encoder writes.
bool read_latents(const CodecShape&, const int32_t* context, const int32_t* most, const uint8_t* data, size_t size, int32_t* latents);

// Samples from 0 to `white`, [height, width, channels]; `known` [known, height, width] as values between layers are.
void synthesise(const CodecShape&, const int32_t* latents, const int32_t* synthesis, const int32_t* known, int32_t white,
                uint16_t* samples);

// Integers around zero, under a scale for each group.
struct Group {
  int32_t count, scale, most;
};
std::vector<uint8_t> write_integers(const std::vector<Group>&, const int32_t* values);
bool read_integers(const std::vector<Group>&, const uint8_t* data, size_t size, int32_t* values);
// Bits that a group costs under each scale, to choose one by: to [kScales].
void integer_bits(int32_t count, int32_t most, const int32_t* values, double* bits);

}  // namespace fieldfit
