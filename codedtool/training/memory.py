"""Trying a training step before the first epoch, so that memory does not run out in the middle of a training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from codedtool.errors import OutOfMemoryError
from codedtool.models.counts import count_kept_bytes, training_loss
from codedtool.models.network import CodedNetwork
from codedtool.training.launch import read_launch
from codedtool.training.recipe import Recipe
from codedtool.training.runtime import Runtime

# Largest side, in pixels, at which the bytes of an image are counted; those of larger images are in proportion.
_COUNTED_SIDE = 32

# Peak of a step as a multiple of what autograd keeps: the backward pass and the convolutions need buffers of their own.
# Measured on a CPU: 1.0 to 1.7 for the networks of `codedtool.models.presets`.
_PEAK_FACTOR = 1.5
_WORKSPACE_BYTES = 200e6

# Part of a step's bytes that must stay free when the step is tried, because a training fragments its memory. Measured
# on a CPU under a limit: a training's peak is up to 0.45 of a step above the trial's.
_SPARE = 0.25

# Part of the bytes of an image that `sync_bn` adds in bf16 and fp16, because its copies are float32; it is not tried,
# because ranks that try different steps would wait for each other. Counted for coded_resnext29_10x11d.
_SYNC_BN = 1 / 3

# Part of the available memory that a step may take, and the part up to which a CPU need not try it.
_USABLE = 0.9
_SURE = 0.5

_MESSAGES = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "defaultcpuallocator",
    "bad_alloc",
    "could not create a memory",
    "could not create a primitive",
    "could not execute a primitive",
    "status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, torch or one of its libraries says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MESSAGES)


@contextmanager
def memory_told() -> Iterator[None]:
    """Within it, running out of memory is an `OutOfMemoryError` that names the fix."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutOfMemoryError(
            f"memory ran out ({first}); lower `batch_size`, or `micro_batch` of a training, or free memory"
        ) from None


