"""One layer of anisotropic Gaussian neurons in feature space, in place of a perceptron (Bouzidi et al. 2025).

    phi_k = exp(-1/2 sum_d exp(b_kd) (f_d - c_kd)^2 / D),   y = activation(W (phi - 1/2) + w0)

Centres and precisions follow what the encoding gives. Features that start at almost zero, as those of a hash grid do,
grow by orders of magnitude: a layer that fitted their first values would lose them within a few steps. So each feature
has a scale, its deviation at the start but at least `least_scale`; where that is more than the deviation, random
offsets spread the centres over the space that features will grow into. The layer then starts on a flat field, as a
perceptron does, with gradients that lead out of it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At, with_aux
from fields.kernels import rbf, reference, reference_rbf
from fields.kernels.reference_rbf import RbfWeights
from fields.kernels.shapes import Activation
from fields.networks.configs import RBF
from scenes.errors import InputError


class GaussianLayer(nn.Module):
    """Gaussian neurons and a linear layer; a second input, one row per ray, is appended to the features."""

    def __init__(self, config: RBF, n_in: int, n_out: int, output_activation: Activation) -> None:
        super().__init__()
        if config.n_neurons < 1 or config.least_scale <= 0 or config.anisotropy < 0:
            raise InputError(
                "rbf: expected n_neurons >= 1, least_scale > 0 and anisotropy >= 0, got "
                f"{config.n_neurons}, {config.least_scale} and {config.anisotropy}"
            )
        self.output_activation: Activation = output_activation
        self.least_scale, self.anisotropy = config.least_scale, config.anisotropy
        self.centers = nn.Parameter(torch.empty(config.n_neurons, n_in))
        self.log_precision = nn.Parameter(torch.empty(config.n_neurons, n_in))
        self.weight = nn.Parameter(torch.empty(n_out, config.n_neurons))
        self.bias = nn.Parameter(torch.empty(n_out))

    @property
    def weights(self) -> RbfWeights:
        """The parameters as the kernel takes them: neurons count from one half, and `bias` is what is left.

        All neurons are positive. Counted from zero, a step of the optimiser that moves all their weights a little the
        same way would move every value by the sum.
        """
        return RbfWeights(self.centers, self.log_precision, self.weight, self.bias - 0.5 * self.weight.sum(1))

    def initialise(self, generator: torch.Generator) -> None:
        """For features of deviation one around zero, until `calibrate` has seen some."""
        with torch.no_grad():
            self.centers.normal_(generator=generator)
            self.log_precision.zero_()
            bound = 1 / math.sqrt(self.weight.shape[1])
            self.weight.uniform_(-bound, bound, generator=generator)
            self.bias.zero_()

    def calibrate(self, x: Float[Tensor, "N X"], generator: torch.Generator) -> None:
        """Draw centres from features, and choose precisions so that the median neuron gives one half."""
        with torch.no_grad():
            deviation = x.std(0, correction=0)
            scale = deviation.clamp(min=self.least_scale)
            n, device = len(self.centers), x.device
            drawn = x[torch.randint(len(x), (n,), generator=generator).to(device)]
            offsets = torch.randn(drawn.shape, generator=generator).to(device)
            self.centers.copy_(drawn + offsets * (scale.square() - deviation.square()).clamp(min=0).sqrt())
            uneven = self.anisotropy * torch.randn(drawn.shape, generator=generator).to(device)
            self.log_precision.copy_(uneven - 2 * scale.log())
            median = reference_rbf.half_distances(x, self.weights).median().clamp(min=1e-6)
            self.log_precision.add_(math.log(math.log(2)) - median.log())

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values for [x, aux[index]]."""
        return reference.activate(self.output_activation, rbf.rbf(with_aux(x, aux, index), self.weights))
