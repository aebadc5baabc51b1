"""The page of ``codedtool report`` in a headless Chromium: paths, sample images, sorting, keyboard, telephone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch

from codedtool.coding.scheme import CodingScheme
from codedtool.models import build_network
from codedtool.report.classes import class_details
from codedtool.report.page import write_report
from codedtool.report.parts import Part
from codedtool.report.paths import path_details
from codedtool.report.rendering import render_page
from codedtool.training.subject import Outputs
from tests.browser import CHROMIUM, PHONE, Browser, Tab, browser
from tests.commands import run
from tests.runs import copy_of
from tests.subjects import make_subject, noisy_data, randomize, shipped, tiny_schemes

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

HOSTILE = (
    *('</script><script>document.title = "broken"</script>', "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>'),
    *("a&with=b#c%41", "__proto__", "{{ 7 * 7 }}${alert(1)}", "c++ 100%", "ж\u2028 two", "3", "two\nlines"),
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coded run with a page of the parts that are drawn by the script."""
    folder = copy_of(trained, tmp_path_factory.mktemp("page"))
    done = run("report", "--run", "coded", "--only", "eval,decode,paths,samples,classes", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def tab(chromium: Browser, folder: Path) -> Iterator[Tab]:
    """The page in a fresh tab, in which nothing may go wrong and nothing may be fetched."""
    found = chromium.open(folder / "runs" / "coded" / "report.html")
    yield found
    check_quiet(found)


def check_quiet(tab: Tab) -> None:
    """Check that the page asked for nothing but itself, and wrote nothing to the console."""
    assert tab.problems == []
    assert tab.requests[0].startswith("file:")
    assert {address.partition(":")[0] for address in tab.requests[1:]} <= {"data"}


def confusion(folder: Path) -> np.ndarray:
    """The confusion matrix that ``eval`` saved."""
    document = json.loads((folder / "runs" / "coded" / "analysis" / "eval.json").read_text())
    names = [row["class"] for row in document["classes"]]
    return np.array([[document["confusion"][one].get(other, 0) for other in names] for one in names])


def marks(tab: Tab, view: str = "path-view") -> dict[str, list[str]]:
    """The kinds of the squares of every block that is drawn."""
    found: dict[str, list[str]] = {}
    for block, mark in tab.run(
        f"[...document.querySelectorAll('#{view} svg.network .subnn')]"
        ".map((one) => [one.dataset.block, one.dataset.mark])"
    ):
        found.setdefault(block, []).append(mark)
    return found


def rows_of(tab: Tab, caption: str) -> list[list[str]]:
    """The texts of the table whose caption begins so."""
    rows: list[list[str]] = tab.run(
        "(() => { const table = [...document.querySelectorAll('table')].find((one) =>"
        f" one.caption.textContent.startsWith({json.dumps(caption)}));"
        " return [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent)); })()"
    )
    return rows


def of_stage(block: str) -> CodingScheme:
    return tiny_schemes()[block.split(".")[0]]


def test_a_chosen_class_lights_the_subnns_of_its_codeword(tab: Tab, folder: Path) -> None:
    tab.go("#class=3")
    lit = marks(tab)
    assert list(lit) == ["s2.1", "s2.2", "s3.1", "s3.2"]
    for block, kinds in lit.items():
        assert kinds == ["own" if bit else "none" for bit in of_stage(block).table[3]]
    counts = confusion(folder)[3]
    others = [k for k in np.argsort(-counts, kind="stable") if counts[k] and k != 3]
    table = rows_of(tab, f"Wrong answers for the {counts.sum()} validation images of 3")
    assert [row[0] for row in table] == [str(k) for k in others[:8]]
    for name, images, share, *shared in table:
        k = int(name)
        assert (int(images), share) == (counts[k], f"{100 * counts[k] / counts.sum():.2f}")
        for text, scheme in zip(shared, tiny_schemes().values(), strict=True):
            columns = np.flatnonzero(scheme.table[3] & scheme.table[k])
            listed = f" ({', '.join(map(str, columns))})" if len(columns) else ""
            assert text == f"{len(columns)} of {scheme.act}{listed}"


def test_two_classes_show_their_own_and_their_shared_subnns(chromium: Browser, folder: Path) -> None:
    tab = chromium.open(folder / "runs" / "coded" / "report.html", "#class=7&with=4")
    for block, kinds in marks(tab).items():
        one, other = of_stage(block).table[[7, 4]]
        kind = {(1, 1): "shared", (1, 0): "own", (0, 1): "other", (0, 0): "none"}
        assert kinds == [kind[bits] for bits in zip(one.tolist(), other.tolist(), strict=True)]
    differ = [int((scheme.table[7] != scheme.table[4]).sum()) for scheme in tiny_schemes().values()]
    assert [int(row[4]) for row in rows_of(tab, "Codewords of 7 and 4")] == differ
    # Kinds differ in shape too: a diamond in shared squares, a dot in those of the other class.
    shapes = "[...document.querySelectorAll('#path-view .network .%s')].map((one) => one.querySelectorAll('%s').length)"
    assert set(tab.run(shapes % ("shared", "path"))) == {1}
    assert set(tab.run(shapes % ("other", "circle"))) == {1}
    assert set(tab.run(shapes % ("own", "path, circle"))) == {0}
    tab.click("#path-view button.pick[aria-pressed=false]")
    assert tab.run("location.hash") == f"#class=7&with={tab.run('document.activeElement.textContent')}"
    check_quiet(tab)


def test_classes_are_chosen_by_keyboard(tab: Tab) -> None:
    tab.run("document.getElementById('class-chooser-filter').focus()")
    tab.write("6")
    assert "1 of 10 classes" in tab.run("document.querySelector('.chooser').textContent")
    tab.press("Enter")
    assert tab.run("location.hash") == "#class=6"
    # On to the list, in which an arrow key chooses the next class.
    tab.press("Tab", "ArrowDown")
    assert tab.run("location.hash") == "#class=7"
    tab.press("Tab", "Tab", "ArrowDown")
    assert tab.run("location.hash") == "#class=7&with=0"
    tab.press("Tab")
    assert tab.run("document.activeElement.classList.contains('network')")
    tab.press("ArrowDown", "ArrowDown", "ArrowRight")
    told = tab.run("document.querySelector('#path-view .told').textContent")
    assert told.startswith("block s2.2, subNN 1: on ")
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_an_unknown_class_is_named(tab: Tab) -> None:
    tab.go("#class=zebra")
    assert "There is no class called zebra." in tab.run("document.getElementById('path-view').textContent")
    tab.go("#class=%")
    tab.go("#image=99")
    assert tab.run("document.querySelector('#sample-view h3').textContent") == "Image 1"
    assert "There is no sample image 99." in tab.run("document.getElementById('sample-view').textContent")
    tab.click(".samples button")
    assert "There is no sample image" not in tab.run("document.getElementById('sample-view').textContent")


def test_a_sample_image_shows_the_subnns_that_fired(tab: Tab, folder: Path) -> None:
    from codedtool.deploy.prediction import predict_numbers
    from codedtool.training.run import Run
    from codedtool.training.subject import opened_run

    with opened_run(Run.load(folder / "runs" / "coded")) as subject:
        outputs = subject.outputs()
        labels = tab.run("[...document.querySelectorAll('.samples img')].map((one) => one.alt)")
        numbers = np.array([int(label.rpartition(" ")[2]) for label in labels])
        found = predict_numbers(subject, numbers, evidence=subject.evidence())
        wrong = (outputs.predictions != outputs.targets)[numbers]
    assert len(found) == 12
    assert int(wrong.sum()) == 4
    for place in (int(np.flatnonzero(wrong)[0]), int(np.flatnonzero(~wrong)[0])):
        tab.go(f"#image={place + 1}")
        one = found[place]
        drawn = marks(tab, "sample-view")
        assert list(drawn) == [part.block for part in one.path]
        ticks = tab.run(
            "[...document.querySelectorAll('#sample-view .network .subnn')].map((one) =>"
            " ['left', 'right'].map((side) => Number(one.querySelector(`.tick.${side}`) !== null)))"
        )
        for part in one.path:
            assert drawn[part.block] == ["fired" if bit == "1" else "quiet" for bit in part.fired]
            mine, ticks = np.array(ticks[: len(part.fired)]), ticks[len(part.fired) :]
            table = of_stage(part.block).table
            assert mine[:, 0].tolist() == table[int(str(one.actual))].tolist()
            answer = table[int(one.class_name)] if one.class_name != one.actual else np.zeros(10, int)
            assert mine[:, 1].tolist() == answer.tolist()
        text = tab.run("document.querySelector('#sample-view p').textContent")
        assert one.confidence is not None
        for said in (
            f"validation image {numbers[place]}: the network says {one.class_name}",
            f"Confidence {int(1000 * one.confidence) / 10}% ({one.agreeing} of 4 early decoders agree",
            f"measured on {one.confidence_images} validation image",
            f"Softmax: {one.class_name} {100 * one.probability:.1f}%",
        ):
            assert said in text
        fired = rows_of(tab, "SubNNs that fired")
        assert [row[1] for row in fired] == [part.decoder for part in one.path]
        answered = [f"{part.own[0]} of {part.own[1]}" for part in one.path]
        assert [row[3 if one.class_name != one.actual else 2] for row in fired] == answered
    tab.click("#sample-view > p > button")
    assert f"class={one.actual}&" in tab.run("location.hash") + "&"
    tab.run("document.querySelector('.samples button').focus()")
    tab.press("Tab", "Enter")
    assert tab.run(
        "[...document.querySelectorAll('.samples [aria-pressed=true]')].map((one) => one.dataset.image)"
    ) == ["2"]
    assert tab.run("location.hash").endswith("image=2")


def test_the_confusion_matrix_is_read_by_pointer_and_keyboard(tab: Tab, folder: Path) -> None:
    counts = confusion(folder)
    told = "document.querySelector('#confusion-view .told').textContent"
    tab.run("document.querySelector('#confusion-view svg').focus()")
    tab.press("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", *["ArrowRight"] * 7)
    total = counts[3].sum()
    assert tab.run(told) == f"3 taken for 7: {counts[3, 7]} of {total} images ({100 * counts[3, 7] / total:.2f}%)"
    written = tab.run(
        "[...document.querySelectorAll('#confusion-view svg text:not([text-anchor=end])')].map("
        "(one) => one.textContent)"
    )
    assert sorted(written) == sorted([*map(str, range(10)), *(str(count) for count in counts.flatten() if count)])
    tab.press("Enter")
    assert tab.run("location.hash") == "#class=3&with=7"
    tab.click("#confusion-view svg")
    assert " taken for " in tab.run(told)
    # The figure is for readers without JavaScript.
    assert tab.run("document.getElementById('eval-figures').hidden")
    pairs = rows_of(tab, "The most confused pairs of classes")
    off = counts - np.diag(np.diag(counts))
    assert [int(row[2]) for row in pairs] == sorted(off.flatten().tolist(), reverse=True)[:20]
    for of, taken_for, images, *_ in pairs:
        assert off[int(of), int(taken_for)] == int(images)


def test_tables_are_sorted_by_their_headings(tab: Tab, folder: Path) -> None:
    before = rows_of(tab, "Accuracy by class")
    heading = "#eval table:nth-of-type(1)"
    tables = tab.run("[...document.querySelectorAll('#eval table')].map((one) => one.caption.textContent)")
    number = next(i for i, caption in enumerate(tables) if caption.startswith("Accuracy by class"))
    tab.run(f"[...document.querySelectorAll('#eval table')][{number}].id = 'here'")
    heading = "#here thead th:nth-child(3)"
    tab.click(f"{heading} button")
    assert tab.run(f"document.querySelector('{heading}').getAttribute('aria-sort')") == "ascending"
    rising = rows_of(tab, "Accuracy by class")
    assert [float(row[2]) for row in rising] == sorted(float(row[2]) for row in before)
    tab.press("Enter")
    assert tab.run(f"document.querySelector('{heading}').getAttribute('aria-sort')") == "descending"
    assert [row[2] for row in rows_of(tab, "Accuracy by class")] == [row[2] for row in reversed(rising)]
    tab.click("#here thead th:first-child button")
    assert tab.run("document.querySelectorAll('#here [aria-sort]').length") == 1
    assert rows_of(tab, "Accuracy by class") == before


@pytest.mark.parametrize(
    ("texts", "ascending"),
    [
        ("1,000 9 – 10.5 -3 2e-05", "-3 2e-05 9 10.5 1,000 –"),
        ("10% 9.5% 100% nan", "9.5% 10% 100% nan"),
        ("90.1±2 100.0±0 –", "90.1±2 100.0±0 –"),
        ("s3.10 s3.2 s10.1 s2.1", "s2.1 s3.2 s3.10 s10.1"),
        ("margin:0.2 margin:0.15 agree:10 agree:9", "agree:9 agree:10 margin:0.15 margin:0.2"),
        ("dog – cat Äpfel", "Äpfel cat dog –"),
        ("10 cat 9", "9 10 cat"),
    ],
)
def test_numbers_are_sorted_by_value_and_empty_cells_come_last(tab: Tab, texts: str, ascending: str) -> None:
    rows = json.dumps([[text] for text in texts.split()])
    tab.run(f"document.body.append(makeTable('made here', ['one'], {rows}))")
    tab.run("[...document.querySelectorAll('table')].at(-1).querySelector('button').click()")
    assert [row[0] for row in rows_of(tab, "made here")] == ascending.split()
    tab.run("[...document.querySelectorAll('table')].at(-1).querySelector('button').click()")
    is_empty = [text in ("–", "nan") for text in ascending.split()]
    full = [text for text, empty in zip(ascending.split(), is_empty, strict=True) if not empty]
    assert [row[0] for row in rows_of(tab, "made here")][: len(full)] == full[::-1]


def page_of(folder: Path, classes: tuple[str, ...], schemes: dict[str, CodingScheme]) -> Path:
    """The page of a run on noise, without a training."""
    preset = "coded_resnext_tiny" if schemes else "resnext_tiny"
    network = randomize(build_network(preset, schemes))
    data = noisy_data(classes, train=1, val=4)
    subject = make_subject(folder, network, data, schemes=schemes, preset=preset, batch_size=100)
    only = ("eval", "samples", "classes", *(["paths"] if schemes else []))
    write_report(subject, folder / "page.html", only=only)
    return folder / "page.html"


def page_of_a_thousand_classes(folder: Path, schemes: dict[str, CodingScheme]) -> Path:
    """A page with 50 images of each of 1,000 classes, whose outputs are drawn at random."""
    preset, names = "coded_resnext29_32x1d", tuple(f"class {k:04d}" for k in range(1000))
    network = build_network(preset, schemes)
    subject = make_subject(folder, network, noisy_data(names, train=1, val=1), schemes=schemes, preset=preset)
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(50_000) % 1000
    moved = (targets + torch.randn(50_000, generator=generator).mul(2).long()) % 1000
    energies = tuple(torch.rand(50_000, 32, generator=generator) * 4 for _ in network.coded_blocks)
    outputs = Outputs(torch.nn.functional.one_hot(moved, 1000), targets, energies, moved[:, None])
    of_paths, of_classes = path_details(subject, outputs), class_details(subject, outputs)
    parts = {"paths": Part("paths", details=of_paths), "eval": Part("eval", details=of_paths)}
    page = folder / "page.html"
    page.write_text(render_page(subject, parts | {"classes": Part("classes", details=of_classes)}, []))
    return page


LONG = tuple(f"{digit}{'longname' * 6}" for digit in "0123456789")


def check_fits_a_telephone(tab: Tab) -> None:
    """Check that the page is as wide as the screen; tables and drawings scroll in boxes of their own."""
    assert tab.run("innerWidth") == PHONE[0]
    tab.run("for (const one of document.querySelectorAll('details')) one.open = true")
    beyond = (
        "[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, nav') &&"
        " one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML.slice(0, 80))"
    )
    assert tab.run(beyond) == []
    assert tab.run("document.documentElement.scrollWidth") == PHONE[0]
    check_quiet(tab)


def test_nothing_is_wider_than_a_telephone(chromium: Browser, folder: Path, tmp_path: Path) -> None:
    view = "#class=3&with=8&image=2"
    check_fits_a_telephone(chromium.open(folder / "runs" / "coded" / "report.html", view, size=PHONE))
    check_fits_a_telephone(chromium.open(page_of(tmp_path, LONG, tiny_schemes()), view, size=PHONE))


def test_the_keyboard_keeps_in_view_what_it_points_at(chromium: Browser, tmp_path: Path) -> None:
    tab = chromium.open(page_of(tmp_path, LONG, tiny_schemes()), size=PHONE)
    tab.run("document.querySelector('#confusion-view svg').focus()")
    tab.press(*["ArrowRight"] * 10, *["ArrowDown"] * 9)
    places = (
        "['#confusion-view .cursor', '#confusion-view .scroll'].map((one) => {"
        " const {left, right, top, bottom} = document.querySelector(one).getBoundingClientRect();"
        " return [left, right, top, bottom]; })"
    )
    (left, right, top, bottom), (first, last, *_) = tab.run(places)
    assert first <= left < right <= last
    assert tab.run("document.querySelector('nav').getBoundingClientRect().bottom") <= top < bottom <= PHONE[1]
    # Going back, a focused button is not left under the bar of links.
    tab.run("window.scrollTo(0, document.documentElement.scrollHeight)")
    covered = (
        "(() => { const one = document.activeElement;"
        " return one.closest('nav') ? 0 : document.querySelector('nav').getBoundingClientRect().bottom"
        " - one.getBoundingClientRect().top; })()"
    )
    tab.run("[...document.querySelectorAll('section button, section select')].at(-1).focus()")
    for _ in range(20):
        tab.press("Shift+Tab")
        assert tab.run(covered) <= 0


def test_names_of_wide_letters_fit_beside_the_confusion_matrix(chromium: Browser, tmp_path: Path) -> None:
    names = tuple(f"{'W' * 17}{digit}" for digit in range(10))
    tab = chromium.open(page_of(tmp_path, names, tiny_schemes()))
    outside = (
        "(() => { const svg = document.querySelector('#confusion-view svg'), box = svg.getBoundingClientRect();"
        " return [...svg.querySelectorAll('text')].filter((one) => { const at = one.getBoundingClientRect();"
        " return at.left < box.left - 0.5 || at.top < box.top - 0.5; }).length; })()"
    )
    assert tab.run(outside) == 0
    check_quiet(tab)


def test_hostile_names_are_shown_and_linked_as_they_are(chromium: Browser, tmp_path: Path) -> None:
    page = page_of(tmp_path, HOSTILE, tiny_schemes())
    tab = chromium.open(page)
    assert tab.run("document.title") == "run – codedtool report"
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert tab.run("[...document.querySelectorAll('img')].filter((one) => !one.src.startsWith('data:')).length") == 0
    for k, name in enumerate(HOSTILE):
        shown = tab.run(f"data.classes[{k}]")
        assert shown == name.replace("\n", r"\n").replace("\u2028", r"\u2028")
        tab.run(f"choose({{class: {k}, with: {(k + 1) % 10}}})")
        address = tab.run("location.hash")
        assert address.startswith(f"#class={quote(shown, safe=chr(39) + '!()*~')}&with=")
        tab.go("#class=4")
        tab.go(address)
        drawn = "document.querySelector('#path-view svg.network').dataset"
        assert tab.run(f"[{drawn}.class, {drawn}.with]") == [shown, tab.run(f"data.classes[{(k + 1) % 10}]")]
    assert tab.run("document.querySelectorAll('script').length") == 2
    check_quiet(tab)


def test_a_page_of_a_thousand_classes_opens(chromium: Browser, tmp_path: Path) -> None:
    schemes = {"s2": shipped("in1k_16of32"), "s3": shipped("in1k_8of32")}
    page = page_of_a_thousand_classes(tmp_path, schemes)
    tab = chromium.open(page, "#class=class%200999&with=17", size=PHONE)
    for block, kinds in marks(tab).items():
        one, other = schemes[block.split(".")[0]].table[[999, 17]]
        assert [kind in ("own", "shared") for kind in kinds] == one.astype(bool).tolist()
        assert [kind in ("other", "shared") for kind in kinds] == other.astype(bool).tolist()
    tab.run("document.getElementById('class-chooser-filter').focus()")
    tab.write("class 012")
    assert tab.run("document.getElementById('class-chooser').options.length") == 11
    tab.press("Enter")
    assert tab.run("location.hash") == "#class=class%200120"
    tab.run("document.querySelector('#confusion-view svg').focus()")
    tab.press("ArrowRight", "ArrowRight")
    assert tab.run("document.querySelector('#confusion-view .told').textContent").startswith(
        "class 0000 taken for class 0001"
    )
    assert tab.run("document.querySelectorAll('#confusion-view svg *').length") < 30
    assert tab.run("document.documentElement.scrollWidth") == PHONE[0]
    check_quiet(tab)


def test_a_plain_run_has_sample_images_and_no_paths(chromium: Browser, tmp_path: Path) -> None:
    tab = chromium.open(page_of(tmp_path, tuple("0123456789"), {}), "#class=3&image=2")
    assert tab.run("document.getElementById('paths')") is None
    assert tab.run("document.querySelector('#sample-view h3').textContent") == "Image 2"
    assert tab.run("document.querySelectorAll('svg.network').length") == 0
    assert tab.run("document.querySelectorAll('svg.matrix').length") == 1
    check_quiet(tab)


def test_a_script_that_is_not_the_pages_own_does_not_run(chromium: Browser, folder: Path, tmp_path: Path) -> None:
    text = (folder / "runs" / "coded" / "report.html").read_text()
    planted = "<script>document.title = 'broken'</script>"
    planted += "<img src='https://example.org/a.png' onerror='document.title = 1'>"
    (tmp_path / "page.html").write_text(text.replace("</main>", planted + "</main>"))
    tab = chromium.open(tmp_path / "page.html", "#class=3")
    assert tab.run("document.title") == "coded – codedtool report"
    assert len(marks(tab)) == 4
    assert len([problem for problem in tab.problems if "Content Security Policy" in problem]) >= 2
    assert [address for address in tab.requests if address.startswith("http")] == tab.blocked
    assert tab.blocked == ["https://example.org/a.png"]


def test_without_scripts_the_page_has_all_tables_and_figures(chromium: Browser, folder: Path) -> None:
    tab = chromium.open(folder / "runs" / "coded" / "report.html", "#class=3", scripts=False)
    assert "The drawing needs JavaScript." in tab.run("document.getElementById('paths').innerText")
    assert tab.run("document.querySelector('#eval-figures img').checkVisibility()")
    assert [row[0] for row in rows_of(tab, "Accuracy by class")] == list("0123456789")
    assert tab.run("document.querySelectorAll('#classes details code').length") == 20
    assert tab.run("document.querySelectorAll('.samples img').length") == 12
    assert tab.run("document.querySelectorAll('th button, .samples button:enabled').length") == 0
    check_quiet(tab)
