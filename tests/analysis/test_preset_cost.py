"""The cost of a network that was not trained: as that of a run, with shipped schemes, given ones or stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codedtool.analysis.cost import CostResult, cost
from codedtool.analysis.preset_cost import cost_of_preset
from codedtool.cli import app
from codedtool.errors import InputError
from tests.subjects import DIGITS, make_subject, noisy_data, shipped, tiny_coded, tiny_schemes


def notes(result: CostResult) -> tuple[str, ...]:
    """The lines below the table, without that of a busy machine."""
    return tuple(line for line in result.lines() if not line.startswith("~: noisy"))


def test_it_is_the_cost_of_a_run_of_this_network(tmp_path: Path) -> None:
    data = noisy_data(DIGITS, train=1, val=1)
    of_run = cost(make_subject(tmp_path, tiny_coded(), data, schemes=tiny_schemes()), class_name="4")
    found = cost_of_preset("coded_resnext_tiny", image_size=8, class_name="4")
    keys = ("name", "parameters", "parameters_without_projections", "macs", "kept_bytes")
    for mine, its in zip(found.network_rows(), of_run.network_rows(), strict=True):
        assert [mine[key] for key in keys] == [its[key] for key in keys]
    assert notes(found) == (
        "s2: the shipped scheme c10_5of10 (K=10, N=10, N_act=5).",
        "s3: the shipped scheme c10_3of10 (K=10, N=10, N_act=3).",
    )
    assert "schemes" not in of_run.to_json()


def test_stand_ins_are_said_and_count_as_other_schemes_do() -> None:
    found = cost_of_preset("coded_resnext_tiny_16", num_classes=37, image_size=8)
    assert found.to_json()["schemes"] == [
        "s2: a stand-in of random codewords; no shipped scheme has K=37, N=16, N_act=8.",
        "s3: a stand-in of random codewords; no shipped scheme has K=37, N=16, N_act=4.",
    ]
    coded, plain, classifier = found.networks
    assert coded.parameters == plain.parameters > classifier.parameters
    assert cost_of_preset("coded_resnext_tiny_2").to_json()["schemes"][0].endswith("K=2, N=2, N_act=1.")


def test_given_schemes_and_plain_controls(tmp_path: Path) -> None:
    alone = cost_of_preset("coded_resnext_tiny", [shipped("c10_5of10"), shipped("c10_3of10")], image_size=8)
    assert notes(alone) == ()
    assert [one.name for one in cost_of_preset("resnext_tiny", image_size=8).networks] == ["plain"]
    with pytest.raises(InputError, match="stage s2 .* has ratio 5/10 and no scheme"):
        cost_of_preset("coded_resnext_tiny", [shipped("c10_3of10")])
    with pytest.raises(InputError, match="only 10 codewords of 5 digits with 3 ones exist"):
        cost_of_preset("coded_resnext_tiny_5", num_classes=11)
    with pytest.raises(InputError, match="must be a number from 0 to 9"):
        cost_of_preset("coded_resnext_tiny", class_name="cat")


def test_the_command_needs_no_run_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["cost", "--preset", "coded_resnext_tiny", "--image-size", "8", "--quiet"]
    done = CliRunner().invoke(app, [*command, "--scheme", "c10_3of10", "--scheme", "c10_5of10", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["networks"][0]["parameters"] == 75_336
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--preset", "coded_resnext_tiny", "--run", "x"], "--run and --preset exclude each other"),
        (["--preset", "coded_resnext_tiny", "--eval-size", "8"], "--eval-size and --preset exclude each other"),
        (["--preset", "coded_resnext_tiny", "--checkpoint", "best"], "--checkpoint and --preset exclude each other"),
        (["--preset", "coded_resnext_tiny", "--no-download"], "--no-download and --preset exclude each other"),
        (["--scheme", "c10_3of10"], "--scheme needs --preset"),
        (["--image-size", "8"], "--image-size needs --preset"),
        (["--preset", "coded_resnext_tin"], "did you mean coded_resnext_tiny"),
    ],
)
def test_options_that_do_not_go_together_are_refused(more: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["cost", *more, "--quiet"])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
