"""Recipes: the paper's values, the learning rates of timm and PyTorch, and errors that name key, value and fix."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from codedtool.errors import InputError
from codedtool.training.recipe import Recipe, settings
from codedtool.training.recipes import RECIPES, composed, default_data, recipe_for, recipe_of_folder, warn_of_ignored
from codedtool.training.settings import SettingIgnored, read_config

pytestmark = pytest.mark.quick


def test_cifar_recipes_are_the_papers() -> None:
    for name, policy in (("cifar10", "rand-m4-n3"), ("cifar100", "rand-m2-n1")):
        recipe = RECIPES[name]
        assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.min_lr) == (300, 512, 0.1, 1e-5)
        assert (recipe.momentum, recipe.nesterov, recipe.weight_decay, recipe.norm_decay) == (0.9, True, 5e-4, True)
        assert (recipe.crop_padding, recipe.flip, recipe.randaugment) == (4, 0.5, policy)
        assert (recipe.mu, recipe.p_drop, recipe.label_smoothing, recipe.ema_decay) == (6.0, 0.1, 0.0, 0.0)


def test_imagenet_recipe_is_the_papers() -> None:
    recipe = recipe_for("folder:/imagenet")
    assert (recipe.epochs, recipe.warmup_epochs, recipe.cooldown_epochs, recipe.batch_size) == (250, 5, 10, 1536)
    assert (recipe.lr, recipe.weight_decay, recipe.norm_decay, recipe.label_smoothing) == (0.6, 1e-4, False, 0.1)
    assert (recipe.randaugment, recipe.erasing, recipe.erasing_count) == ("rand-m7-mstd0.5-inc1", 0.4, 3)
    assert (recipe.train_size, recipe.eval_size, recipe.random_resized_crop) == (160, 224, True)
    assert (recipe.mu, recipe.p_drop) == (2.0, 0.1)


def test_cifar_learning_rate_is_torchs_cosine_annealing() -> None:
    recipe = RECIPES["cifar10"]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=recipe.epochs, eta_min=recipe.min_lr)
    for epoch in range(recipe.epochs):
        assert recipe.learning_rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_imagenet_learning_rate_is_timms_cosine_with_warm_up_and_cool_down() -> None:
    recipe = recipe_for("folder:x")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    schedule = CosineLRScheduler(optimizer, t_initial=240, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-4)
    for epoch in range(recipe.epochs):
        schedule.step(epoch)
        assert recipe.learning_rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
    assert recipe.learning_rate(249) == recipe.learning_rate(240) == 1e-5
    assert recipe.learning_rate(3.5) == recipe.learning_rate(3)


def test_a_warm_up_never_starts_above_the_highest_rate() -> None:
    recipe, _ = composed(RECIPES["cifar10-cpu"], {"batch_size": 8})
    assert recipe.lr < recipe.warmup_lr
    rates = [recipe.learning_rate(epoch) for epoch in range(recipe.epochs)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == recipe.lr


def test_the_learning_rate_of_every_step_is_timms_schedule_on_updates() -> None:
    recipe = RECIPES["small"].with_values({"epochs": 6, "warmup_epochs": 1, "cooldown_epochs": 1})
    steps = 7
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    schedule = CosineLRScheduler(
        optimizer, t_initial=5 * steps, lr_min=1e-5, warmup_t=steps, warmup_lr_init=1e-4, t_in_epochs=False
    )
    for step in range(recipe.epochs * steps):
        schedule.step_update(step)
        assert recipe.learning_rate(step / steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epocs": 3}, "'epocs' is unknown; did you mean 'epochs'"),
        ({"epochs": "3"}, "`epochs` must be a whole number, got '3'"),
        ({"epochs": 3.0}, "`epochs` must be a whole number, got 3.0"),
        ({"nesterov": 1}, "`nesterov` must be true or false, got 1"),
        ({"lr": float("nan")}, "`lr` must be finite"),
        ({"p_drop": 1.5}, "`p_drop` must be 0 to 0.99, got 1.5"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"precision": "fp8"}, "`precision` must be one of fp32, bf16, fp16"),
        ({"epochs": 4, "warmup_epochs": 2, "cooldown_epochs": 2}, "leave nothing of `epochs` 4"),
    ],
)
def test_bad_values_name_key_rule_and_value(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe().with_values(values)
    assert message in str(caught.value)


def test_the_sections_hold_every_value_once_in_order() -> None:
    assert list(settings()) == list(Recipe().to_json())
    assert {setting.section for setting in settings().values()} == {"network", "optimisation", "images", "machine"}
    assert (settings()["mu"].section, settings()["mu"].kind, settings()["mu"].low) == ("network", float, 0)
    assert settings()["device"].choices == ("auto", "cpu", "cuda", "xla")
    assert not settings()["device"].decides_result
    for key, setting in settings().items():
        assert setting.help.endswith("."), key
        assert setting.checked(key, getattr(Recipe(), key)) == getattr(Recipe(), key)


@pytest.mark.parametrize("key", [key for key, setting in settings().items() if setting.kind in (int, float)])
def test_every_number_has_a_lowest_value_that_is_allowed_and_none_below(key: str) -> None:
    setting = settings()[key]
    low = setting.kind(setting.low)
    assert getattr(Recipe().with_values({key: low}), key) == low
    with pytest.raises(InputError, match=f"`{key}` must be"):
        Recipe().with_values({key: low - 1})


def test_a_config_file_gives_values_and_dashes_are_underscores(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('batch-size = 8\nlr = 1\ndata = "digits"\n')
    values = read_config(path, settings())
    assert values == {"batch_size": 8, "lr": 1, "data": "digits"}
    assert type(Recipe().with_values(values).lr) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight_dekay = 1.0", "key 'weight_dekay' is unknown; did you mean 'weight_decay'"),
        ("[lr]\nvalue = 1", "key 'lr' must be a value, not a table"),
        ("lr = ", "not a TOML file"),
        (None, "cannot be read"),
    ],
)
def test_bad_config_files_are_named(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_config(path, settings())
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_data_set_follows_k_or_the_message_says_what_to_pass() -> None:
    assert [default_data(K, "d") for K in (10, 100, 1000)] == ["cifar10", "cifar100", "folder:d/imagenet"]
    with pytest.raises(InputError, match="`data` as folder:PATH"):
        default_data(7, "d")
    with pytest.raises(InputError, match="`data` 'cifar-10' is unknown; did you mean 'cifar10'"):
        recipe_for("cifar-10")


def test_settings_without_effect_are_warned_of_only_when_given() -> None:
    recipe = Recipe(warmup_lr=0.5, mu=3.0)
    with pytest.warns(SettingIgnored, match="`warmup_lr` has no effect: `warmup_epochs` is 0"):
        warn_of_ignored(recipe, {"warmup_lr"}, coded=True)
    with pytest.warns(SettingIgnored, match="`mu` has no effect: no stage is coded"):
        warn_of_ignored(recipe, {"mu"}, coded=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_ignored(recipe, {"lr"}, coded=False)
        warn_of_ignored(recipe, {"mu"}, coded=True)


def test_a_recipe_knows_its_name_and_the_sizes_follow_the_images() -> None:
    assert all(recipe.recipe == name for name, recipe in RECIPES.items())
    assert settings()["recipe"].choices == tuple(RECIPES)
    for side, size, padding in ((28, 32, 4), (48, 64, 8), (64, 64, 8), (110, 96, 12), (400, 160, 20)):
        recipe = recipe_for("folder:x", "small", side=side)
        assert (recipe.train_size, recipe.eval_size, recipe.crop_padding) == (size, size, padding)
    assert recipe_for("folder:x", side=400) == recipe_for("folder:x")
    assert recipe_for("digits", "small").train_size == 8
    with pytest.raises(InputError, match="`recipe` 'smal' is unknown; did you mean 'small'"):
        recipe_for("digits", "smal")


def test_the_recipe_of_a_folder_follows_the_number_and_size_of_its_images() -> None:
    found = {
        (n, side): recipe_of_folder(n, side)[0] for n in (500, 19_999, 20_000, 99_999, 100_000) for side in (64, 65)
    }
    assert {pair for pair, name in found.items() if name == "cifar10"} == {(20_000, 64), (99_999, 64), (100_000, 64)}
    assert {pair for pair, name in found.items() if name == "imagenet"} == {(100_000, 65)}
    assert set(found.values()) == {"small", "cifar10", "imagenet"}


def test_the_learning_rate_belongs_to_the_batch_unless_it_is_given() -> None:
    base = recipe_for("folder:x")
    recipe, lines = composed(base, {"batch_size": 32})
    assert recipe == base.with_values({"batch_size": 32, "lr": 0.0125})
    assert lines == [
        "learning rate 0.0125: 0.6 for batches of 1536, scaled to batches of 32 (`lr` sets another)",
    ]
    assert composed(base, {"batch_size": 32, "lr": 0.6}) == (base.with_values({"batch_size": 32}), [])
    assert composed(base, {"batch_size": 1536, "mu": 1.0}) == (base.with_values({"mu": 1.0}), [])


def test_fewer_epochs_shrink_warm_up_and_cool_down_in_proportion_unless_given() -> None:
    base = recipe_for("folder:x")
    for epochs, warmup, cooldown in ((250, 5, 10), (400, 5, 10), (100, 2, 4), (25, 1, 1), (2, 0, 0), (1, 0, 0)):
        recipe, lines = composed(base, {"epochs": epochs})
        assert recipe == base.with_values({"epochs": epochs, "warmup_epochs": warmup, "cooldown_epochs": cooldown})
        assert len(lines) == (0 if epochs >= 250 else 2)
    recipe, lines = composed(base, {"epochs": 100, "warmup_epochs": 5})
    assert (recipe.warmup_epochs, recipe.cooldown_epochs) == (5, 4)
    assert lines == ["cooldown of 4 epochs: the recipe has 10 of 250 (`cooldown_epochs` sets another)"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_file_with_a_byte_order_mark_is_read(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes("epochs = 1\r\n".encode(encoding))
    assert read_config(tmp_path / "c.toml", settings()) == {"epochs": 1}
