"""Codes with structure: words of linear codes, and unions of orbits under groups of permutations of the columns."""
