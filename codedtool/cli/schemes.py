"""``codedtool schemes``: the schemes that belong to the installation, with their figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codedtool.analysis.result import NONE, Table
from codedtool.cli.session import Json, Quiet, print_json, print_table, progress_display, say, verb

if TYPE_CHECKING:
    from codedtool.coding.scheme import CodingScheme


@verb
def schemes(json_output: Json = False, quiet: Quiet = False) -> None:
    """List the shipped schemes; `--scheme NAME`, `--with NAME` and `--extend NAME` take one by its name."""
    from codedtool.coding.scheme import CodingScheme
    from codedtool.coding.shipped import shipped_folder, shipped_names

    with progress_display(quiet=quiet) as progress:
        progress("reading", 0, None, str(shipped_folder()))
        shipped = {name: CodingScheme.shipped(name) for name in shipped_names()}
        documents = [
            {
                "name": name,
                **scheme.summary(),
                "spread": scheme.spread,
                "pairs_at_min": scheme.pairs_at_min,
                "joint_partner": _partner(scheme, shipped),
            }
            for name, scheme in shipped.items()
        ]
    if json_output:
        print_json({"folder": str(shipped_folder()), "schemes": documents})
    caption = "Shipped schemes: K codewords of N digits with N_act ones each, any two at least H_min digits apart"
    header = ("name", "K", "N", "N_act", "H_min", "pairs at H_min", "column sums", "partner", "joint distance", "pairs")
    print_table(Table(caption, header, tuple(map(_row, documents))), to_stderr=json_output)
    say(
        "partner: the shipped scheme of another N_act with the largest smallest distance of both codewords together",
        to_stderr=json_output,
    )


def _partner(scheme: CodingScheme, shipped: dict[str, CodingScheme]) -> dict[str, Any] | None:
    """The best shipped scheme for another stage of the same network, or None if there is none."""
    from codedtool.coding.orders.pairing import joint_distance_histogram

    partners: list[dict[str, Any]] = []
    for name, other in shipped.items():
        if (other.num_classes, other.length) == (scheme.num_classes, scheme.length) and other.act != scheme.act:
            histogram = joint_distance_histogram([scheme, other])
            distance = min(histogram)
            partners.append({"name": name, "joint_min_distance": distance, "pairs_at_joint_min": histogram[distance]})
    return max(partners, key=lambda one: (one["joint_min_distance"], -one["pairs_at_joint_min"]), default=None)


def _row(document: dict[str, Any]) -> tuple[str, ...]:
    partner = document["joint_partner"]
    cells = [document[key] for key in ("name", "K", "N", "act", "min_distance", "pairs_at_min")]
    cells += [f"{document['s_min']}..{document['s_max']}"]
    cells += [NONE] * 3 if partner is None else partner.values()
    return tuple(map(str, cells))
