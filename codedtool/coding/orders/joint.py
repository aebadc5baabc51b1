"""A found scheme beside the schemes of other coded stages: words chosen anew where possible, then rows ordered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from codedtool.budget import Work
from codedtool.coding.orders.joint_words import choose_jointly
from codedtool.coding.orders.pairing import check_orderable, order_jointly
from codedtool.coding.result import SchemeResult, SearchInterrupted
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError


def check_companions(companions: Sequence[CodingScheme], num_classes: int) -> None:
    """Raise InputError for a scheme with another number of rows, and for more classes than can be ordered."""
    if companions:
        check_orderable(num_classes)
    for companion in companions:
        if companion.num_classes != num_classes:
            raise InputError(
                f"`companions`: one scheme has K={companion.num_classes} rows, `num_classes` asks for {num_classes}"
            )


def arrange_jointly(
    result: SchemeResult, companions: Sequence[CodingScheme], work: Work, *, choose_words: bool
) -> SchemeResult:
    """``result`` with its rows arranged so that no two classes are close in all stages together.

    Args:
        result: the result of a search; returned as it is if there are no companions.
        companions: the schemes of the other stages, of the same K; they stay as they are.
        work: seed, budget and progress.
        choose_words: whether words may be replaced by others with the same figures (`choose_jointly`) before the rows
            are ordered (`order_jointly`).

    Raises:
        SearchInterrupted: on an interruption; holds the best arrangement so far.
    """
    if not companions:
        return result
    try:
        chosen = choose_jointly(result.scheme, companions, work) if choose_words else None
        if chosen is not None:
            result = result.with_words(chosen, "CP-SAT, with the other schemes")
        joint = order_jointly(result.scheme, companions, work)
    except KeyboardInterrupt:
        raise SearchInterrupted(result) from None
    result = replace(
        result,
        scheme=joint.scheme,
        joint=joint,
        stopped=result.stopped or joint.stopped,
        seconds=work.stopwatch.seconds(),
    )
    if joint.stopped == "interrupted":
        raise SearchInterrupted(result)
    return result
