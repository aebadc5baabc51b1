"""Draws the pictures of docs/images: ``python docs/figures.py``, from the root of the repository.

The diagrams are SVG with real text in the reader's own fonts, and follow the reader's light or dark setting.
``energies.png`` comes from a short training on scikit-learn's digits, about half a minute on two cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from codedtool import CodingScheme

IMAGES = Path(__file__).parent / "images"
SCHEMES = Path(__file__).parents[1] / "schemes"

STYLE = """
  svg { --ink: #1f2328; --soft: #57606a; --line: #8c959f; --face: #f6f8fa; --on: #0550ae; --on-face: #dbeafe;
        --loss: #953800; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6edf3; --soft: #9da7b3; --line: #6e7681; --face: #21262d; --on: #79c0ff; --on-face: #12335c;
          --loss: #ffa657; }
  }
  text { font: 15px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink);
         text-anchor: middle; }
  .left { text-anchor: start; }
  .right { text-anchor: end; }
  .soft { fill: var(--soft); }
  .small { font-size: 13px; }
  .bold { font-weight: 600; }
  .loss { fill: var(--loss); }
  .digit { font-family: ui-monospace, Menlo, Consolas, monospace; }
  .line { stroke: var(--line); stroke-width: 1.6; fill: none; }
  .loss-line { stroke: var(--loss); stroke-width: 1.6; fill: none; }
  .path { stroke: var(--on); stroke-width: 2.4; fill: none; }
  .box { fill: var(--face); stroke: var(--line); stroke-width: 1.4; }
  .active { fill: var(--on-face); stroke: var(--on); }
  .inactive { stroke-dasharray: 5 4; }
  .bar { fill: var(--line); }
  .bar-active { fill: var(--on); }
  .head { fill: var(--line); }
"""
ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
)


class Drawing:
    """An SVG picture, element by element."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'aria-labelledby="title description">',
            f'<title id="title">{title}</title>',
            f'<desc id="description">{description}</desc>',
            f"<style>{STYLE}</style>",
            ARROW,
        ]

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Text centred at x, unless the kind says left or right."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}"{_class(kind)}>{text}</text>')

    def path(self, path: str, kind: str = "line", *, arrow: bool = True) -> None:
        """A line, with an arrow at its end."""
        head = ' marker-end="url(#arrow)"' if arrow else ""
        self.parts.append(f'<path class="{kind}" d="{path}"{head}/>')

    def box(self, x: float, y: float, width: float, height: float, kind: str = "", *, round: float = 6) -> None:
        """A rectangle with rounded corners."""
        self.parts.append(
            f'<rect{_class(f"box {kind}".strip())} x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            f'rx="{round:g}"/>'
        )

    def bar(self, x: float, bottom: float, width: float, height: float, kind: str) -> None:
        """A bar of a bar chart."""
        self.parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{bottom - height:g}" width="{width:g}" height="{height:g}" rx="1.5"/>'
        )

    def circle(self, x: float, y: float, sign: str) -> None:
        """A sum."""
        self.parts.append(f'<circle class="box" cx="{x:g}" cy="{y:g}" r="17"/>')
        self.text(x, y + 6, sign, "bold")

    def save(self, name: str) -> None:
        """Write docs/images/NAME."""
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / name).write_text("\n".join([*self.parts, "</svg>"]) + "\n")


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def draw_block() -> None:
    """A coded block with five subNNs, three of which are active for the image's class."""
    drawing = Drawing(
        710,
        700,
        "A coded block",
        "The input goes through N parallel subNNs. Energy Normalization scales their outputs so that the energies add "
        "up to N. In training, the coding loss pulls the energies to the codeword of the image's class, and dropSubNNs "
        "zeroes some outputs. The outputs are added, batch-normalized, and added to the shortcut.",
    )
    lanes, codeword, energies = (92, 178, 264, 350, 436), (1, 0, 1, 1, 0), (57, 8, 52, 60, 12)
    middle, notes = lanes[2], 492
    drawing.text(middle, 22, "input x", "bold")
    drawing.path(f"M{middle} 32V52M{lanes[0]} 52H{lanes[-1]}", arrow=False)
    drawing.path(f"M{middle} 42H20V632H246")
    drawing.text(30, 622, "shortcut", "left soft small")
    for number, (x, active) in enumerate(zip(lanes, codeword, strict=True), start=1):
        drawing.path(f"M{x} 52V72")
        drawing.box(x - 37, 74, 74, 46, "active" if active else "inactive")
        drawing.text(x, 102, f"subNN {number}", "" if active else "soft")
        drawing.path(f"M{x} 120V150")
        drawing.path(f"M{x} 192V384")
    drawing.box(55, 152, 418, 40)
    drawing.text(middle, 177, "Energy Normalization")
    for x, active, energy in zip(lanes, codeword, energies, strict=True):
        drawing.bar(x + 9, 282, 18, energy, "bar-active" if active else "bar")
        drawing.box(x + 7, 302, 22, 26, "active" if active else "", round=3)
        drawing.text(x + 18, 320, str(active), "digit")
    drawing.path("M84 282H470", arrow=False)
    drawing.path("M484 222H478V332H484", "loss-line", arrow=False)
    drawing.box(55, 386, 418, 40)
    drawing.text(middle, 411, "dropSubNNs")
    for x in lanes:
        drawing.path(f"M{x} 426V446L{middle + (x - middle) * 0.06:.0f} 486" if x != middle else f"M{x} 426V486")
    drawing.circle(middle, 502, "Σ")
    drawing.path(f"M{middle} 519V546")
    drawing.box(194, 548, 140, 34)
    drawing.text(middle, 570, "BatchNorm")
    drawing.path(f"M{middle} 582V613")
    drawing.circle(middle, 632, "+")
    drawing.path(f"M{middle} 649V672")
    drawing.text(middle, 691, "ReLU, output y", "bold")
    drawing.text(300, 507, "sum of the N outputs", "left soft small")
    for y, note, kind in (
        (92, "N subNNs, each", "soft small"),
        (110, "1×1, 3×3, 1×1 convolution", "soft small"),
        (169, "divide by √(mean energy):", "soft small"),
        (187, "the N energies add up to N", "soft small"),
        (244, "energies of the outputs", ""),
        (262, "mean square of each subNN", "soft small"),
        (322, "codeword of the class", ""),
        (346, "coding loss: pulls the energies", "loss small"),
        (363, "to the codeword (training)", "loss small"),
        (386, "early decoder: the class with", "loss small"),
        (403, "the nearest codeword", "loss small"),
        (430, "dropSubNNs (training): zeroes a", "soft small"),
        (447, "subNN with probability p_drop", "soft small"),
    ):
        drawing.text(notes, y, note, f"left {kind}".strip())
    drawing.save("coded-block.svg")


