"""Initial weights: the same outputs as torchvision's and timm's networks, and clean refusals of everything else."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from codedtool.coding.scheme import CodingScheme
from codedtool.errors import InputError
from codedtool.models import CodedNetwork, build_network
from codedtool.models.network import Stage
from codedtool.training.init import estimate_statistics, fitted
from codedtool.training.pretrained import read_source
from codedtool.training.recipe import Recipe
from codedtool.training.recipes import recipe_for
from codedtool.training.run import Run
from codedtool.training.torch_runtime import TorchRuntime
from codedtool.training.train import resume, train
from tests.runs import copy_of
from tests.subjects import DIGITS, NORMALIZATION, noise, randomize, tiny_plain, tiny_schemes

CLASSES = tuple(f"class {number}" for number in range(7))


def short_resnext(num_classes: int = 7, *, coded: bool = False, depths: tuple[int, ...] = (1, 2, 1, 1)) -> CodedNetwork:
    """ResNeXt-50 32x4d with fewer blocks."""
    stages = {
        f"s{number + 1}": Stage(256 << number, 4 << number, num_blocks=blocks, stride=1 if number == 0 else 2)
        for number, blocks in enumerate(depths)
    }
    table = np.zeros((num_classes, 32), dtype=np.uint8)
    for row in range(num_classes):
        table[row, row : row + 8] = 1
    schemes = {"s4": CodingScheme(table)} if coded else {}
    return CodedNetwork(stages, 32, schemes, num_classes=num_classes, stem="imagenet")


def torchvision_resnext() -> nn.Module:
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 2, 1, 1], num_classes=7, groups=32, width_per_group=4)


def timm_resnext() -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, (1, 2, 1, 1), num_classes=7, cardinality=32, base_width=4)


def torchvision_mobilenet() -> nn.Module:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(weights=None, num_classes=7)


def timm_mobilenet() -> nn.Module:
    import timm

    return timm.create_model("mobilenetv2_100", num_classes=7)


def mobilenet() -> CodedNetwork:
    return build_network("mobilenetv2_32", num_classes=7)


def with_statistics(network: nn.Module) -> nn.Module:
    """Give a network the statistics and scales of a trained one, so that every block counts."""
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.running_mean, -0.5)):
                tensor.data = torch.rand(tensor.shape, generator=generator) + low
    return network.eval()


def bias_of(network: nn.Module) -> torch.Tensor:
    """The bias of the last linear layer, which the networks here do not have."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1].bias


def begin(path: Path, network: CodedNetwork, classes: tuple[str, ...] = CLASSES) -> CodedNetwork:
    """``network`` with the weights of a file, in evaluation mode."""
    network.load_state_dict(dict(fitted(str(path), read_source(str(path), network), network, classes).weights))
    return network.eval()


