"""Every tolerance of the test suite, each with its reason.

A comparison passes where `|actual - expected| <= atol + rtol * |expected|`. `expected` is the independent truth
(closed form, float64, another library), never a stored result of our own. A test that needs a looser bound gets a row
here that says why; no test writes a number of its own. `eps32 = 2^-23 = 1.2e-7` is the spacing of float32 at one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """How far a result may be from the truth, and why that far."""

    rtol: float
    atol: float
    why: str

    def check(self, actual: Tensor, expected: Tensor) -> None:
        """Raise AssertionError unless equal in shape, finite where the truth is, and close; compares in float64."""
        assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        torch.testing.assert_close(actual.double(), expected.double(), rtol=self.rtol, atol=self.atol, equal_nan=False)

    def allows(self, actual: float, expected: float) -> bool:
        """The same for two numbers, to be used as `assert tolerance.allows(a, b)`."""
        return abs(actual - expected) <= self.atol + self.rtol * abs(expected)


EXACT = Tolerance(0.0, 0.0, "the same bits: copies, integer codes, inverses by construction, resumed runs")

# Arithmetic in float32 against the same formula in float64.
VALUES = Tolerance(1e-5, 1e-6, "a few dozen roundings of eps32, with some cancellation around zero")
GRADIENTS = Tolerance(1e-4, 1e-5, "sums over all points of a batch, in an order that is not the reference's")
TWO_KERNELS = Tolerance(
    1e-2, 1e-3, "float32 against float32: where a ReLU's input rounds across zero, one sample's share differs"
)
FINE_GRID = Tolerance(1e-3, 1e-4, "at resolution 2^11 a rounded coordinate moves the weights by 2^11 eps32 = 2.4e-4")
SECOND_GRADIENTS = Tolerance(1e-3, 1e-4, "the derivative of a derivative loses half of the digits that were left")
FINITE_DIFFERENCES = Tolerance(1e-4, 1e-6, "central, float64, step 1e-4: 1e-8 times a third derivative of up to 100")
DERIVED = Tolerance(
    1e-3,
    1e-4,
    "gradients through layers of learned functions, whose cubics and wavelets lose a digit more by cancellation",
)
WAVES_OF_WAVES = Tolerance(
    1e-2, 5e-4, "learned sines of sines of position: slopes of a hundred, times a rounded argument, and cancellation"
)

# The codec.
CODED_RATE = Tolerance(
    0.02,
    400,
    "locations in sixteenths and 64 scales, against exact ones, where the network was not fitted to them; small files",
)
ROUNDED_PIXELS = Tolerance(
    0.0, 4e-3, "values between layers are multiples of 2^-8 on a scale of 16: 2.4e-4 for each of some twenty roundings"
)

CODEC_ESTIMATE = Tolerance(0.01, 8, "what is promised, and the bytes that an interval's end costs in files this small")
CODEC_TARGET = Tolerance(
    0.08, 0, "3 % is what longer fits of larger pictures come to; in small ones networks weigh as much as latents"
)
NETWORK_SAMPLES = Tolerance(0, 3, "of 255: values between layers, which decoders round to 256ths, and the sample")

# Reduced precision.
HALF_STORAGE = Tolerance(2e-2, 2e-3, "bfloat16 keeps 8 bits: 2^-9 for each stored value, a few of them in a row")
HALF_DEEP = Tolerance(
    5e-2,
    2e-2,
    "three layers without a grid: each sum of order one loses 2^-9 of every term, and the next adds up",
)

# Geometry in float32.
POSES = Tolerance(1e-5, 1e-5, "a product of two rotations and a translation, in scenes a few units across")
PIXELS = Tolerance(
    0.0, 1e-2, "projection and undistortion to a hundredth of a pixel, pictures thousands of pixels wide"
)
DISTANCES = Tolerance(1e-4, 1e-5, "distances from float32 ray casting against a closed form, in unit-cube units")

# What converges rather than equals.
QUADRATURE = Tolerance(
    1e-3, 1e-4, "a ray integral of piecewise-constant density against its closed form, >= 1000 steps"
)
MONTE_CARLO = Tolerance(0.0, 1e-2, "a fraction of 200,000 points has a standard error of at most 1.1e-3; nine of them")
UNIT_VARIANCE = Tolerance(
    0.0,
    0.06,
    "variance of some thousand points in 256 random layers; a constant term alone varies by 0.1 between layers",
)
PADE = Tolerance(
    0.0, 5e-3, "rational functions at their start: coefficients of |x| and |x|^3 of 1e-3 so that they learn"
)
INITIAL_VALUES = Tolerance(
    0.1, 0.0, "mean squares over some ten networks of a hundred units, whose draws differ by a few percent"
)
METRICS = Tolerance(1e-4, 1e-5, "PSNR and SSIM in row bands and float32 against scikit-image in float64")
EIGHT_BIT = Tolerance(0.0, 0.5 / 255 + 1e-6, "half a step of an 8-bit value")
DECODED = Tolerance(0.0, 0.6 / 255, "half a step of 8 bits, and a tenth: swscale and Pillow round in fixed point")
ROUNDED_PSNR = Tolerance(
    0.0, 0.5, "dB: the mean squared rounding error of a thousand bytes, against 1/12 of a step squared"
)
FOCUS = Tolerance(5e-2, 0.0, "where optical axes nearly meet, by weights that only fade out what disagrees")

RENDERED = Tolerance(
    0.0, 5e-3, "rays end at a transmittance of 1e-3, and a step may fall on the other side of a cell's face"
)
RENDERED_GRADIENTS = Tolerance(
    1e-4, 1e-4, "sums over thousands of samples whose terms, depths among them, are of size ten and cancel"
)

# Surfaces.
EXPORTED = Tolerance(
    5e-3, 0.0, "what is promised of an exported mesh at resolution 64 and above: half a percent of its size"
)
DISTANCES_OF_CELLS = Tolerance(
    0.0, 4 / 64, "the surface of a density that jumps lies anywhere within the cell of 4 / 64 that holds the jump"
)
TRACED = Tolerance(
    1e-4, 1e-3, "sphere tracing ends within its tolerance of 2e-4 of the box, four units across, over the slope"
)
NORMALS = Tolerance(
    0.0, 5e-3, "central differences in float32: 1e-7 of rounding over a step of 2e-3, and a point that is off"
)
PATHS = Tolerance(
    1e-4, 1e-4, "poses that went through angles, splines or degrees in float32, in scenes a few units across"
)

# Pictures.
FILM = Tolerance(
    0.0, 6 / 255, "x264 at rate factor 16 in 4:2:0, within areas of one colour, through 8-bit YCbCr and back"
)
TYPED = Tolerance(0.0, 1e-4, "numbers that a browser rounded for its sliders, in a box a few units large")
TWO_DIGITS = Tolerance(0.0, 0.05, "PSNR of one view shown with two digits, of rays that end at a transmittance of 1e-3")
PLOTTED = Tolerance(0.0, 0.02, "shares of a plot's height, a few pixels of 520 lost to grid lines and smoothed edges")
TURBO_FIT = Tolerance(0.0, 0.15, "the published polynomial of degree 5 is this far from its own table at the dark ends")