def draw_scheme() -> None:
    """Table 4's scheme of CIFAR-10 with r = 3/10, and what the three rules look at."""
    table = CodingScheme.load(SCHEMES / "c10_3of10.npy").table
    cell, left, top = 30, 112, 52
    side = cell * len(table)
    drawing = Drawing(
        660,
        top + side + 62,
        "A coding scheme",
        "A table of ten classes and ten subNNs with three ones in every row and in every column. The first two rows "
        "differ in four digits.",
    )
    drawing.text(left + side / 2, 20, "subNN", "bold")
    for n in range(10):
        drawing.text(left + cell * (n + 0.5), 42, str(n + 1), "soft small")
        drawing.text(left + cell * (n + 0.5), top + side + 24, str(table[:, n].sum()), "digit")
    for k, row in enumerate(table):
        y = top + cell * k
        drawing.text(left - 12, y + 20, f"class {k + 1}", "right soft small")
        for n, digit in enumerate(row):
            drawing.box(left + cell * n + 1.5, y + 1.5, cell - 3, cell - 3, "active" if digit else "", round=3)
            drawing.text(left + cell * (n + 0.5), y + 20, str(digit), "digit" if digit else "digit soft")
    drawing.text(left - 12, top + side + 24, "column sum", "right soft small")
    notes = left + side + 22
    differ = int((table[0] != table[1]).sum())
    drawing.path(f"M{notes - 12} {top + 6}H{notes - 6}V{top + 54}H{notes - 12}", "loss-line", arrow=False)
    for y, note, kind in (
        (top + 26, f"differ in {differ} digits", "loss small"),
        (top + 44, "rule C: all pairs in 4 or more", "loss small"),
        (top + 110, "row = codeword of a class", ""),
        (top + 130, "rule A: 3 ones in every row", "soft small"),
        (top + side + 18, "rule B: every subNN works", "soft small"),
        (top + side + 36, "for equally many classes", "soft small"),
    ):
        drawing.text(notes, y, note, f"left {kind}".strip())
    drawing.save("scheme.svg")


