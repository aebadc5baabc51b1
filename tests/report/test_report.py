"""The page of ``codedtool report``: self-contained, complete, and honest about what it leaves out."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codedtool.analysis.catalogue import CATALOGUE
from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.files import FileError
from tests.commands import run
from tests.paths import SCHEMES
from tests.runs import copy_of


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coded run, a plain run, and the coded one's page."""
    folder = copy_of(trained, tmp_path_factory.mktemp("report"))
    done = run("report", "--run", "coded", "--compare", "plain", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "coded.json").write_text(done.stdout)
    return folder


class Page(HTMLParser):
    """What a page links to, its images and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a":
            self.anchors.append(str(values["href"]))
        elif tag == "img":
            self.images.append(values)
        self.loaded += [str(values[key]) for key in ("src", "srcset", "data", "poster") if values.get(key)]
        if tag == "link":
            self.loaded.append(str(values["href"]))


def data_of(text: str) -> dict[str, Any]:
    """The data that the page's script draws."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_page_loads_nothing_and_every_link_has_its_target(folder: Path) -> None:
    text = (folder / "runs" / "coded" / "report.html").read_text()
    page = Page(text)
    assert page.loaded
    assert all(address.startswith("data:") for address in page.loaded)
    assert not re.search(r"@import|url\(", text)
    assert page.anchors
    assert all(anchor.startswith("#") and anchor[1:] in page.ids for anchor in page.anchors)
    assert len(page.ids) == len(set(page.ids))
    assert "script" in page.tags
    assert not re.search(r"<script[^>]*\bsrc=", text)


def test_every_figure_is_in_the_page_with_a_description(folder: Path) -> None:
    page = Page((folder / "runs" / "coded" / "report.html").read_text())
    analysis = folder / "runs" / "coded" / "analysis"
    drawn = {path.read_bytes() for path in analysis.glob("*.svg")}
    figures = [str(image["src"]) for image in page.images if str(image["src"]).startswith("data:image/svg")]
    shown = {base64.b64decode(address.split(",")[1]) for address in figures}
    assert len(drawn) >= 9
    assert shown == drawn
    assert all(image["alt"] for image in page.images)
    assert all(path.with_suffix(".png").exists() for path in analysis.glob("*.svg"))
    tables = {path.stem for path in analysis.glob("*.csv")}
    assert {path.stem.removesuffix("_scores") for path in analysis.glob("*.svg")} - {"training"} <= tables


def test_page_has_every_class_with_its_path_and_mean_energies(folder: Path) -> None:
    text = (folder / "runs" / "coded" / "report.html").read_text()
    page = Page(text)
    assert [f"class-{k}" for k in range(10)] == [name for name in page.ids if re.fullmatch(r"class-\d+", name)]
    data = data_of(text)
    assert [block["name"] for block in data["blocks"]] == ["s2.1", "s2.2", "s3.1", "s3.2"]
    for block, energies in zip(data["blocks"], data["energies"], strict=True):
        stage, codewords = data["schemes"][block["scheme"]].values()
        assert block["name"].startswith(f"{stage}.")
        scheme = CodingScheme.load(SCHEMES / f"c10_{'5of10' if stage == 's2' else '3of10'}.npy")
        assert codewords == ["".join(map(str, row)) for row in scheme.table.tolist()]
        # r E(tbar_n) sums to r N = N_act for every image, and so for their mean; entries are hundredths.
        sums = np.array(energies).sum(axis=1) / 100
        np.testing.assert_allclose(sums, scheme.act, atol=0.005 * scheme.length + 1e-6)


