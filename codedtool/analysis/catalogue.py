"""The catalogue of analyses: one row per command that measures a trained run.

The command line makes a command of every row, and ``codedtool report`` a part of its page. To add an analysis, write
its function and result in a file of this folder, its figures in a file of ``codedtool/report/``, and its row here.

Nothing here imports torch: functions and drawings are named, and imported when they are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codedtool.analysis.result import Drawing, Result
from codedtool.budget import Progress, silent

if TYPE_CHECKING:
    from codedtool.data import ImageData
    from codedtool.training.subject import Subject

# coded: the run has coded blocks. plain: a run of the plain control, for comparison. ood: images of other classes.
# The last two are keyword arguments of the function, and may be None.
Need = Literal["coded", "plain", "ood"]


@dataclass(frozen=True)
class Option:
    """An option of an analysis: a keyword argument of its function and a flag of its command.

    Attributes:
        name: of the keyword argument.
        flag: of the command.
        kind: int, str, bool or Path.
        default: the function's default.
        help: one sentence.
        repeated: the flag may be given several times, and the argument is a list.
        at_least: the smallest value.
        default_text: what ``--help`` says of the default where the value does not say it.
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
        name: of the command.
        title: of its part of the page.
        function: "module:function" below ``codedtool``. It takes a `Subject`, then as keywords ``progress``, the
            options and the needs other than "coded", and returns a `Result`.
        drawing: "module:function" below ``codedtool``. It takes the result and returns its `Drawing` objects.
        help: the command's help; the first line stands in the list of commands.
        text: a sentence or two above the results on the page: what they are, and where the paper has them.
        options: of the command. The page runs the analysis with their defaults, and with its own seed.
        needs: see `Need`.
    """

    name: str
    title: str
    function: str
    drawing: str | None
    help: str
    text: str
    options: tuple[Option, ...] = ()
    needs: frozenset[Need] = field(default_factory=frozenset)

    def run(
        self,
        subject: Subject,
        *,
        plain: Subject | None = None,
        ood: ImageData | None = None,
        options: Mapping[str, Any] | None = None,
        progress: Progress = silent,
    ) -> Result:
        """Call the function with the inputs that it needs.

        Raises:
            NotApplicableError: the run lacks what the analysis needs.
            InputError: as the function does.
        """
        inputs = {name: value for name, value in (("plain", plain), ("ood", ood)) if name in self.needs}
        result: Result = _named(self.function)(subject, **inputs, **(options or {}), progress=progress)
        return result

    def draw(self, result: Result) -> Sequence[Drawing]:
        """The figures of a result; none where the row has no drawing."""
        drawings: Sequence[Drawing] = () if self.drawing is None else _named(self.drawing)(result)
        return drawings


def _named(where: str) -> Any:
    """The function that "module:function" names."""
    module, _, function = where.partition(":")
    return getattr(import_module(f"codedtool.{module}"), function)


SEED = Option("seed", "--seed", int, 0, "Seed of everything that is drawn at random.", at_least=0)

CATALOGUE: tuple[Analysis, ...] = (
    Analysis(
        name="eval",
        title="Accuracy",
        function="analysis.evaluation:evaluate",
        drawing=None,
        help="Measure a run's accuracy, coding losses and early decoders on validation images (table 2).\n\n"
        "--data names another data set with the same classes.",
        text="Accuracy and cross-entropy on the validation images; and for every coded block its mean coding loss "
        "(eq. 5) and the accuracy of its early decoder (table 2, figure 4).",
    ),
    Analysis(
        name="bc",
        title="Binary classifiers",
        function="analysis.bc:bc",
        drawing="report.figures_classifiers:draw",
        help="Measure the binary classifiers of all classes, or write one of them as a model file (section 4.3).\n\n"
        "A class's binary classifier is a smaller network: only the subNNs of the class's codewords and one row of the "
        "linear layer. Tables, figures and their data go to RUN/analysis/.",
        text="The subNNs of a class's codewords and the class's row of the linear layer are a classifier of their own. "
        "Its threshold is the one of highest F1 on the training images (section 4.3, figures 2b, 3, 7, 8).",
        options=(
            Option("class_name", "--class", str, "all", "A class's name or number, or all."),
            Option(
                "out",
                "--out",
                Path,
                None,
                "The file of one class's classifier (.safetensors).",
                default_text="RUN/bc/CLASS.safetensors",
            ),
            Option("force", "--force", bool, False, "Overwrite an existing classifier."),
            SEED,
        ),
        needs=frozenset({"coded", "plain", "ood"}),
    ),
    Analysis(
        name="specialize",
        title="Specialization",
        function="analysis.specialization:specialize",
        drawing="report.figures_specialization:draw",
        help="Measure the accuracy without random active, or inactive, subNNs of a block (figures 2a, 9).\n\n"
        "The table, the figure and its data go to RUN/analysis/.",
        text="Accuracy without k subNNs of one block that are active, or inactive, for the image's class "
        "(section 4.2, figures 2a and 9).",
        options=(
            Option(
                "blocks",
                "--block",
                str,
                None,
                "A coded block, as s2.3; repeat the flag for more.",
                repeated=True,
                default_text="all",
            ),
            Option("repeats", "--repeats", int, 1, "Random draws per image and number of removed subNNs.", at_least=1),
            SEED,
        ),
        needs=frozenset({"coded"}),
    ),
    Analysis(
        name="decode",
        title="Early decoders and early exit",
        function="analysis.decoding:decode",
        drawing="report.figures_decoding:draw",
        help="Measure every early decoder, its agreement with the final answer, and early exits (section 4.4).\n\n"
        "Tables, the figure and its data go to RUN/analysis/.",
        text="Every coded block predicts the class whose codeword is nearest to the block's energies. The more of "
        "these early decoders agree with the final answer, the more often it is right. An answer may also be given "
        "before the last block (section 4.4, figure 4, table 3).",
        options=(
            Option(
                "rules",
                "--exit",
                str,
                None,
                "Stop at the first block where the last M decoders agree (agree:M) or the nearest codeword leads by X "
                "(margin:X, 0 to 1); repeat for several. A curve of both is always drawn.",
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
        help="Calibrate a run's confidence (table 6), and compare scores where the network may abstain.\n\n"
        "Files: calibration and selective (.json, .csv, .png, .svg) in RUN/analysis/.",
        text="Temperature scaling with and without the early decoders (appendix C, table 6); and the share of wrong "
        "answers when the network answers only the images of highest confidence (risk-coverage).",
        options=(
            SEED,
            Option(
                "repeats",
                "--repeats",
                int,
                41,
                "Random splits per share of images that the temperatures are fitted on (paper: 41).",
                at_least=1,
            ),
        ),
    ),
    Analysis(
        name="activations",
        title="Activations",
        function="analysis.activations:activations",
        drawing="report.figures_activations:draw",
        help="Measure the distribution of subNNs' outputs for their classes and for other classes (figure 6).\n\n"
        "The table, the figure and its data go to RUN/analysis/.",
        text="Absolute outputs of the first subNNs of one coded block, for images of the classes that a subNN serves "
        "and for other images (appendix F.1, figure 6).",
        options=(
            Option(
                "block",
                "--block",
                str,
                None,
                "A coded block, as s3.2.",
                default_text="the second block of the last coded stage",
            ),
            Option("num_subnns", "--subnns", int, 5, "How many of the block's subNNs, from the first on.", at_least=1),
        ),
        needs=frozenset({"coded"}),
    ),
    Analysis(
        name="cost",
        title="Cost",
        function="analysis.cost:cost",
        drawing="report.figures_cost:draw",
        help="Count and time a run's network, its plain control and a binary classifier (table 5).\n\n"
        "The table gives parameters, multiply-adds, memory and measured speed; files go to RUN/analysis/.",
        text="The run's network beside its plain control and a binary classifier, timed in turn (table 5).",
        options=(Option("class_name", "--class", str, "0", "The class of the binary classifier: a name or number."),),
    ),
)


def analysis(name: str) -> Analysis:
    """The row called ``name``."""
    return next(row for row in CATALOGUE if row.name == name)