def available_bytes(device: torch.device, processes: int = 1) -> int | None:
    """Bytes that this process can still take on a device; None if the system does not say.

    On a CPU it is the least of the free memory, the rest of the control group's limit (a container's), and the rest of
    the limit on the address space (ulimit -v).

    Args:
        processes: processes of the training on this machine, which share its memory.
    """
    if device.type == "cuda":
        # What torch has taken from the device and no tensor uses is available too: an earlier training leaves it.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    shared = [value for value in (_free_bytes(), _control_group_bytes()) if value is not None]
    limits = [value // processes for value in shared]
    own = _address_space_bytes()
    if own is not None:
        limits.append(own)
    return max(0, min(limits)) if limits else None


def images_that_fit(kept_bytes: float, device: torch.device, most: int) -> int:
    """Halve ``most`` until a training step of so many images takes at most half of the available memory, down to 1.

    Args:
        kept_bytes: bytes that autograd keeps for an image (`codedtool.models.counts.count_kept_bytes`).
        device: the device of the network.
        most: number of images to begin with.
    """
    available = available_bytes(device)
    while available is not None and most > 1 and most * kept_bytes * _PEAK_FACTOR > _SURE * available:
        most //= 2
    return most


def fit_micro_batch(recipe: Recipe, build: Callable[[], CodedNetwork], runtime: Runtime) -> Recipe:
    """Find out whether a training step fits into memory; if not, halve the images per pass until it does.

    The step is tried with a network of its own, so that it leaves no trace in the training. A CPU is not made to try a
    step that needs less than half of the available memory by the count of its bytes.

    Args:
        recipe: the recipe of the training.
        build: builds the network.
        runtime: the device; every rank must call this function.

    Returns:
        The recipe, with a ``micro_batch`` that fits.

    Raises:
        OutOfMemoryError: not even the smallest step fits; the message has the figures.
    """
    if runtime.device.type not in ("cpu", "cuda"):
        return recipe  # XLA plans its memory when it compiles the step
    share = -(-recipe.batch_size // runtime.world_size)
    candidates = _candidates(min(recipe.micro_batch or share, share), share)
    network = build()
    per_image, fixed = _needed_bytes(network, recipe)
    if _synchronizes(recipe, runtime):
        per_image /= 1 - _SYNC_BN
    processes = read_launch().local_world_size if runtime.device.type == "cpu" else 1
    available = available_bytes(runtime.device, processes)
    fits = 0
    while fits < len(candidates):
        needed = fixed + per_image * candidates[fits]
        if available is None or needed <= _USABLE * available:
            sure = available is not None and runtime.device.type == "cpu" and needed <= _SURE * available
            untried = _SYNC_BN * per_image * candidates[fits] if _synchronizes(recipe, runtime) else 0
            if sure or _step_fits(network, candidates[fits], recipe, runtime, spare=int(_SPARE * needed + untried)):
                break
        fits += 1
    del network
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()
    # All ranks take the smallest that one of them needs.
    votes = torch.zeros(len(candidates) + 1, device=runtime.device)
    votes[fits] = 1
    fits = int(runtime.sum(votes).nonzero().max())
    figures = (
        f"a step with {{}} images at once needs about {{:,.0f}} MB ({per_image / 1e6:,.1f} MB an image of "
        f"{recipe.train_size} px and {fixed / 1e6:,.0f} MB for the weights and buffers)"
    )
    has = "" if available is None else f", and {available / 1e6:,.0f} MB are available on {runtime.device.type}"
    if fits == len(candidates):
        least = candidates[-1]
        raise OutOfMemoryError(
            "memory does not suffice: "
            + figures.format(least, (fixed + per_image * least) / 1e6)
            + f"{has}; lower `train_size`, or take a smaller network as `preset`"
        )
    if fits == 0:
        return recipe
    micro = candidates[fits]
    if runtime.is_main:
        warnings.warn(
            figures.format(candidates[0], (fixed + per_image * candidates[0]) / 1e6)
            + f"{has}: `micro_batch` {micro} is used, so a step takes {-(-share // micro)} passes, and BatchNorm sees "
            f"{micro} images at a time",
            stacklevel=2,
        )
    return recipe.with_values({"micro_batch": micro})


def _synchronizes(recipe: Recipe, runtime: Runtime) -> bool:
    return recipe.sync_bn and recipe.precision != "fp32" and runtime.world_size > 1


def _candidates(most: int, share: int) -> list[int]:
    """Numbers of images per pass to try: ``most``, then halves down to 2. No last pass has one image: BatchNorm."""
    found = [most]
    size = most
    while size > 2:
        size = -(-size // 2)
        while share % size == 1 and size < found[-1]:
            size += 1
        if size >= found[-1]:
            break
        found.append(size)
    return found


def _needed_bytes(network: CodedNetwork, recipe: Recipe) -> tuple[float, float]:
    """Estimate the bytes of a training step for every image, and those that do not depend on the images."""
    side = min(recipe.train_size, _COUNTED_SIDE)
    kept = count_kept_bytes(network, torch.zeros(2, 3, side, side)) * (recipe.train_size / side) ** 2
    if recipe.precision != "fp32":
        kept /= 2
    parameters = sum(4 * parameter.numel() for parameter in network.parameters())
    # Weights, gradients, momentum, and the moving average.
    copies = 3 + (recipe.ema_decay > 0)
    return kept * _PEAK_FACTOR, parameters * copies + _WORKSPACE_BYTES


def _step_fits(network: CodedNetwork, num_images: int, recipe: Recipe, runtime: Runtime, *, spare: int) -> bool:
    """Try the forward and the backward pass of one step, with gradients, momentum and ``spare`` bytes in place."""
    try:
        network.to(runtime.device)
        size = recipe.train_size
        images = runtime.put(torch.zeros(num_images, 3, size, size))
        targets = runtime.put(torch.zeros(num_images, dtype=torch.int64))
        held = [torch.zeros_like(parameter) for parameter in network.parameters()]
        held.append(torch.empty(spare, dtype=torch.uint8, device=runtime.device))
        with runtime.autocast():
            output = network(images, targets)
        training_loss(output._replace(logits=output.logits.float()), targets).backward()
        del held
        return True
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        network.zero_grad(set_to_none=True)


def _free_bytes() -> int | None:
    """Memory that the system can give without swapping (Linux)."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _control_group_bytes() -> int | None:
    """Rest of the memory limit of this process's control group, version 2 or 1 (Linux); None without a limit."""
    for limit, used, statistics, key in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        root = Path("/sys/fs/cgroup")
        try:
            # "max" is no number: no limit. The page cache's inactive part is given back on demand.
            rest = int((root / limit).read_text()) - int((root / used).read_text())
            lines = dict(line.split() for line in (root / statistics).read_text().splitlines())
            return rest + int(lines.get(key, 0))
        except (OSError, ValueError):
            continue
    return None


def _address_space_bytes() -> int | None:
    """Rest of the limit on this process's address space (Linux); None without a limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return limit - pages * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return None
