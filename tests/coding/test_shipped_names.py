"""The shipped schemes belong to the installation: they are taken by name wherever one stands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from codedtool.coding.scheme import CodingScheme
from codedtool.coding.shipped import scheme_path, shipped_folder, shipped_names, shown_path
from codedtool.errors import InputError
from codedtool.training.stages import assign
from tests.coding.test_shipped import SHIPPED
from tests.paths import ROOT, SCHEMES


def program(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "codedtool", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_names_are_those_of_the_files() -> None:
    assert set(shipped_names()) == set(SHIPPED)
    for name in shipped_names():
        assert CodingScheme.shipped(name) == CodingScheme.load(SCHEMES / f"{name}.npy")


def test_a_path_stays_a_path_and_an_existing_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert scheme_path("c10_3of10") == shipped_folder() / "c10_3of10.npy"
    assert scheme_path("schemes/c10_3of10") == Path("schemes/c10_3of10")
    assert scheme_path("c10_3of10.npy") == Path("c10_3of10.npy")
    assert scheme_path("./c10_3of10") == Path("c10_3of10")
    (tmp_path / "c10_5of10").mkdir()
    assert scheme_path("c10_5of10") == shipped_folder() / "c10_5of10.npy"
    shutil.copy(SCHEMES / "c10_3of10.npy", tmp_path / "c10_3of10")
    assert scheme_path("c10_3of10") == Path("c10_3of10")
    assert (shown_path(scheme_path("c10_5of10")), shown_path(Path("a/b.npy"))) == ("c10_5of10", "a/b.npy")


def test_an_unknown_name_and_a_missing_path_name_the_shipped_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c100_4of21: there is no such file.*did you mean c100_4of20\?"):
        CodingScheme.shipped("c100_4of21")
    with pytest.raises(InputError, match=r"c10_3of10\.npy: cannot be read.*give c10_3of10, without folder"):
        CodingScheme.load(tmp_path / "c10_3of10.npy")
    with pytest.raises(InputError, match=r"mine\.npy: cannot be read.*`codedtool schemes` lists them"):
        CodingScheme.load(tmp_path / "mine.npy")


def test_the_sibling_of_a_name_is_a_shipped_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = assign([Path("c100_4of20")])
    assert found.siblings == {"s2"}
    assert found.provenance() == {"sources": {"s2": "c100_8of20", "s3": "c100_4of20"}}
    assert "  s2  r = 8/20  c100_8of20, the sibling of the given scheme" in found.lines()


def test_commands_list_and_check_the_shipped_schemes_anywhere(tmp_path: Path) -> None:
    listed = program(tmp_path, "schemes", "--json", "--quiet")
    assert listed.returncode == 0, listed.stderr
    rows = {row["name"]: row for row in json.loads(listed.stdout)["schemes"]}
    assert {name: (row["K"], row["N"], row["act"], row["min_distance"]) for name, row in rows.items()} == SHIPPED
    assert rows["c10_3of10"]["joint_partner"] == {
        "name": "c10_5of10_joint",
        "joint_min_distance": 10,
        "pairs_at_joint_min": 40,
    }
    checked = program(tmp_path, "verify", "--quiet")
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, f"{len(SHIPPED)} passed, 0 failed")
    made = program(tmp_path, "scheme", *"--K 10 --N 10 --act 3 --hmin 4 --with c10_5of10_joint --quiet".split())
    assert made.returncode == 0, made.stderr
    (tmp_path / "schemes" / "bad.npy").write_bytes(b"no scheme")
    assert program(tmp_path, "verify", "--quiet").returncode == 3  # the folder that is there wins


@pytest.mark.slow
def test_a_wheel_outside_the_clone_has_the_schemes(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "-w", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    templates = ROOT / "codedtool" / "report" / "templates"
    assert {path.relative_to(ROOT).as_posix() for path in templates.rglob("*.*")} <= packed
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    listed = program(tmp_path, "schemes", "--json", "--quiet", PYTHONPATH=str(site))
    document = json.loads(listed.stdout)
    assert Path(document["folder"]) == site / "codedtool" / "schemes"
    assert {row["name"] for row in document["schemes"]} == set(SHIPPED)
    assert program(tmp_path, "verify", "--quiet", PYTHONPATH=str(site)).returncode == 0
    trained = program(
        tmp_path,
        *"train --scheme c10_5of10 --data digits --epochs 1 --device cpu --warmup-epochs 0 --quiet".split(),
        PYTHONPATH=str(site),
    )
    assert trained.returncode == 0, trained.stderr
    assert "s3 r = 3/10 c10_3of10, the sibling" in " ".join(trained.stdout.split())
