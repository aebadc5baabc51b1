"""``codedtool networks``: names, sizes and stages of what can be trained."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from codedtool.cli import app
from codedtool.models.families import EXAMPLES, FORMS


def test_the_list_has_every_form_and_its_examples() -> None:
    done = CliRunner().invoke(app, ["networks", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["N"] == [2, 64]
    assert [row["form"] for row in found["forms"]] == list(FORMS)
    networks = {one["preset"]: one for row in found["forms"] for one in row["examples"]}
    assert set(networks) == {name for name in EXAMPLES if name.startswith("coded_")}
    # Table 1's sizes, as tests/models has them.
    paper = networks["coded_resnext50_32x4d"]
    assert (paper["parameters"], paper["num_classes"], paper["pixels"]) == (25_027_904, 1000, [65, None])
    assert [(stage["name"], stage["act"]) for stage in paper["stages"]] == [
        ("s1", 32),
        ("s2", 32),
        ("s3", 16),
        ("s4", 8),
    ]
    assert paper["control"] == "resnext50_32x4d"
    assert networks["coded_resnext29_10x11d"]["parameters"] == 4_638_926
    table = CliRunner().invoke(app, ["networks", "--quiet"]).stdout
    for name in networks:
        assert name in table
    assert "s2 5/10, s3 3/10" in table


def test_one_network_is_shown_by_its_stages() -> None:
    done = CliRunner().invoke(app, ["networks", "--preset", "coded_resnext50_24x5d", "--quiet"])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[4] == ["s3", "6", "1024", "480", "2", "12/24", "6,721,024"]
    wrong = CliRunner().invoke(app, ["networks", "--preset", "coded_resnext50_24x5", "--quiet"])
    assert wrong.exit_code == 2
    assert "--preset 'coded_resnext50_24x5' is unknown; did you mean coded_resnext50_24x5d" in wrong.output


@pytest.mark.parametrize("name", ["coded_resnext29_70x1d", "resnext29_1x2d"])
def test_n_outside_of_2_to_64_is_refused(name: str) -> None:
    done = CliRunner().invoke(app, ["networks", "--preset", name, "--quiet"])
    assert done.exit_code == 2
    assert "must be 2 to 64" in done.output
