"""Weights as bytes of a safetensors file: equal weights and texts give equal bytes, and nothing read is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors.torch
import torch

from codedtool.errors import InputError
from codedtool.text import encodable

_METADATA = "__metadata__"
# The file begins with the length of its header, in as many bytes; tensors begin at a multiple of it.
_ALIGNMENT = 8


def to_safetensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Write tensors, on any device, and texts. safetensors itself puts the texts into a random order.

    Args:
        tensors: by name.
        metadata: texts to store with them, by name.
    """
    stored = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    content = safetensors.torch.save(stored)
    header, data = _split(content)
    texts = {key: encodable(metadata[key]) for key in sorted(metadata)}
    ordered = json.dumps({_METADATA: texts, **header}, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % _ALIGNMENT)
    return len(ordered).to_bytes(_ALIGNMENT, "little") + ordered + data


def from_safetensors(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors, onto the CPU, and the texts of a safetensors file.

    Raises:
        InputError: the bytes are no such file, or are damaged.
    """
    try:
        tensors = safetensors.torch.load(content)
        texts = _split(content)[0].get(_METADATA, {})
    except Exception as error:  # damaged bytes raise KeyError, RuntimeError, SafetensorError and more
        raise InputError(f"no intact safetensors file ({_reason(error)})") from None
    return tensors, {str(key): str(value) for key, value in texts.items()}


def _split(content: bytes) -> tuple[dict[str, dict[str, str]], bytes]:
    """The header of a safetensors file and the bytes after it."""
    end = _ALIGNMENT + int.from_bytes(content[:_ALIGNMENT], "little")
    header = json.loads(content[_ALIGNMENT:end])
    return header, content[end:]


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
