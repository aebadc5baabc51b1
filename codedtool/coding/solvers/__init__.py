"""Solvers: each finds K codewords for a `Problem`, or none. `table` lists them."""
