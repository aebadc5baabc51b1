"""The training loop; it works with a network, batches and a `Runtime`, and is the same for every device."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from codedtool.budget import Budget, Progress
from codedtool.data import Augmentation, Batch, ImageData, normalize, num_train_batches, train_batches
from codedtool.errors import InputError
from codedtool.models.network import CodedNetwork
from codedtool.training.board import Board
from codedtool.training.chance import no_better_than_chance
from codedtool.training.drop import drop_key, drop_mask
from codedtool.training.evaluation import collect_evidence
from codedtool.training.evidence import EVIDENCE_FILE, Evidence
from codedtool.training.optimizer import build_average, build_optimizer
from codedtool.training.run import Run
from codedtool.training.runtime import Interrupted, Runtime
from codedtool.training.sync_bn import average_statistics, enough_for_statistics
from codedtool.training.totals import DivergedError, FiniteWatch, Totals, all_finite, stacked

# Steps between two checks of values that only the device or another rank has; each check waits for them.
_LOOK_EVERY = 20

_REPORT_SECONDS = 0.5


class _EvaluationStopped(Exception):  # noqa: N818  # no error either
    """The budget asked to stop during an evaluation."""


class Trainer:
    """The state of one training, and the loop over its epochs.

    Args:
        run: the run that receives checkpoints and metrics.
        network: the network, already on the runtime's device.
        prepared: the result of `Runtime.prepare` for this network.
        data: the data set.
        runtime: the device.
        budget: polled after every step; when it asks to stop, a checkpoint is saved and `Interrupted` raised.
        progress: called with the state of the work.
        tell_epoch: called with one line for people after every epoch, on rank 0; None: nobody is told.
    """

    def __init__(
        self,
        run: Run,
        network: CodedNetwork,
        prepared: nn.Module,
        data: ImageData,
        runtime: Runtime,
        *,
        budget: Budget,
        progress: Progress,
        tell_epoch: Callable[[str], None] | None = None,
    ) -> None:
        self.run = run
        self.recipe = run.recipe
        self.network = network
        self.prepared = prepared
        self.data = data
        self.runtime = runtime
        self.budget = budget
        self.progress = progress
        self.tell_epoch = tell_epoch if tell_epoch is not None and runtime.is_main else _nobody
        self.optimizer = build_optimizer(network, self.recipe)
        self.average = build_average(network, self.recipe)
        self.history: list[dict[str, Any]] = []
        self.best_accuracy = -1.0
        self.epoch = 0
        self.step = 0
        self._totals = self._new_totals()
        self._last_save = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; images that do not fill a batch are not used in that epoch."""
        return num_train_batches(self.data.train, self.recipe.batch_size)

    def fit(self) -> None:
        """Train from the current epoch and step to the last epoch; save checkpoint and metrics after every epoch.

        The last epoch is the recipe's, or an earlier one if the recipe says when to stop early.

        Raises:
            Interrupted: the budget asked to stop; a checkpoint was saved first.
            DivergedError: a loss or a weight is not finite; the message names step, term and last good checkpoint.
            InputError: a checkpoint could not be written.
        """
        board = None
        if self.recipe.tensorboard and self.runtime.is_main:
            board = Board(self.run.path / "tensorboard", self.epoch)
        while self.epoch < self.recipe.epochs and not self.stops_early:
            start = time.monotonic()
            first_step = self.step
            self._train_epoch(start)
            seconds = time.monotonic() - start
            train = self._totals.means(self.runtime.sum(self._totals.sums))
            self._average_statistics()
            try:
                val, evidence = collect_evidence(
                    self.evaluated,
                    self.data.val,
                    self.run.normalization,
                    self.recipe,
                    self.runtime,
                    crop_part=self.run.crop_part,
                    progress=self._report_or_stop,
                )
            except _EvaluationStopped:
                self.save()  # after the epoch's last step: the resumed training begins with the evaluation
                raise self._interrupted() from None
            row = {
                "epoch": self.epoch + 1,
                "lr": self.recipe.learning_rate(self.epoch),
                **_flat(train, "train"),
                **_flat(val, "val"),
                "images_per_second": self._speed(self.steps_per_epoch - first_step, seconds),
            }
            self.history.append(row)
            # A training that goes on from an earlier checkpoint may have lost the best one.
            best = val["accuracy"] > self.best_accuracy or (
                self.runtime.is_main and "best" not in self.run.checkpoints.index()
            )
            self.best_accuracy = max(self.best_accuracy, val["accuracy"])
            self.epoch, self.step = self.epoch + 1, 0
            self._totals = self._new_totals()
            self.save(best=best, evidence=evidence)
            if self.runtime.is_main:
                self.run.write_metrics(self.history)
            if board is not None:
                board.write(row)
            speed = row["images_per_second"]
            training = self.steps_per_epoch * self.recipe.batch_size / speed if speed else 0.0
            self._tell_row(row, training + time.monotonic() - start - seconds)
            if self.runtime.is_main:
                self._warn_unless_learning(train["num_images"])
            self._poll()
        if self.epoch < self.recipe.epochs:
            self.tell_epoch(
                f"stopped after epoch {self.epoch}: the validation accuracy has not risen above "
                f"{self.best_accuracy:.2%} for {self.recipe.early_stop_epochs} epochs"
            )

    @property
    def stops_early(self) -> bool:
        """Whether the validation accuracy has not risen for the recipe's ``early_stop_epochs``."""
        accuracies = [row["val_accuracy"] for row in self.history]
        patience = self.recipe.early_stop_epochs
        return bool(patience and accuracies and len(accuracies) - 1 - accuracies.index(max(accuracies)) >= patience)

    def _average_statistics(self) -> None:
        """Average BatchNorm's statistics over ranks, those of the moving average too."""
        average_statistics(self.network, self.runtime)
        if self.average is not None:
            average_statistics(self.average, self.runtime)

    @property
    def evaluated(self) -> CodedNetwork:
        """The network to evaluate and save: the moving average if there is one."""
        if self.average is None:
            return self.network
        assert isinstance(self.average.module, CodedNetwork)
        return self.average.module

    def save(self, *, best: bool = False, evidence: Evidence | None = None) -> None:
        """Save a checkpoint of the current state; every rank must call it.

        Args:
            best: make it the best checkpoint too.
            evidence: statistics for predictions, if the state was just evaluated.

        Raises:
            DivergedError: the weights are not finite; nothing is written.
            InputError: the write failed.
        """
        self._average_statistics()
        sums = self.runtime.sum(self._totals.sums)
        if not all_finite(list(self.network.state_dict().values())):
            raise DivergedError(f"the weights are not finite after {self._where()}; {self._advice()}")
        if self.runtime.is_main:
            state = {
                "epoch": self.epoch,
                "step": self.step,
                "best_accuracy": self.best_accuracy,
                "history": self.history,
                "sums": sums,
                "optimizer": self.optimizer.state_dict(),
                "runtime": self.runtime.state(),
                "world_size": self.runtime.world_size,
            }
            if self.average is not None:
                # The saved weights are the average's; training continues with these.
                state["network"] = self.network.state_dict()
                state["average"] = int(self.average.n_averaged)
            name = f"e{self.epoch:04d}s{self.step:06d}"
            attached = {} if evidence is None else {EVIDENCE_FILE: evidence.to_bytes()}
            self.run.checkpoints.save(
                name,
                self.evaluated.state_dict(),
                state,
                metadata=self.run.metadata(),
                best=best,
                attached=attached,
            )
        self._last_save = time.monotonic()

    def restore(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint that `save` wrote."""
        self.evaluated.load_state_dict(weights)
        if self.average is not None:
            self.network.load_state_dict(state["network"])
            self.average.n_averaged.fill_(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.runtime.restore(state["runtime"])
        if state["world_size"] != self.runtime.world_size and self.runtime.is_main:
            warnings.warn(
                f"the checkpoint was written by {state['world_size']} processes, and now there are "
                f"{self.runtime.world_size}: BatchNorm sees other batches, so the result will not be bit-identical",
                stacklevel=2,
            )
        self.epoch, self.step = state["epoch"], state["step"]
        self.best_accuracy = state["best_accuracy"]
        self.history = list(state["history"])
        if self.runtime.is_main:
            self._totals.sums = state["sums"].to(self.runtime.device)

    def _train_epoch(self, start: float) -> None:
        """Do the remaining steps of the current epoch."""
        recipe, runtime = self.recipe, self.runtime
        self.network.train()
        watch = FiniteWatch(self.network.block_names, self.runtime.device)
        keys = [
            runtime.put(drop_key(seed=recipe.seed, epoch=self.epoch, group=group))
            for group in range(len(self.network.drop_group_lengths))
        ]
        runtime.mark()
        first_step, reported = self.step, 0.0
        for images, targets, indices in self._train_batches():
            self._train_step(images, targets, indices, keys, watch)
            self.step += 1
            if self.step % _LOOK_EVERY == 0 or self.step == self.steps_per_epoch:
                self._check(watch, first_step)
            now = time.monotonic()
            if now - reported > _REPORT_SECONDS:
                reported = now
                self._report(now - start, first_step)
            if self.step < self.steps_per_epoch:
                self._poll(watch, first_step)

    def _train_step(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        indices: torch.Tensor,
        keys: Sequence[torch.Tensor],
        watch: FiniteWatch,
    ) -> None:
        """Do one optimizer step.

        The loss of every micro-batch and rank is weighted so that the sum is the mean over the global batch. The
        gradients of several micro-batches are those of the whole batch, except that BatchNorm normalises every
        micro-batch by itself. An image that was skipped, because it cannot be read, counts as one without gradient, so
        that such a step is a little smaller.
        """
        recipe, runtime = self.recipe, self.runtime
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate(self.epoch + self.step / self.steps_per_epoch)
        if not len(targets):
            raise InputError(
                f"no image of one batch in epoch {self.epoch + 1} can be read: `skip_bad_images` is meant for a few "
                "bad files; check the data set"
            )
        # Equal parts: BatchNorm needs more than one image where the last features have one pixel.
        passes = -(-len(targets) // (recipe.micro_batch or len(targets)))
        parts = list(zip(*(tensor.tensor_split(passes) for tensor in (images, targets, indices)), strict=True))
        for number, part in enumerate(parts, start=1):
            images_BCHW, targets_B, indices_B = (runtime.put(tensor) for tensor in part)
            images_BCHW = normalize(images_BCHW, self.run.normalization)
            hold = number < len(parts)
            with runtime.accumulate(self.prepared) if hold else nullcontext():
                masks = self._drop_masks(indices_B, keys)
                with runtime.autocast(), enough_for_statistics(len(targets_B)):
                    output = self.prepared(images_BCHW, targets_B, drop_masks=masks)
                logits_BK = output.logits.float()
                loss = functional.cross_entropy(logits_BK, targets_B, label_smoothing=recipe.label_smoothing)
                coding_losses = stacked(output.coding_losses, loss)
                total = loss + recipe.mu * coding_losses.sum()
                runtime.backward(total * (len(targets_B) / recipe.batch_size))
            self._totals.add(loss, coding_losses, logits_BK.detach(), targets_B)
            watch.see(loss, coding_losses)
            if hold:
                runtime.mark()
        watch.next_step()
        runtime.step(self.optimizer)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _poll(self, watch: FiniteWatch | None = None, first_step: int = 0) -> None:
        """Stop, or save a checkpoint, when it is time.

        All ranks must decide the same. With several ranks they agree every `_LOOK_EVERY` steps only, because
        agreeing makes them wait for each other.
        """
        stop = self.budget.stop_reason() is not None
        within_epoch = watch is not None
        waited = time.monotonic() - self._last_save
        due = within_epoch and self.runtime.is_main and waited >= 60 * self.recipe.checkpoint_minutes
        if self.runtime.world_size > 1:
            if within_epoch and self.step % _LOOK_EVERY:
                return
            flags = torch.tensor([float(stop), float(due)], device=self.runtime.device)
            stop, due = (flag > 0 for flag in self.runtime.sum(flags).tolist())
        if watch is not None and (stop or due):
            self._check(watch, first_step)
            self.save()
        if stop:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        last = self.run.checkpoints.index()["last"]
        return Interrupted(f"checkpoint {last} is saved; continue with `resume` and `run_name` {self.run.name}")

    def _report_or_stop(self, phase: str, done: float, total: float | None, note: str = "") -> None:
        """Report the progress of an evaluation; end it when the budget asks to. Several ranks finish it together."""
        self.progress(phase, done, total, note)
        if self.runtime.world_size == 1 and self.budget.stop_reason() is not None:
            raise _EvaluationStopped

    def _check(self, watch: FiniteWatch, first_step: int) -> None:
        """Raise DivergedError if a loss since ``first_step`` of this epoch was not finite."""
        bad = watch.first_bad()
        if bad is not None:
            steps, term = bad
            raise DivergedError(
                f"the {term} is not finite in epoch {self.epoch + 1}, step {first_step + steps + 1}; {self._advice()}"
            )

    def _advice(self) -> str:
        last = self.run.checkpoints.newest()
        good = f"the last good checkpoint is {self.run.checkpoints.folder / last}" if last else "no checkpoint yet"
        return f"{good}; train again with a lower `lr` or `mu`" + (
            "" if self.recipe.precision == "fp32" else ", or with `precision` fp32"
        )

    def _where(self) -> str:
        return f"epoch {self.epoch}, step {self.step}" if self.step else f"epoch {self.epoch}"

    def _report(self, seconds: float, first_step: int) -> None:
        """Report progress with this rank's own running means, so that no rank waits for another."""
        means = self._totals.means()
        images = (self.step - first_step) * self.recipe.batch_size
        rate = images / max(seconds, 1e-9)
        done = self.epoch + self.step / self.steps_per_epoch
        left = (self.recipe.epochs - done) * self.steps_per_epoch * self.recipe.batch_size / max(rate, 1e-9)
        best = f", best {self.best_accuracy:.2%}" if self.history else ""
        note = (
            f"epoch {self.epoch + 1}/{self.recipe.epochs}, loss {means['loss']:.4f}, "
            f"accuracy {means['accuracy']:.2%}{best}, {rate:.0f} images/s, {_duration(left)} left"
        )
        self.progress("training", done, self.recipe.epochs, note)

    def _speed(self, steps: int, seconds: float) -> float:
        """Images per second of an epoch's steps.

        Without a step, where a run goes on with the evaluation that it was stopped in, it is that of the epoch before;
        0 in the first epoch.
        """
        if steps:
            return round(steps * self.recipe.batch_size / seconds, 1)
        return self.history[-1]["images_per_second"] if self.history else 0.0

    def _tell_row(self, row: dict[str, Any], seconds: float) -> None:
        """Tell the figures of a finished epoch, which took ``seconds`` with its evaluation."""
        self.tell_epoch(
            f"epoch {row['epoch']}/{self.recipe.epochs}: lr {row['lr']:.4g}, training loss {row['train_loss']:.4f}, "
            f"training accuracy {row['train_accuracy']:.2%}, validation accuracy {row['val_accuracy']:.2%}, "
            f"{row['images_per_second']:.0f} images/s, {_duration((self.recipe.epochs - self.epoch) * seconds)} left"
        )

    def _warn_unless_learning(self, num_images: int) -> None:
        """Warn, some epochs after the warm-up and at the end, if the network is no better than chance.

        Args:
            num_images: images of the last epoch.
        """
        recipe = self.recipe
        early = min(recipe.epochs, recipe.warmup_epochs + max(2, recipe.epochs // 10))
        at_end = self.epoch == recipe.epochs or self.stops_early
        if self.epoch != early and not at_end:
            return
        message = no_better_than_chance(
            self.history[-1],
            recipe,
            self.data.train.targets,
            len(self.data.classes),
            num_images=num_images,
            steps=self.epoch * self.steps_per_epoch,
            at_end=at_end,
        )
        if message is not None:
            warnings.warn(message, stacklevel=2)

    def _new_totals(self) -> Totals:
        return Totals(self.network.block_names, self.runtime.device, decoders=False)

    def _drop_masks(self, indices_B: torch.Tensor, keys: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
        """Draw dropSubNNs' masks: one (B, N) per drop group of the network; None if nothing is dropped."""
        if self.recipe.p_drop == 0:
            return None
        lengths = self.network.drop_group_lengths
        return [
            drop_mask(indices_B, key, length=length, p_drop=self.recipe.p_drop)
            for key, length in zip(keys, lengths, strict=True)
        ]

    def _train_batches(self) -> Iterable[Batch]:
        """Make the remaining batches of this epoch: this rank's part of each."""
        recipe = self.recipe
        augmentation = Augmentation(
            normalization=self.run.normalization,
            crop_padding=0 if recipe.random_resized_crop else recipe.crop_padding,
            random_resized_crop=recipe.random_resized_crop,
            flip=recipe.flip,
            randaugment=recipe.randaugment,
            erasing=recipe.erasing,
            erasing_count=recipe.erasing_count,
        )
        return train_batches(
            self.data.train,
            augmentation,
            size=recipe.train_size,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            epoch=self.epoch,
            start_batch=self.step,
            balanced=recipe.balanced,
            rank=self.runtime.rank,
            world_size=self.runtime.world_size,
            num_workers=self.runtime.num_workers,
            pin_memory=self.runtime.pin_memory,
        )


def _nobody(line: str) -> None:
    """Tell nobody."""


def _flat(means: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Flatten means into one row of metrics: ``train_loss``, ``train_coding_loss_s3.1``, ..."""
    row = {f"{prefix}_loss": means["loss"], f"{prefix}_accuracy": means["accuracy"]}
    for kind in ("coding_loss", "decoder_accuracy"):
        row |= {f"{prefix}_{kind}_{block}": value for block, value in means.get(kind, {}).items()}
    return row


def _duration(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
