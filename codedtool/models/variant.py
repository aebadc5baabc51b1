"""What the ablations change in a coded network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to build the coded blocks; the defaults are the paper's network.

    Attributes:
        exponent: of the coding loss (eq. 5); section 3.1.2 compares 4, 2 and 1.
        threshold: what ``|r E(tbar_n) - w_{k,n}|`` may be before it counts in the coding loss; as energies are about 1
            for active subNNs, from 0 to 1.
        energy_norm: Energy Normalization (eq. 2-3); without it the outputs are summed, and their energies coded, as
            they are.
        concatenate: put the subNNs' outputs beside each other instead of adding them (section 4.3.1): each subNN then
            makes 1/N of the block's output channels, whose number becomes a multiple of N.
        gradient_masking: let no gradient through the outputs of subNNs that are inactive for a sample's class
            (appendix E, where it takes the coding loss's place: mu = 0). The gradient through the mean energy of
            eq. 3 stays.
        shortcuts: the connections around the blocks, of all blocks of the network (appendix E goes without).
    """

    exponent: float = 4.0
    threshold: float = 0.0
    energy_norm: bool = True
    concatenate: bool = False
    gradient_masking: bool = False
    shortcuts: bool = True


PAPER = Variant()