@torch.no_grad()
def assert_same_logits(theirs: nn.Module, ours: CodedNetwork, size: int = 64) -> None:
    # In float64: a deep network of random statistics enlarges rounding, which the order of operations decides.
    theirs, ours = copy.deepcopy(theirs).double(), copy.deepcopy(ours).double()
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = theirs(x) - bias_of(theirs)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours(x).logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("build", "own", "ending"),
    [
        (torchvision_resnext, short_resnext, ".pth"),
        (timm_resnext, short_resnext, ".safetensors"),
        (torchvision_mobilenet, mobilenet, ".safetensors"),
        (timm_mobilenet, mobilenet, ".pt"),
    ],
)
def test_networks_of_torchvision_and_timm_give_the_same_logits(
    build: Callable[[], nn.Module], own: Callable[[], CodedNetwork], ending: str, tmp_path: Path
) -> None:
    theirs = with_statistics(build())
    path = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        safetensors.torch.save_file(theirs.state_dict(), path)
    else:
        # As training scripts save it, from a network that DistributedDataParallel wrapped.
        state = {f"module.{key}": tensor for key, tensor in theirs.state_dict().items()}
        torch.save({"epoch": 3, "arch": "x", "state_dict" if ending == ".pth" else "model": state}, path)
    assert_same_logits(theirs, begin(path, own()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depths", "width"), [("resnext50_32x4d", (3, 4, 6, 3), 4), ("resnext101_32x8d", (3, 4, 23, 3), 8)]
)
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_whole_networks_give_the_same_logits(
    library: str, name: str, depths: tuple[int, ...], width: int, tmp_path: Path
) -> None:
    import timm
    import torchvision

    make = torchvision.models.get_model if library == "torchvision" else timm.create_model
    theirs = with_statistics(make(name))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    stages = {
        f"s{number + 1}": Stage(256 << number, width << number, num_blocks=blocks, stride=1 if number == 0 else 2)
        for number, blocks in enumerate(depths)
    }
    ours = CodedNetwork(stages, 32, {}, num_classes=1000, stem="imagenet")
    assert_same_logits(theirs, begin(tmp_path / "weights.pth", ours, tuple(map(str, range(1000)))))


@pytest.mark.parametrize("source", ["plain", "coded"])
def test_own_networks_give_the_same_logits(source: str, tmp_path: Path) -> None:
    schemes = tiny_schemes() if source == "coded" else {}
    theirs = randomize(build_network("coded_resnext_tiny", schemes))
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "own.safetensors")
    ours = begin(tmp_path / "own.safetensors", build_network("coded_resnext_tiny", schemes), DIGITS)
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(theirs(x).logits, ours(x).logits)


def test_a_coded_network_takes_every_tensor_of_a_plain_one(tmp_path: Path) -> None:
    plain = with_statistics(torchvision_resnext())
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    network = short_resnext(coded=True)
    found = fitted("x", read_source(str(tmp_path / "plain.pth"), network), network, CLASSES)
    weights = found.weights
    assert torch.equal(weights["block_list.4.expand.conv.weight"], plain.state_dict()["layer4.0.conv3.weight"])
    assert (found.taken, found.left_out, found.drawn_anew) == (len(weights), ("fc.bias",), ())
    assert (found.first_renewed, found.block) == (4, "s4.1")
    assert any("from block s4.1 on are estimated again" in line for line in found.lines())


def test_the_linear_layer_of_other_classes_is_drawn_anew(tmp_path: Path) -> None:
    torch.save(torchvision_resnext().state_dict(), tmp_path / "seven.pth")
    network = short_resnext(5)
    found = fitted("x", read_source(str(tmp_path / "seven.pth"), network), network, CLASSES[:5])
    assert found.drawn_anew == ("fc.weight",)
    assert found.left_out == ("fc.bias", "fc.weight")
    assert torch.equal(found.weights["fc.weight"], network.fc.weight)
    assert found.first_renewed is None


