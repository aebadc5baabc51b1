"""Johnson's two bounds on the number of words of one weight: his recursion, and counting pairs column by column."""

from __future__ import annotations

from functools import cache
from math import comb


@cache
def johnson_bound(length: int, act: int, half: int, counting: bool) -> int:
    """Johnson's recursion for N = ``length``, w = ``act``, H = 2 ``half``; ``counting``: with `pair_counting_bound`.

    Without column i, the words with a one there are a code of length N-1 and weight w-1, and the rest one of weight w.
    So M words have at most N A(N-1, H, w-1) ones, which are Mw, and at most N A(N-1, H, w) zeros, which are M(N-w):
    A(N, H, w) <= floor(N/w A(N-1, H, w-1)) and A(N, H, w) <= floor(N/(N-w) A(N-1, H, w)).
    (S. Johnson, A new upper bound for error-correcting codes, IRE Trans. IT 8, 1962.)
    """
    weight = min(act, length - act)  # complementing every word keeps all distances
    if half > weight:
        return 1
    if half == 1:
        return comb(length, weight)
    if half == weight:
        return length // weight  # the words' ones are disjoint
    bound = min(
        length * johnson_bound(length - 1, weight - 1, half, counting) // weight,
        length * johnson_bound(length - 1, weight, half, counting) // (length - weight),
    )
    counted = pair_counting_bound(length, weight, half) if counting else None
    return bound if counted is None else min(bound, counted)


def pair_counting_bound(length: int, act: int, half: int) -> int | None:
    """The most words for which the distances of all pairs can add up, or None where they always can.

    Let M words have column sums k_1..k_N. Column i separates k_i (M - k_i) pairs, so the M(M-1)/2 distances add up to
    sum_i k_i (M - k_i), which must reach M(M-1)/2 H = M(M-1) ``half``. The sum of the k_i is Mw, and the concave sum is
    largest when they are as equal as whole numbers can be: r columns of q+1 and N-r of q, with Mw = qN + r. Where even
    that falls short there is no code of M words, nor one of more, as M of its words would be a code. The bound is
    therefore one below the first M that falls short.

    Were the k_i equal, the sum would be M^2 w(N-w)/N. If ``half`` N > w(N-w), that is too small as soon as
    M > ``half`` N / (``half`` N - w(N-w)), which ends the search. Otherwise it never is, and rounding, which takes off
    at most N/4, could matter for M < N/(4 ``half``) only; a test finds that at N <= 64 it never does.
    (S. Johnson's second bound; F. MacWilliams, N. Sloane, The Theory of Error-Correcting Codes, 1977, chapter 17.)
    """
    excess = half * length - act * (length - act)
    if excess <= 0:
        return None
    num_words = 1
    while pairs_add_up(num_words + 1, length, act, half):
        num_words += 1
    return num_words


def pairs_add_up(num_words: int, length: int, act: int, half: int) -> bool:
    """Whether ``num_words`` words with column sums as equal as possible have distances of mean >= 2 * ``half``."""
    low, num_high = divmod(num_words * act, length)
    separated = (length - num_high) * low * (num_words - low) + num_high * (low + 1) * (num_words - low - 1)
    return separated >= num_words * (num_words - 1) * half
