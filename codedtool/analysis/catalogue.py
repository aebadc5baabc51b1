"""The catalogue of analyses: one row per command that measures a trained run.

The command line makes a command of every row, and ``codedtool report`` a part of its page. To add an analysis, write
its function and result in a file of this folder, its figures in a file of ``codedtool/report/``, and its row here.

Nothing here imports torch: a row names its function and its drawing, which are imported when they are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codedtool.analysis.result import Drawing, Result
from codedtool.budget import Progress, silent
from codedtool.interrupts import interrupts_held

if TYPE_CHECKING:
    from codedtool.data import ImageData
    from codedtool.training.subject import Subject

# An analysis needs a run with coded blocks (coded), or images of another data set (ood).
Need = Literal["coded", "ood"]

# An analysis takes a run of the plain control (plain) or another data set (ood) as a keyword argument, or None.
Input = Literal["plain", "ood"]


@dataclass(frozen=True)
class Option:
    """An option of an analysis: a keyword argument of its function and a flag of its command.

    Attributes:
        name: name of the keyword argument.
        flag: the command's flag.
        kind: type of the value: int, str, bool or Path.
        default: default of the keyword argument.
        help: the flag's help.
        repeated: whether the flag may be given several times. The argument is then a list.
        at_least: smallest allowed value; None: no bound.
        default_text: description of the default for ``--help``; None: the value itself is shown.
    """

    name: str
    flag: str
    kind: type
    default: Any
    help: str
    repeated: bool = False
    at_least: int | None = None
    default_text: str | None = None


@dataclass(frozen=True)
class Analysis:
    """One row of the catalogue.

    Attributes:
        name: name of the command.
        title: heading of its part of the page.
        function: "module:function" below ``codedtool``. It takes a `Subject`, then as keywords ``progress``, the
            options and the inputs, and returns a `Result`.
        drawing: "module:function" below ``codedtool``. It takes the result and returns its `Drawing` objects.
        help: the command's help. Its first line is shown in the list of commands.
        text: one or two sentences above the results on the page: what the results are, and where the paper has them.
        options: the command's options. The page uses their defaults, and the report's seed.
        inputs: keyword arguments beside the options; see `Input`.
        needs: the analysis raises NotApplicableError without them; see `Need`.
    """

    name: str
    title: str
    function: str
    drawing: str
    help: str
    text: str
    options: tuple[Option, ...] = ()
    inputs: frozenset[Input] = frozenset()
    needs: frozenset[Need] = frozenset()

    def run(
        self,
        subject: Subject,
        *,
        plain: Subject | None = None,
        ood: ImageData | None = None,
        options: Mapping[str, Any] | None = None,
        progress: Progress = silent,
    ) -> Result:
        """Call the function.

        Args:
            subject: the opened run.
            plain: an opened run of the plain control, for comparison; unused by an analysis that does not need it.
            ood: a data set of other classes; unused by an analysis that does not need it.
            options: values of the options by `Option.name`; missing ones have their defaults.
            progress: where the function reports its progress.

        Raises:
            NotApplicableError: something that the analysis needs is not there.
            InputError: the function refuses its input.
        """
        inputs = {name: value for name, value in (("plain", plain), ("ood", ood)) if name in self.inputs}
        result: Result = _named(self.function)(subject, **inputs, **(options or {}), progress=progress)
        return result

    @interrupts_held()
    def draw(self, result: Result) -> Sequence[Drawing]:
        """The figures of a result."""
        drawings: Sequence[Drawing] = _named(self.drawing)(result)
        return drawings


def _named(where: str) -> Any:
    """Import the function that "module:function" names."""
    module, _, function = where.partition(":")
    return getattr(import_module(f"codedtool.{module}"), function)


SEED = Option("seed", "--seed", int, 0, "Seed of all random draws.", at_least=0)

ALL_NEGATIVES = Option(
    "all_negatives",
    "--all-negatives",
    bool,
    False,
    "With 100 classes or more, choose the binary classifiers' thresholds on all training images, instead of 9 drawn "
    "negatives per positive. The time then grows with the number of classes.",
)

IMAGES = Option(
    "images",
    "--images",
    int,
    None,
    "Number of validation images to measure, drawn evenly from the classes.",
    at_least=1,
    default_text="all",
)

CATALOGUE: tuple[Analysis, ...] = (
    Analysis(
        name="eval",
        title="Accuracy",
        function="analysis.evaluation:evaluate",
        drawing="report.figures_evaluation:draw",
        help="Measure a run's accuracy, coding losses and early decoders on validation images (table 2).\n\n"
        "Accuracy is top-1, top-5, balanced and by class, with a confusion matrix. Tables, the figure and its data go "
        "to RUN/analysis/. Give --data to evaluate on another data set with the same classes.",
        text="Accuracy and cross-entropy on the validation images. For every coded block, the table gives its mean "
        "coding loss (eq. 5) and the accuracy of its early decoder (table 2, figure 4). The figure is the confusion "
        "matrix: of the images of every class, the share taken for each class.",
        inputs=frozenset({"plain"}),
    ),
    Analysis(
        name="bc",
        title="Binary classifiers",
        function="analysis.bc:bc",
        drawing="report.figures_classifiers:draw",
        help="Measure the binary classifiers of all classes, or write one of them as a model file (section 4.3).\n\n"
        "The binary classifier of a class is a smaller network: it keeps only the subNNs that the class's codewords "
        "activate, and the class's row of the linear layer. Tables, figures and their data go to RUN/analysis/.",
        text="The binary classifier of a class is a smaller network: it keeps only the subNNs that the class's "
        "codewords activate, and the class's row of the linear layer. Its threshold is the one with the highest F1 on "
        "the training images, or with 100 classes or more on 9 negatives per positive among them (section 4.3, figures "
        "2b, 3, 7, 8).",
        options=(
            Option("class_name", "--class", str, "all", "Name or number of a class, or all."),
            Option(
                "out",
                "--out",
                Path,
                None,
                "File for the classifier of one class (.safetensors).",
                default_text="RUN/bc/CLASS.safetensors",
            ),
            Option(
                "force",
                "--force",
                bool,
                False,
                "Overwrite a classifier file, or write one that recognises nothing.",
            ),
            ALL_NEGATIVES,
            SEED,
        ),
        inputs=frozenset({"plain", "ood"}),
        needs=frozenset({"coded"}),
    ),
    Analysis(
        name="specialize",
        title="Specialization",
        function="analysis.specialization:specialize",
        drawing="report.figures_specialization:draw",
        help="Measure the accuracy after removing random active or inactive subNNs of a block (figures 2a, 9).\n\n"
        "The table, the figure and its data go to RUN/analysis/.",
        text="Accuracy of the network after removing k random subNNs from one block. They are chosen among the subNNs "
        "that are active for the image's class, or among the inactive ones (section 4.2, figures 2a and 9).",
        options=(
            Option(
                "blocks",
                "--block",
                str,
                None,
                "Name of a coded block, such as s2.3; repeat the flag for several.",
                repeated=True,
                default_text="all",
            ),
            IMAGES,
            Option(
                "repeats", "--repeats", int, 1, "Random draws for each image and number of removed subNNs.", at_least=1
            ),
            SEED,
        ),
        needs=frozenset({"coded"}),
    ),
    Analysis(
        name="decode",
        title="Early decoders and early exit",
        function="analysis.decoding:decode",
        drawing="report.figures_decoding:draw",
        help="Measure the early decoders, their agreement with the final answer, and early exits (section 4.4).\n\n"
        "The early decoder of a coded block predicts the class whose codeword is nearest to the block's energies. "
        "Tables, the figure and its data go to RUN/analysis/.",
        text="Every coded block has an early decoder, which predicts the class whose codeword is nearest to the "
        "block's energies. The more early decoders agree with the final answer, the more often it is right. With an "
        "early exit, the network answers before its last block (section 4.4, figure 4, table 3).",
        options=(
            Option(
                "rules",
                "--exit",
                str,
                None,
                "Early exit to measure: agree:M stops once the last M early decoders agree, margin:X (0 to 1) once the "
                "nearest codeword leads the second nearest by X. Repeat the flag for several. A range of both kinds is "
                "always measured.",
                repeated=True,
            ),
        ),
        needs=frozenset({"coded"}),
    ),
    Analysis(
        name="calibrate",
        title="Confidence",
        function="analysis.confidence:confidence",
        drawing="report.figures_calibration:draw",
        help="Calibrate a run's confidence (table 6), and compare confidence scores for abstaining.\n\n"
        "The files calibration and selective (.json, .csv, .png, .svg) go to RUN/analysis/.",
        text="Temperature scaling with and without the early decoders (appendix C, table 6). The second table and "
        "figure give the share of wrong answers if the network answers only the images of highest confidence "
        "(risk-coverage).",
        options=(
            SEED,
            Option(
                "repeats",
                "--repeats",
                int,
                41,
                "Random splits into images to fit a temperature and images to test it, for each share (paper: 41).",
                at_least=1,
            ),
        ),
    ),
    Analysis(
        name="activations",
        title="Activations",
        function="analysis.activations:activations",
        drawing="report.figures_activations:draw",
        help="Measure the distribution of subNN outputs for their own classes and for other classes (figure 6).\n\n"
        "The table, the figure and its data go to RUN/analysis/.",
        text="Absolute outputs of the first subNNs of one coded block, for images of the classes that activate the "
        "subNN and for other images (appendix F.1, figure 6).",
        options=(
            Option(
                "block",
                "--block",
                str,
                None,
                "Name of a coded block, such as s3.2.",
                default_text="the second block of the last coded stage",
            ),
            Option(
                "num_subnns",
                "--subnns",
                int,
                None,
                "Number of subNNs to measure, counted from the block's first.",
                at_least=1,
                default_text="5, or N if it is smaller",
            ),
        ),
        needs=frozenset({"coded"}),
    ),
    Analysis(
        name="cost",
        title="Cost",
        function="analysis.cost:cost",
        drawing="report.figures_cost:draw",
        help="Measure the size and speed of a run's network, its plain control and a binary classifier (table 5).\n\n"
        "The table gives parameters, multiply-adds, memory and measured speed; files go to RUN/analysis/.",
        text="Parameters, multiply-adds, memory and speed of the run's network, its plain control and one binary "
        "classifier. The networks are timed in turn (table 5).",
        options=(Option("class_name", "--class", str, "0", "Name or number of the binary classifier's class."),),
    ),
    Analysis(
        name="ood",
        title="Out-of-distribution detection",
        function="analysis.ood:ood",
        drawing="report.figures_ood:draw",
        help="Measure how well scores tell another data set's images from the run's own.\n\n"
        "The scores are softmax, energy score, agreeing early decoders, and distance of a block's energies to the "
        "codeword of the predicted class. --compare measures the plain network's scores too. The table, the figure and "
        "its data go to RUN/analysis/.",
        text="Area under the curve (AUROC) and false positives at 95% recall of scores that tell the run's validation "
        "images from images of another data set: softmax, the energy score (Liu et al. 2020), the number of agreeing "
        "early decoders (table 3), and the distance of the energies to the codeword of the predicted class.",
        inputs=frozenset({"plain", "ood"}),
        needs=frozenset({"ood"}),
    ),
)


def analysis(name: str) -> Analysis:
    """The row of the command called ``name``."""
    return next(row for row in CATALOGUE if row.name == name)