def draw_network() -> None:
    """Three coded blocks out of a network: one class's path, the early decoders and the binary classifier."""
    drawing = Drawing(
        700,
        330,
        "The path of a class",
        "A plain stage is followed by coded blocks of two stages and the linear layer. For one class the active subNNs "
        "of each coded block are highlighted; they and the class's row of the linear layer are its binary classifier. "
        "Below each coded block an early decoder predicts the class.",
    )
    middle = 124
    drawing.box(12, middle - 74, 92, 148, "active")
    drawing.text(58, middle - 6, "stem and")
    drawing.text(58, middle + 14, "stage s1")
    blocks = ((178, "s2.1", (1, 0, 1, 0, 1)), (312, "s2.2", (1, 0, 1, 0, 1)), (446, "s3.1", (0, 0, 1, 1, 0)))
    before = [(104.0, float(middle))]
    for x, name, codeword in blocks:
        drawing.text(x, 22, f"block {name}", "bold")
        after = []
        for n, active in enumerate(codeword):
            y = middle - 74 + 37 * n
            for bx, by in before if active else ():
                drawing.path(f"M{bx} {by}L{x - 30} {y}", "path", arrow=False)
            drawing.box(x - 30, y - 13, 60, 26, "active" if active else "inactive", round=4)
            drawing.text(x, y + 5, "subNN", "small" if active else "small soft")
            after += [(x + 30.0, float(y))] if active else []
        before = after
        drawing.path(f"M{x} {middle + 90}V{middle + 118}", "loss-line")
        drawing.text(x, middle + 136, "early decoder", "loss small")
        drawing.text(x, middle + 154, "".join(map(str, codeword)), "digit small")
    for bx, by in before:
        drawing.path(f"M{bx} {by}L560 {middle}", "path", arrow=False)
    drawing.box(560, middle - 74, 100, 148)
    drawing.box(560, middle - 13, 100, 26, "active", round=2)
    drawing.text(610, 22, "linear layer", "bold")
    drawing.text(610, middle + 5, "row of class k", "small")
    drawing.text(610, middle + 96, "one row per class", "soft small")
    drawing.text(350, 312, "blue: what works for class k. Alone, it is the binary classifier of class k.", "soft small")
    drawing.save("network.svg")


def draw_energies() -> None:
    """Mean r E per class and subNN of the last block, before and after ten epochs on digits, and the scheme."""
    import matplotlib.pyplot as plt
    import torch

    from codedtool.data import eval_batches, load_dataset, normalize
    from codedtool.models import CodedNetwork, build_network
    from codedtool.training.recipes import recipe_for
    from codedtool.training.train import train

    schemes = {"s2": CodingScheme.load(SCHEMES / "c10_5of10.npy"), "s3": CodingScheme.load(SCHEMES / "c10_3of10.npy")}
    digits = load_dataset("digits", data_dir=Path("data"), download=False)

    def means(network: CodedNetwork) -> torch.Tensor:
        total, images = torch.zeros(10, 10), torch.zeros(10)
        with torch.inference_mode():
            for batch in eval_batches(digits.val, batch_size=64, size=8):
                images_BCHW = normalize(batch.images, digits.normalization)
                energies = network.eval()(images_BCHW).energies[-1]
                total.index_add_(0, batch.targets, energies)
                images.index_add_(0, batch.targets, torch.ones(len(batch.targets)))
        return float(schemes["s3"].ratio) * total / images[:, None]

    torch.manual_seed(0)
    untrained = means(build_network("coded_resnext_tiny", list(schemes.values())))
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_for("digits").with_values({"epochs": 10, "preset": "coded_resnext_tiny", "device": "cpu"})
        result = train(recipe, schemes, folder=Path(folder))
        trained = means(result.run.load_network())
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
    panels = ("before training", untrained), ("after ten epochs", trained), ("coding scheme", schemes["s3"].table)
    for axis, (title, values) in zip(axes, panels, strict=True):
        picture = axis.imshow(values, vmin=0, vmax=1, cmap="viridis")
        axis.set(title=title, xlabel="subNN", xticks=range(10), yticks=range(10))
    axes[0].set_ylabel("class")
    figure.colorbar(picture, ax=axes, label="mean of r·E, and digit of the codeword")
    figure.savefig(IMAGES / "energies.png", dpi=110)


if __name__ == "__main__":
    draw_block()
    draw_scheme()
    draw_network()
    draw_energies()