def changed(change: Callable[[dict[str, torch.Tensor]], object], folder: Path) -> str:
    state = tiny_plain().state_dict()
    change(state)
    safetensors.torch.save_file(state, folder / "changed.safetensors")
    return str(folder / "changed.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("block_list.2.reduce.weight"), r"no tensor for block_list\.2\.reduce\.weight"),
        (
            lambda state: state.update({"stem.0.weight": torch.zeros(8, 3, 3, 3)}),
            r"stem\.0\.weight has shape 8 x 3 x 3 x 3 instead of 16 x 3 x 3 x 3",
        ),
        (
            lambda state: state.update({"fc.weight": torch.zeros(10, 64)}),
            r"fc\.weight has shape 10 x 64 instead of 10 x 128",
        ),
        (lambda state: state.update({"s9.weight": torch.zeros(1)}), r"no place for its tensor s9\.weight"),
        (lambda state: state["stem.0.weight"].fill_(torch.nan), r"stem\.0\.weight has values that are not finite"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, tmp_path: Path
) -> None:
    network = build_network("resnext_tiny")
    source = read_source(changed(change, tmp_path), network)
    with pytest.raises(InputError, match=message):
        fitted("x", source, network, DIGITS)


def test_a_deeper_network_does_not_fit(tmp_path: Path) -> None:
    torch.save(torchvision_resnext().state_dict(), tmp_path / "deeper.pth")
    network = short_resnext(depths=(1, 1, 1, 1))
    with pytest.raises(InputError, match=r"no place for its tensor layer2\.1\.conv1\.weight"):
        fitted("x", read_source(str(tmp_path / "deeper.pth"), network), network, CLASSES)


class Trap:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("whole", [True, False])
def test_a_pickle_that_runs_code_is_refused(whole: bool, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "made")
    if whole:
        torch.save({"state_dict": {}, "args": trap}, tmp_path / "trap.pth")
    else:
        (tmp_path / "trap.pth").write_bytes(pickle.dumps(trap))
    with pytest.raises(InputError, match="could run code"):
        read_source(str(tmp_path / "trap.pth"), build_network("resnext_tiny"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "random", "text", "half", "flipped"])
def test_a_damaged_file_is_refused(ending: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{ending}"
    state = tiny_plain().state_dict()
    if ending == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    for number in range(60):
        flipped[number] ^= 0x55
    content = {
        "empty": b"",
        "random": np.random.default_rng(1).bytes(5000),
        "text": b"<html>404: not found</html>\n",
        "half": whole[: len(whole) // 2],
        "flipped": bytes(flipped),
    }
    path.write_bytes(content[damage])
    with pytest.raises(InputError, match=str(path)):
        read_source(str(path), build_network("resnext_tiny"))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([torch.zeros(2)], "holds a list instead of a state dict"),
        ({}, "instead of a state dict"),
        ({"epoch": 3}, "epoch is a int"),
        ({1: torch.zeros(2)}, "1 is no name of a tensor"),
        ({"a.weight": torch.zeros(2)}, r"the names of its tensors \(a\.weight, \.\.\.\) are those of no known network"),
        ({"stem.0.weight": torch.zeros(2, device="meta")}, "not an ordinary tensor"),
    ],
)
def test_a_file_without_a_known_state_dict_is_refused(document: object, message: str, tmp_path: Path) -> None:
    torch.save(document, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message):
        read_source(str(tmp_path / "weights.pth"), build_network("resnext_tiny"))


def test_a_place_that_is_neither_run_nor_state_dict_is_refused(tmp_path: Path) -> None:
    network = build_network("resnext_tiny")
    (tmp_path / "weights.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"must be a run's folder or end in \.safetensors, \.pth, \.pt"):
        read_source(str(tmp_path / "weights.onnx"), network)
    with pytest.raises(InputError, match="cannot be read"):
        read_source(str(tmp_path / "none.safetensors"), network)
    with pytest.raises(InputError, match="cannot be read"):
        read_source(str(tmp_path / "none.pth"), network)
    with pytest.raises(InputError, match="there is no run"):
        read_source("none", network, folder=tmp_path)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """An empty cache of torchvision's weights."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def test_torchvision_weights_come_from_the_cache_or_the_network_or_not_at_all(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    network = build_network("mobilenetv2_32", num_classes=7)
    with pytest.raises(InputError, match=r"`download` is off; fetch https://.*mobilenet_v2"):
        read_source("torchvision", network, download=False)

    def unreachable(*_: object, **options: object) -> None:
        assert options["check_hash"] is True
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(InputError, match="cannot fetch https://.*no network"):
        read_source("torchvision", network)
    hub.mkdir(parents=True)
    theirs = mobilenet_v2(weights=None)
    torch.save(theirs.state_dict(), hub / Path(MobileNet_V2_Weights.DEFAULT.url).name)
    source = read_source("torchvision", network, download=False)
    assert "torchvision's mobilenet_v2" in source.description
    assert torch.equal(source.weights["stem.0.weight"], theirs.state_dict()["features.0.0.weight"])
    with pytest.raises(InputError, match="no weights of this architecture; it has those of resnext50_32x4d"):
        read_source("torchvision", build_network("resnext_tiny"))


def test_statistics_are_estimated_behind_the_new_normalization_alone() -> None:
    """The mean over the images of what a BatchNorm gets, and nothing before the first renewed block."""
    split = noise(10, 20)
    recipe = Recipe(train_size=8, eval_size=8, batch_size=50, device="cpu")
    runtime = TorchRuntime(recipe, "cpu")
    network = randomize(build_network("coded_resnext_tiny", {"s3": tiny_schemes()["s3"]}))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    estimate_statistics(network, 3, split, NORMALIZATION, recipe, runtime)
    after = {key: value.clone() for key, value in network.state_dict().items()}
    assert network.training
    assert all(module.momentum == 0.1 for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    changed_keys = {key.rpartition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    inner = ("reduce_bn", "grouped_bn", "expand_bn")
    assert changed_keys == {"block_list.3.expand_bn", *(f"block_list.4.{name}" for name in inner)}
    assert all(torch.equal(before[name], after[name]) for name, _ in network.named_parameters())

    # By hand: everything before the first renewed BatchNorm is in evaluation mode.
    from codedtool.data import normalize

    network.eval()
    seen: list[torch.Tensor] = []
    network.blocks[3].expand_bn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(normalize(torch.from_numpy(split.images).permute(0, 3, 1, 2).contiguous(), NORMALIZATION))
    torch.testing.assert_close(
        after["block_list.3.expand_bn.running_mean"], seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5
    )

    again = randomize(build_network("coded_resnext_tiny", {"s3": tiny_schemes()["s3"]}))
    estimate_statistics(again, 3, split, NORMALIZATION, recipe, runtime)
    assert all(torch.equal(again.state_dict()[key], after[key]) for key in after)


def recipe_of(preset: str, **values: object) -> Recipe:
    return recipe_for("digits").with_values({"preset": preset, "device": "cpu", "precision": "fp32", **values})


def test_a_coded_run_begins_with_a_plain_runs_weights(trained: Path, tmp_path: Path) -> None:
    """The source is printed and stored, and what it learned is there after one epoch."""
    runs = copy_of(trained, tmp_path) / "runs"
    lines: list[str] = []
    recipe = recipe_of("coded_resnext_tiny", epochs=1, lr=0.03)
    result = train(recipe, tiny_schemes(), run_name="new", folder=runs, init="plain", tell=lines.append)
    fresh = train(recipe, tiny_schemes(), run_name="fresh", folder=runs)
    assert result.best_accuracy > fresh.best_accuracy + 0.3
    stored = json.loads((runs / "new" / "config.json").read_text())["init"]
    assert stored["from"] == "plain"
    assert stored["kept_classes"] == list(DIGITS)
    assert stored["statistics_estimated_from"] == "s2.1"
    assert stored["taken"] == len(result.run.load_network().state_dict())
    # The lines on the data set come first.
    (told,) = [line for line in lines if "initial weights" in line]
    assert str(runs / "plain") in told


def test_a_failed_start_leaves_no_run(trained: Path, tmp_path: Path) -> None:
    runs = copy_of(trained, tmp_path) / "runs"
    with pytest.raises(InputError, match="do not fit this network"):
        train(recipe_of("mobilenetv2_10"), {}, run_name="new", folder=runs, init="plain")
    assert not (runs / "new").exists()


def test_a_resumed_run_without_checkpoint_begins_with_the_same_weights(trained: Path, tmp_path: Path) -> None:
    runs = copy_of(trained, tmp_path) / "runs"
    recipe = recipe_of("coded_resnext_tiny", epochs=1, images_per_class=20)
    straight = train(recipe, tiny_schemes(), run_name="straight", folder=runs, init="plain")
    shutil.copytree(runs / "straight", runs / "early")
    shutil.rmtree(runs / "early" / "checkpoints")
    early = resume(Run.load("early", folder=runs))
    expected, found = (one.run.checkpoints.load("last").weights for one in (straight, early))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    shutil.rmtree(runs / "early" / "checkpoints")
    shutil.rmtree(runs / "plain")
    shutil.copytree(runs / "straight", runs / "plain")
    with pytest.raises(InputError, match="other weights than when the run was begun"):
        resume(Run.load("early", folder=runs))


def test_more_epochs_are_refused_with_the_way_on(trained: Path, tmp_path: Path) -> None:
    runs = copy_of(trained, tmp_path) / "runs"
    with pytest.raises(InputError, match="begin a new run with its weights: `init` plain"):
        resume(Run.load("plain", folder=runs), changes={"epochs": 9})


def digits_folder(folder: Path, classes: range) -> str:
    """scikit-learn's digits of some classes as a folder data set; every fifth image is for validation."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        if target in classes:
            place = folder / ("val" if number % 5 == 0 else "train") / str(target)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15.9).astype(np.uint8)).convert("RGB").save(place / f"{number}.png")
    return f"folder:{folder}"


