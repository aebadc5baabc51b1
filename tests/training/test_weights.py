"""Weights files: equal content gives equal bytes in every process, and what comes back is what was written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from codedtool.errors import InputError
from codedtool.training.weights import from_safetensors, to_safetensors

pytestmark = pytest.mark.quick

METADATA = {f"scheme.s{number}": f"{number}" * 64 for number in range(12)} | {"preset": "é", "a": ""}


def tensors() -> dict[str, torch.Tensor]:
    return {
        "b": torch.arange(6.0).reshape(2, 3).T,
        "a": torch.arange(3),
        "half": torch.ones(5, dtype=torch.bfloat16),
        "none": torch.empty(0),
    }


def test_what_is_written_comes_back_and_safetensors_itself_can_read_it(tmp_path: object) -> None:
    content = to_safetensors(tensors(), METADATA)
    found, texts = from_safetensors(content)
    assert texts == METADATA
    theirs = safetensors.torch.load(content)
    for key, tensor in tensors().items():
        assert torch.equal(found[key], tensor)
        assert torch.equal(theirs[key], tensor)
    # The header's length is a multiple of 8, as the format asks for, so that tensors lie aligned.
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_equal_weights_are_equal_byte_for_byte_in_every_process() -> None:
    program = (
        "import hashlib; from tests.training.test_weights import METADATA, tensors\n"
        "from codedtool.training.weights import to_safetensors\n"
        "print(hashlib.sha256(to_safetensors(tensors(), METADATA)).hexdigest())"
    )
    done = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True).stdout
        for _ in range(2)
    }
    assert len(done) == 1
    # safetensors hashes with a new random seed for every map.
    assert len({to_safetensors(tensors(), METADATA) for _ in range(10)}) == 1
    assert len({to_safetensors(tensors(), dict(reversed(METADATA.items()))) for _ in range(2)}) == 1


def test_a_name_that_is_not_utf8_does_not_end_the_saving() -> None:
    _, texts = from_safetensors(to_safetensors(tensors(), {"class": "caf\udce9"}))
    assert texts == {"class": "caf\\xe9"}


def test_damaged_bytes_are_an_input_error() -> None:
    content = to_safetensors(tensors(), METADATA)
    header = json.dumps({"__metadata__": [1]}).encode()
    for damaged in (
        b"",
        content[:4],
        content[:100],
        content[:-1],
        b"\xff" * 100,
        (2**63).to_bytes(8, "little") + b"{}",
        len(header).to_bytes(8, "little") + header,
        content[:8] + b"\x00" + content[9:],
    ):
        with pytest.raises(InputError, match="no intact safetensors file"):
            from_safetensors(damaged)
