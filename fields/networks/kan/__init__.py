"""Networks of learned functions (Kolmogorov-Arnold networks, Liu et al. 2024), as features times a matrix.

Letters: N points, I inputs, O outputs, B functions of an input.
"""

from __future__ import annotations