def recall(run: Run, names: list[str]) -> float:
    """Accuracy on the validation images of some classes."""
    from codedtool.training.subject import collect_outputs, opened_run

    with opened_run(run) as subject:
        outputs = collect_outputs(subject, subject.data.val)
    mine = torch.isin(outputs.targets, torch.tensor([run.classes.index(name) for name in names]))
    return float((outputs.predictions == outputs.targets)[mine].float().mean())


def first_eight() -> dict[str, CodingScheme]:
    """The tiny preset's schemes without the rows of the classes 8 and 9."""
    return {stage: CodingScheme(scheme.table[:8]) for stage, scheme in tiny_schemes().items()}


def test_rows_of_the_linear_layer_follow_the_names_of_the_classes(tmp_path: Path) -> None:
    """Of ten classes, eight are known by name: their rows stay, wherever they stand."""
    recipe = recipe_of("coded_resnext_tiny")
    run = Run.create(recipe, first_eight(), DIGITS[:8], NORMALIZATION, name="old", folder=tmp_path)
    old = randomize(run.build_network())
    run.checkpoints.save("e0001s000000", old.state_dict(), {}, metadata=run.metadata(), best=True)
    network = build_network("coded_resnext_tiny", tiny_schemes())
    source = read_source("old", network, folder=tmp_path)

    found = fitted("old", source, network, DIGITS)
    assert torch.equal(found.weights["fc.weight"][:8], old.fc.weight)
    assert torch.equal(found.weights["fc.weight"][8:], network.fc.weight[8:])
    assert (found.kept_classes, found.new_classes) == (DIGITS[:8], DIGITS[8:])
    assert (found.other_codewords, found.first_renewed) == ((), None)
    assert any("drawn anew: those of 8, 9" in line for line in found.lines())

    moved = fitted("old", source, network, DIGITS[::-1])
    assert torch.equal(moved.weights["fc.weight"][2:], old.fc.weight.flip(0))
    # Row k of a scheme is class k, so their codewords moved to other classes.
    assert set(moved.other_codewords) <= set(DIGITS[:8])
    assert moved.other_codewords


@pytest.mark.slow
def test_classes_are_added_to_a_run(tmp_path: Path) -> None:
    """Digits 0 to 7, then 8 and 9 too: after a short training, the old classes and the new ones are recognised."""
    recipe = recipe_of("coded_resnext_tiny", epochs=8, num_workers=0)
    eight = recipe.with_values({"data": digits_folder(tmp_path / "eight", range(8))})
    old = train(eight, first_eight(), run_name="old", folder=tmp_path / "runs")
    ten = recipe.with_values({"data": digits_folder(tmp_path / "ten", range(10)), "epochs": 4})
    new = train(ten, tiny_schemes(), run_name="new", folder=tmp_path / "runs", init="old")
    accuracies = recall(new.run, list("01234567")), recall(new.run, ["8", "9"])
    print(f"before {old.best_accuracy:.2%}; then old classes {accuracies[0]:.2%}, new classes {accuracies[1]:.2%}")
    assert old.best_accuracy > 0.85
    assert min(accuracies) > 0.75