def test_report_names_what_it_leaves_out_and_a_plain_run_gets_what_applies(folder: Path) -> None:
    document = json.loads((folder / "coded.json").read_text())
    measured = [row.name for row in CATALOGUE if "ood" not in row.needs]
    assert document["parts"] == ["training", "paths", "samples", *measured, "classes"]
    assert any("`ood`" in reason for reason in document["skipped"])
    done = run("report", "--run", "plain", "--out", "plain.html", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert plain["parts"] == ["training", "samples", *(row.name for row in CATALOGUE if not row.needs), "classes"]
    reasons = "\n".join(plain["skipped"])
    for part in (*(row.title for row in CATALOGUE if "coded" in row.needs), "h_aug"):
        assert part in reasons
    text = (folder / "plain.html").read_text()
    assert "Left out" in text
    assert "without schemes" in text


def test_the_plain_networks_accuracy_stands_beside_the_coded_ones(folder: Path) -> None:
    evaluated = json.loads((folder / "runs" / "coded" / "analysis" / "eval.json").read_text())
    rows = [json.loads(line) for line in (folder / "runs" / "plain" / "metrics.jsonl").read_text().splitlines()]
    assert evaluated["plain"]["run"] == "runs/plain"
    assert evaluated["plain"]["accuracy"] == max(row["val_accuracy"] for row in rows)
    text = (folder / "runs" / "coded" / "report.html").read_text()
    assert f"<b>{100 * evaluated['plain']['accuracy']:.2f}%</b>accuracy of the plain network" in text


FINISHED = ["paths", "samples", *(row.name for row in CATALOGUE if "ood" not in row.needs), "classes"]


def again(folder: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    done = run("report", "--run", "coded", "--compare", "plain", "--force", "--json", *flags, cwd=folder)
    return done.returncode, json.loads(done.stdout)


def test_finished_parts_are_used_again_until_what_they_were_made_of_changes(folder: Path) -> None:
    page = folder / "runs" / "coded" / "report.html"
    analysis = folder / "runs" / "coded" / "analysis"
    before = page.read_bytes()
    assert again(folder)[1]["reused"] == FINISHED
    assert page.read_bytes() == before
    # A part that was not stored before the report was stopped, and one whose file is damaged, are made again.
    stored = analysis / "parts" / "activations.json"
    stored.write_bytes(stored.read_bytes()[:-9])
    (analysis / "parts" / "eval.json").unlink()
    # Nor does a part stand for another one, or with other contents than it was stored with.
    shutil.copy(analysis / "parts" / "cost.json", analysis / "parts" / "decode.json")
    classes = analysis / "parts" / "classes.json"
    classes.write_text(classes.read_text().replace('"num_images": 3', '"num_images": 4'))
    made = ("activations", "eval", "decode", "classes")
    assert again(folder)[1]["reused"] == [name for name in FINISHED if name not in made]
    code, document = again(folder, "--only", "eval,decode", "--batch-size", "100", "--out", str(folder / "a.html"))
    assert (code, document["reused"], document["parts"]) == (0, [], ["eval", "decode"])
    other = json.loads(run("report", "--run", "coded", "--only", "eval", "--json", "--force", cwd=folder).stdout)
    assert other["reused"] == []


def test_a_page_has_the_parts_that_were_asked_for(folder: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "page.html")
    code, document = again(folder, "--skip", "bc,cost", "--skip", "calibrate", "--skip", "classes", "--out", target)
    assert code == 0
    measured = ["eval", "specialize", "decode", "activations"]
    assert document["parts"] == ["training", "paths", "samples", *measured]
    assert any(
        "Binary classifiers, Confidence, Cost, Class by class: not asked for" in one for one in document["skipped"]
    )
    text = Path(target).read_text()
    page = Page(text)
    assert "classes" not in page.ids
    assert all(anchor[1:] in page.ids for anchor in page.anchors)
    for flags, message in (
        (("--only", "calibration"), "--only 'calibration': there is no such part; did you mean calibrate?"),
        (("--skip", "evl"), "--skip 'evl': there is no such part; did you mean eval?"),
        (("--only", "bc", "--skip", "bc"), "--only and --skip leave no part"),
    ):
        code, document = again(folder, *flags)
        assert (code, message in document["error"]) == (2, True), document


def test_an_analysis_that_fails_is_left_out_and_the_rest_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("--only", "training,eval,decode", "--batch-size", "90", "--out", str(tmp_path / "page.html"))
    for error, by_default, by_name in (
        (InputError("too few images"), 0, 2),
        (RuntimeError("surprise"), 1, 1),
        (MemoryError(), 3, 3),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("codedtool.analysis.decoding.decode", fail)
        code, document = again(folder, *wanted)
        assert (code, document["parts"]) == (by_name, ["training", "eval"])
        (failure,) = document["failed"]
        assert failure["part"] == "Early decoders and early exit"
        assert ("traceback" in failure) == (by_name == 1)
        assert failure["reason"] in (tmp_path / "page.html").read_text()
        skip = ("--skip", "bc,calibrate,specialize,activations,cost,ood", "--batch-size", "90", "--out", wanted[-1])
        code, document = again(folder, *skip)
        assert (code, document["parts"]) == (by_default, ["training", "paths", "samples", "eval", "classes"])
        assert any("Early decoders" in reason for reason in document["skipped"])


def test_a_run_without_its_data_set_gives_the_page_of_what_is_stored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def gone(*_: object, **__: object) -> None:
        looks.append("data")
        raise InputError("no such data set")

    # Earlier tests stored some parts with other batches.
    assert again(folder)[0] == 0
    monkeypatch.setattr("codedtool.training.run_data.load_dataset", gone)
    target = ("--out", str(tmp_path / "page.html"))
    code, document = again(folder, *target)
    assert (code, document["reused"]) == (0, FINISHED)
    assert any("were not looked at: no such data set" in reason for reason in document["skipped"])
    assert len(looks) == 1
    shutil.rmtree(folder / "runs" / "coded" / "analysis" / "parts")
    code, document = again(folder, *target)
    assert (code, document["parts"], document["reused"]) == (0, ["training", "cost"], [])
    assert any(reason.endswith("Class by class: no such data set") for reason in document["skipped"])
    assert again(folder, *target, "--data", "digits")[0] == 2


def test_a_run_that_cannot_be_written_to_gives_its_page_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise FileError(f"cannot write {path}: Read-only file system", "Read-only file system")

    monkeypatch.setattr("codedtool.analysis.artifacts.write_atomically", refuse)
    target = tmp_path / "page.html"
    code, document = again(folder, "--only", "training,eval", "--batch-size", "80", "--out", str(target))
    assert (code, document["parts"]) == (0, ["training", "eval"])
    assert len(Page(target.read_text()).images) == 2


def test_an_existing_page_is_kept_without_force(folder: Path) -> None:
    page = folder / "runs" / "coded" / "report.html"
    before = page.read_bytes()
    done = run("report", "--run", "coded", cwd=folder)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert page.read_bytes() == before
    done = run("report", "--run", "coded", "--out", "page.txt", cwd=folder)
    assert done.returncode == 2
    assert ".html" in done.stderr


def test_class_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    from PIL import Image

    names = ["<img src=x onerror=alert(1)>", "a&b", 'quote"s', "ж", "plain", "e", "f", "g", "h", "</script>i"]
    names = [name.replace("/", "\u2215") for name in names]
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in names:
            for number in range(4):
                target = tmp_path / "data" / split / name / f"{number}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(target)
    schemes = ["--scheme", str(SCHEMES / "c10_5of10.npy"), "--scheme", str(SCHEMES / "c10_3of10.npy")]
    values = ["--data", f"folder:{tmp_path / 'data'}", "--preset", "coded_resnext_tiny", "--epochs", "1"]
    values += ["--train-size", "8", "--eval-size", "8", "--batch-size", "20", "--num-workers", "0"]
    values += ["--warmup-epochs", "0", "--cooldown-epochs", "0"]
    done = run("train", *schemes, *values, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("report", "--num-workers", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("*/report.html")
    page = Page(path.read_text())
    assert all(str(image["src"]).startswith("data:") for image in page.images)
    assert len([name for name in page.ids if re.fullmatch(r"class-\d+", name)]) == len(names)
    assert page.tags.count("script") == 2
    data = data_of(path.read_text())
    assert sorted(data["classes"]) == sorted(names)
    assert len(data["samples"]) == 12


@pytest.mark.parametrize("backend", ["none-such", "module://none.such", "agg", ""])
def test_figures_are_drawn_whatever_backend_a_notebook_asks_for(backend: str, tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from codedtool.analysis.artifacts import write_figure\n"
        "from codedtool.report.style import new_figure\n"
        f"write_figure(Path({str(tmp_path / 'figure.png')!r}), new_figure()[0])\n"
        "import matplotlib, os\n"
        "print(os.environ['MPLBACKEND'], dict.__getitem__(matplotlib.rcParams, 'backend'))"
    )
    environment = os.environ | {"MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").exists()
    assert done.stdout.startswith(backend)
    # A backend that exists stays the notebook's.
    assert (backend in done.stdout.split(maxsplit=1)[-1]) == (backend != "none-such")
