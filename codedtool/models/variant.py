"""The ablations: changes to the coded blocks of a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to build the coded blocks; the defaults are the paper's network.

    Attributes:
        exponent: exponent of the coding loss (eq. 5); section 3.1.2 compares 4, 2 and 1.
        threshold: energy errors ``|r E(tbar_n) - w_{k,n}|`` below this cost nothing in the coding loss; 0..1.
        energy_norm: apply Energy Normalization (eq. 2-3). Without it, outputs are summed and energies coded unscaled.
        concatenate: concatenate the subNNs' outputs instead of adding them (section 4.3.1). Each subNN then makes 1/N
            of the block's output channels, and their number is rounded to a multiple of N.
        gradient_masking: stop the gradient through the outputs of subNNs that are inactive for a sample's class.
            Appendix E uses this instead of the coding loss (mu = 0). The gradient through the mean energy of eq. 3
            is not stopped.
        shortcuts: give every block of the network a shortcut; appendix E also trains without shortcuts.
    """

    exponent: float = 4.0
    threshold: float = 0.0
    energy_norm: bool = True
    concatenate: bool = False
    gradient_masking: bool = False
    shortcuts: bool = True


PAPER = Variant()
