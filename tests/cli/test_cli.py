"""The command line as a user meets it: real processes, exit codes, streams, and what is imported when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import typer

from codedtool.analysis.catalogue import CATALOGUE, Analysis
from codedtool.cli.session import in_flags, verb
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError

HEAVY = ("torch", "numba", "ortools", "pandas", "numpy", "scipy", "sklearn", "matplotlib")


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "codedtool", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def scheme_arguments(K: int, N: int, act: int, hmin: int | str, *more: str) -> list[str]:
    return ["scheme", "--K", str(K), "--N", str(N), "--act", str(act), "--hmin", str(hmin), *more]


@pytest.mark.parametrize(
    "verb",
    [
        [],
        ["scheme", "assign"],
        *([name] for name in "plan scheme schemes verify bounds networks train predict report export sweep".split()),
        *([row.name] for row in CATALOGUE),
    ],
)
def test_help_answers_without_importing_anything_heavy(verb: list[str], tmp_path: Path) -> None:
    probe = (
        "import sys; from codedtool.cli import app\n"
        f"sys.argv = ['codedtool', *{verb!r}, '--help']\n"
        "try: app()\n"
        "except SystemExit as stop: assert not stop.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip() == "[]"
    assert "Usage:" in done.stdout


@pytest.mark.parametrize(
    ("words", "built"),
    [
        (["bounds", "--N", "8"], {"bounds"}),
        (["scheme", "assign"], {"scheme"}),
        (["bonds"], None),
        (["--help"], None),
        ([], None),
    ],
)
def test_a_call_builds_only_its_own_command(words: list[str], built: set[str] | None) -> None:
    import typer.main

    from codedtool.cli import _called, app

    everything = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert set(typer.main.get_command(_called(words)).commands) == (built or everything)  # type: ignore[attr-defined]


def test_the_set_of_verbs_and_flags_is_frozen() -> None:
    import typer.main

    from codedtool.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands |= {f"scheme {name}": command for name, command in commands["scheme"].commands.items()}
    flags = {
        name: sorted(option for parameter in command.params for option in parameter.opts if option.startswith("-"))
        for name, command in commands.items()
    }
    talk = "--json --quiet -q"
    recipe = (
        "--recipe --data --preset --epochs --early-stop-epochs --batch-size --micro-batch --lr --min-lr "
        "--warmup-epochs --warmup-lr "
        "--cooldown-epochs --sched-on-updates --momentum --nesterov --weight-decay "
        "--norm-decay --label-smoothing --mu --p-drop "
        "--exponent --threshold --energy-norm --concatenate --gradient-masking --shortcuts --permutation "
        "--crop-padding --random-resized-crop --flip --randaugment --erasing --erasing-count "
        "--images-per-class --split --split-seed --balanced --train-size --eval-size "
        "--ema-decay --sync-bn --skip-bad-images --seed --precision --channels-last --compile --data-dir --device "
        "--num-workers --checkpoint-minutes --tensorboard"
    )
    of_run = (
        "--run --checkpoint --no-download --data --data-dir --skip-bad-images --eval-size --batch-size --precision "
        "--channels-last --device --num-workers"
    )

    def of_row(row: Analysis) -> list[str]:
        inputs = {"plain": "--compare", "ood": "--ood"}
        return [
            *(option.flag for option in row.options),
            *(flag for name, flag in inputs.items() if name in row.inputs),
        ]

    # The catalogue's rows as they are typed; a new row adds its line by itself, an old one changes on purpose.
    assert {row.name: " ".join(of_row(row)) for row in CATALOGUE} == {
        **{row.name: " ".join(of_row(row)) for row in CATALOGUE},
        "eval": "--compare",
        "bc": "--class --out --force --all-negatives --seed --compare --ood",
        "specialize": "--block --images --repeats --seed",
        "decode": "--exit",
        "calibrate": "--seed --repeats",
        "activations": "--block --subnns",
        "cost": "--class",
    }
    expected = {
        "scheme": "--K --N --act --hmin --out --method --refine --words --with --extend --time-limit --seed --force",
        "scheme assign": "--scheme --similarity --repel --out --seed --force " + of_run.partition("--no-download ")[2],
        "schemes": "",
        "plan": "--K --data --image-size --device --write --force",
        "verify": "--K --N --act --hmin --max-spread",
        "bounds": "--K --N --act",
        "train": "--scheme --stages --uncoded-stages --config --run-name --init --classes --resume --checkpoint "
        f"--no-download {recipe}",
        **{row.name: f"{of_run} {' '.join(of_row(row))}" for row in CATALOGUE},
        "cost": f"{of_run} --class --preset --scheme --image-size",
        "networks": "--preset",
        "predict": "--run --bc --sample --seed --checkpoint --no-download --eval-size --precision --data --data-dir "
        "--device",
        "report": f"{of_run} --compare --ood --out --only --skip --force --all-negatives --seed",
        "export": "--run --checkpoint --bc --format --out --force",
        "sweep": f"--vary --name --seeds --scheme --stages --uncoded-stages --config --no-download {recipe}",
    }
    assert flags == {name: sorted(f"{text} {talk}".split()) for name, text in expected.items()}


@pytest.mark.parametrize("flag", ["--run", "--run-name", "--name"])
@pytest.mark.parametrize("verb", ["eval", "report", "predict a.png", "export", "train --resume", "sweep --vary mu=0,1"])
def test_a_run_is_named_by_any_of_the_three_flags(verb: str, flag: str, tmp_path: Path) -> None:
    from tests.commands import run as run_here

    name = "latest" if "sweep" in verb else "nothing"
    for words in ([flag, name], [f"{flag}={name}"]):
        done = run_here(*verb.split(), *words, cwd=tmp_path)
        assert done.returncode == 2
        assert (
            f"there is no run {name}" in done.stderr or "--name 'latest' must be the name of one folder" in done.stderr
        )


def test_helps_mark_what_is_required_and_speak_of_training_only_where_something_is_trained() -> None:
    import typer.main

    from codedtool.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    helps = {
        name: {one.name: str(getattr(one, "help", "")) for one in command.params} for name, command in commands.items()
    }
    for option in ("num_classes", "length", "act", "min_distance"):
        assert "required" in helps["scheme"][option].lower()
    for option in ("num_classes", "data"):
        assert "required without" in helps["plan"][option]
    for name, options in helps.items():
        if name not in ("train", "sweep"):
            assert "optimizer" not in " ".join(options.values())


@pytest.mark.parametrize("verb", ["report", "eval", "sweep --vary mu=1 --name x"])
def test_a_missing_extra_is_named_with_its_fix(verb: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = run(*verb.split(), "--json", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"] == (
        "this command needs torch, which is not installed: pip install 'codedtool[train]'"
    )


def test_shell_completion_offers_the_verbs(tmp_path: Path) -> None:
    done = run(cwd=tmp_path, _CODEDTOOL_COMPLETE="complete_bash", COMP_WORDS="codedtool ve", COMP_CWORD="1")
    assert done.stdout.split() == ["verify"]
    assert "codedtool" in run("--show-completion", "bash", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("train --preset coded_resnext_t", ["coded_resnext_tiny", "coded_resnext_tiny_16"]),
        ("networks --preset resnext101", ["resnext101_32x8d"]),
        ("eval --run fi", ["first"]),
        ("eval --run other/", ["other/runs/"]),
        ("train --data ci", ["cifar10", "cifar100"]),
        ("eval --data folder:oth", ["folder:other/"]),
        ("train --scheme c100_4", ["c100_4of20", "c100_4of20_joint"]),
        ("train --scheme mine/", ["mine/deeper/", "mine/one.npy"]),
        ("scheme assign --scheme mi", ["mine/"]),
    ],
)
def test_shell_completion_offers_values(line: str, offered: list[str], tmp_path: Path) -> None:
    for folder in ("runs/first", "runs/second", "other/runs", "mine/deeper", ".hidden"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("runs/first/config.json", "runs/second/config.json", "mine/one.npy", "mine/one.json"):
        (tmp_path / file).touch()
    for name in HEAVY:
        # Completion must be quick: to import one of them ends it.
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported {name}')")
    words = f"codedtool {line}"
    done = run(
        cwd=tmp_path,
        _CODEDTOOL_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
        PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    )
    assert done.stdout.split() == offered, done.stderr


def test_scheme_writes_npy_and_record_and_verify_agrees(tmp_path: Path) -> None:
    done = run(*scheme_arguments(100, 20, 4, 4, "--json"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    agreed = (
        "path K N act min_distance s_min s_max spread method greedy_size pairs_at_min distance_histogram "
        "upper_bound hmin_is_optimal seconds"
    )
    assert set(agreed.split()) <= set(document)
    assert set(document["seconds"]) == {"enumerate", "select", "total"}
    assert (document["path"], document["greedy_size"]) == ("schemes/k100_4of20_h4.npy", 189)
    assert (document["s_min"], document["s_max"], document["spread"]) == (20, 20, 0)
    found = CodingScheme.load(tmp_path / document["path"])
    assert found.spread == 0
    assert found.min_distance >= 4
    assert sum(document["distance_histogram"].values()) == 4950

    checked = run("verify", "--json", "--max-spread", "0", "--K", "100", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    report = json.loads(checked.stdout)
    assert set(agreed.split()) <= set(report["files"][0])
    assert report["files"][0]["sha256"] == document["sha256"] == found.sha256

    again = run(*scheme_arguments(100, 20, 4, 4), cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    forced = run(*scheme_arguments(100, 20, 4, 4, "--force"), cwd=tmp_path)
    assert forced.returncode == 0
    assert CodingScheme.load(tmp_path / document["path"]) == found
    assert "the highest possible" in forced.stdout


def test_words_given_are_kept_word_for_word(tmp_path: Path, scheme: CodingScheme) -> None:
    words = ",".join("".join(map(str, row)) for row in scheme.table)
    done = run(*scheme_arguments(10, 10, 3, 4, "--words", words, "--out", "t.npy"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert CodingScheme.load(tmp_path / "t.npy") == scheme
    wrong = run(*scheme_arguments(10, 10, 3, 6, "--words", words), cwd=tmp_path)
    assert wrong.returncode == 3 or (wrong.returncode == 2 and "distance 4" in wrong.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (scheme_arguments(100, 10, 3, 4), 3, "at most 13"),
        (scheme_arguments(300, 10, 5, 2), 3, "C(10, 5) = 252"),
        (scheme_arguments(10, 65, 3, 4), 2, "N must be between 2 and 64"),
        (scheme_arguments(10, 10, 10, 4), 2, "act must be between 1 and N-1"),
        (scheme_arguments(1, 10, 3, 4), 2, "K must be at least 2"),
        (scheme_arguments(10, 10, 3, 0), 2, "hmin must be at least 2"),
        (scheme_arguments(10, 10, 3, "most"), 2, "whole number or max"),
        (scheme_arguments(10, 10, 3, 4, "--out", "x.txt"), 2, "must end in .npy"),
        (scheme_arguments(10, 10, 3, 4, "--words", "01"), 2, "--words gives 1 codewords"),
        (scheme_arguments(10, 10, 3, 4, "--words", "01", "--refine", "none"), 2, "--refine has no effect beside"),
        (
            scheme_arguments(10, 10, 3, 4, "--method", "orbits", "--refine", "local"),
            2,
            "--refine has no effect beside --method orbits",
        ),
        (["scheme", "--K", "10"], 2, "Missing option --N"),
        (["scheme", "assign", "--similarity", "m.npy"], 2, "Missing option"),
        (["scheme", "assign", "--scheme", "gone.npy", "--similarity", "m.npy"], 2, "gone.npy: cannot be read"),
        (["scheme", "assign", "--scheme", "", "--similarity", "m.npy"], 2, ".: cannot be read"),
        (
            ["scheme", "--seed", "7", "assign", "--scheme", "c10_5of10", "--similarity", "m.npy"],
            2,
            "--seed has no effect",
        ),
        (scheme_arguments(10, 10, 3, 4, "--with", "gone.npy"), 2, "gone.npy: cannot be read"),
        (scheme_arguments(1000, 32, 8, 6, "--out", "/proc/none/x.npy"), 2, "cannot write /proc/none/x.npy"),
        (["verify", "nowhere/"], 2, "nowhere: there is no such file"),
        (["bounds", "--K", "10", "--N", "99", "--act", "3"], 2, "64"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = run(*arguments, "--quiet", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_scheme_of_the_highest_distance_is_kept_where_its_usual_name_is_taken(tmp_path: Path) -> None:
    highest = scheme_arguments(6, 6, 3, "max", "--quiet")
    assert run(*highest, cwd=tmp_path).returncode == 0
    (tmp_path / "schemes" / "k6_3of6_h2.npy").write_text("mine")
    again = run(*highest, "--seed", "1", cwd=tmp_path)
    said = " ".join(again.stderr.split())
    assert again.returncode == 2
    assert "exists already" in said
    assert "the scheme that was found is in schemes/k6_3of6_h2.partial.npy" in said
    assert CodingScheme.load(tmp_path / "schemes" / "k6_3of6_h2.partial.npy").num_classes == 6
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "schemes").write_text("no folder")
    refused = run(*highest, "--time-limit", "300", cwd=tmp_path / "other")
    assert "cannot write schemes/k6_3of6_hmax.npy" in " ".join(refused.stderr.split())


def test_an_error_under_json_is_one_document_too(tmp_path: Path) -> None:
    done = run(*scheme_arguments(100, 10, 3, 4, "--json"), cwd=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["exit_code"] == 3


def test_rows_are_ordered_for_the_joint_distance(tmp_path: Path, scheme: CodingScheme) -> None:
    scheme.save(tmp_path / "three.npy")
    done = run(*scheme_arguments(10, 10, 5, 4, "--with", "three.npy", "--out", "five.npy", "--json"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = CodingScheme.load(tmp_path / "five.npy")
    both = np.hstack([found.table, scheme.table])
    joint = min(int((both[i] != both[j]).sum()) for i in range(10) for j in range(i))
    assert joint == json.loads(done.stdout)["joint"]["joint_min_distance"] >= 8
    assert found.spread == 0


def test_similar_classes_get_overlapping_codewords(tmp_path: Path, scheme: CodingScheme) -> None:
    scheme.save(tmp_path / "s.npy")
    similarity = np.kron(np.eye(5), np.ones((2, 2)))
    np.save(tmp_path / "m.npy", similarity)
    done = run("scheme", "assign", "--scheme", "s.npy", "--similarity", "m.npy", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ordered = CodingScheme.load(tmp_path / "s_assigned.npy")
    assert sorted(ordered.words.tolist()) == sorted(scheme.words.tolist())

    def overlap(table: np.ndarray) -> int:
        return sum(int(table[2 * pair] @ table[2 * pair + 1]) for pair in range(5))

    assert overlap(ordered.table) > overlap(scheme.table)


def test_verify_fails_with_exit_3_and_names_the_rule(tmp_path: Path, table: np.ndarray) -> None:
    CodingScheme(table[[0, 2, 5, 6]]).save(tmp_path / "uneven.npy")
    (tmp_path / "broken.npy").write_bytes(b"no")
    done = run("verify", str(tmp_path), "--json", cwd=tmp_path)
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert [entry["passed"] for entry in report["files"]] == [False, False]
    assert "B: column sums" in done.stderr
    assert "0 passed, 2 failed" in done.stderr


def test_bounds_prints_the_certificate(tmp_path: Path) -> None:
    done = run("bounds", "--K", "1000", "--N", "32", "--act", "8", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["highest_not_excluded"] == 8
    by_distance = {bound["min_distance"]: bound for bound in document["bounds"]}
    assert by_distance[10]["best"] == 436


@pytest.mark.parametrize("how", ["interrupt", "time limit"])
def test_an_endless_search_ends_with_the_best_so_far(how: str, tmp_path: Path) -> None:
    limit = "600" if how == "interrupt" else "8"
    arguments = scheme_arguments(50, 64, 16, 12, "--method", "lexicode", "--time-limit", limit)
    with subprocess.Popen(
        [sys.executable, "-m", "codedtool", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        if how == "interrupt":
            for line in process.stderr:
                if "|G|" in line:
                    break
            time.sleep(3)  # algorithm 1 has 4.9e14 words to decide; a few seconds give far more than 50
            process.send_signal(signal.SIGINT)
            start = time.monotonic()
        text = process.stderr.read()
        process.wait(timeout=120)
    if how == "interrupt":
        assert process.returncode == 130, text
        assert time.monotonic() - start < 30
        partial = tmp_path / "schemes" / "k50_16of64_h12.partial.npy"
        assert str(partial.relative_to(tmp_path)) in text
        assert CodingScheme.load(partial).min_distance >= 12
        assert not (tmp_path / "schemes" / "k50_16of64_h12.npy").exists()
    else:
        assert process.returncode == 0, text
        record = json.loads((tmp_path / "schemes" / "k50_16of64_h12.json").read_text())
        assert record["stopped"] == "time limit"


@verb
def _command(
    num_classes: Annotated[int, typer.Option("--K")] = 1,
    fast: Annotated[bool, typer.Option("--fast/--no-fast")] = True,
) -> str:
    return in_flags("`num_classes` is 1, leave `fast` out, `other` is not this command's")


def test_a_message_of_the_library_is_told_in_the_commands_flags() -> None:
    assert _command() == "--K is 1, leave --fast out, `other` is not this command's"
    assert InputError("`num_classes` is 1, `other` is 2").arguments == ("num_classes", "other")
