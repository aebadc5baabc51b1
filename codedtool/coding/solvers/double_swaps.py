"""The meet in the middle of `balance`: two swaps at once that change the column sums by exactly a wanted amount."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from codedtool.coding.solvers.balance_kernels import Choice, Pool

# Words whose pairs are looked up and entered into the table: they hold all of the paper's largest case, 1,000 chosen
# of 2,399, and the table takes 30 MB.
_MOST_INSIDE = 1000
_MOST_OUTSIDE = 1400


class DoubleSwaps:
    """Finds double swaps through a hash table of all pairs of unchosen words, keyed by what a pair adds to the sums.

    Args:
        pool: the words.
        choice: the present choice; the table is valid until it changes.
        column_hashes: (N,) uint64, odd random numbers; a word's hash is the sum over its ones.
        word_hashes: (M,) uint64, the hash of each word.

    Attributes:
        inside, outside: the chosen words and the other ones that take part.
    """

    def __init__(
        self, pool: Pool, choice: Choice, column_hashes: NDArray[np.uint64], word_hashes: NDArray[np.uint64]
    ) -> None:
        from codedtool.coding.solvers import balance_kernels

        self._pool, self._choice, self._column_hashes = pool, choice, column_hashes
        chosen, degrees = choice.is_chosen, choice.degrees
        # Where there are too many, the words that cost the most pairs are dropped and those that cost least are taken.
        inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        self.inside = inside[np.argsort(-degrees[inside], kind="stable")[:_MOST_INSIDE]]
        self.outside = outside[np.argsort(degrees[outside], kind="stable")[:_MOST_OUTSIDE]]
        self._sides = balance_kernels.Sides(
            self.inside, word_hashes[self.inside], self.outside, passed=np.empty(len(self.inside), dtype=np.int64)
        )
        num_pairs = len(self.outside) * (len(self.outside) - 1) // 2
        slot_bits = max(6, (2 * num_pairs).bit_length())
        sieve_bits = slot_bits + 4
        self._table = balance_kernels.PairTable(
            slot_bits,
            sieve_bits,
            sieve=np.zeros(1 << (sieve_bits - 6), dtype=np.uint64),
            keys=np.zeros(1 << slot_bits, dtype=np.uint64),
            places=np.full(1 << slot_bits, -1, dtype=np.int32),
        )
        balance_kernels.hash_pairs(word_hashes[self.outside], self._table)
        self._found = np.zeros(4, dtype=np.int64)

    def look_up(self, wanted_N: NDArray[np.int64], out: int = -1, into: int = -1) -> int | None:
        """New pairs at H_min by the best double swap that adds ``wanted_N``, sparing ``out`` and ``into``; or None."""
        from codedtool.coding.solvers import balance_kernels

        pairs = balance_kernels.find_double_swap(
            self._pool,
            self._choice.degrees,
            self._table,
            self._sides,
            wanted_N,
            (wanted_N.astype(np.uint64) * self._column_hashes).sum(dtype=np.uint64),
            out,
            into,
            self._found,
        )
        return None if pairs >= balance_kernels.NO_SWAP else int(pairs)

    def apply(self) -> None:
        """Make the double swap that the last successful look-up found."""
        from codedtool.coding.solvers import balance_kernels

        out, into, second_out, second_into = self._found.tolist()
        balance_kernels.apply_swap(self._pool, self._choice, out, into)
        balance_kernels.apply_swap(self._pool, self._choice, second_out, second_into)
