"""Layers of few rows: torch's numbers but for rounding, and no bit that depends on what stands beside a row."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError

from ploutos.training.fast.dense import _LANES, DenseLayers, pad

SIZES = [(32, 512, 512, 45), (7, 100, 33, 5), (3, 8, 1)]


def network(sizes, seed=1):
    """The first layer's weight, the later layers, and the first one's bias."""
    rng = np.random.default_rng(seed)
    weights = [torch.from_numpy(rng.normal(size=pair).astype(np.float32) / pair[1] ** 0.5) for pair in zip(sizes[1:], sizes, strict=False)]
    first, *biases = [torch.from_numpy(rng.normal(size=size).astype(np.float32)) for size in sizes[1:]]
    return weights[0], list(zip(weights[1:], biases, strict=True)), first


def rows(n, width):
    return np.random.default_rng(n).normal(size=(n, width)).astype(np.float32)


@pytest.mark.parametrize("sizes", SIZES)
def test_answers_are_those_of_torch_and_each_row_has_the_same_bits_alone(sizes):
    weight, later, bias = network(sizes)
    dense, first = DenseLayers(weight, later), pad(bias.numpy())
    for n in (0, 1, 4, 20, 23, 25, 47):
        x = rows(n, sizes[0])
        expected = torch.addmm(bias, torch.from_numpy(x), weight.T)
        for matrix, own in later:
            expected = torch.addmm(own, expected.tanh(), matrix.T)
        answers = dense(x, first)
        np.testing.assert_allclose(answers, expected.numpy(), atol=1e-5)
        for i in range(n):
            np.testing.assert_array_equal(answers[i], dense(x[i : i + 1], first)[0])


def test_a_nan_or_an_infinity_stays_in_its_row():
    weight, later, bias = network(SIZES[0])
    dense, first, x = DenseLayers(weight, later), pad(bias.numpy()), rows(30, 32)
    clean = dense(x, first)
    x[3, 5], x[7, 0] = np.nan, np.inf
    answers, others = dense(x, first), np.setdiff1d(np.arange(30), [3, 7])
    assert np.isnan(answers[3]).all()
    np.testing.assert_array_equal(answers[others], clean[others])


def test_what_does_not_fit_is_refused():
    weight, later, bias = network(SIZES[1])
    dense, first = DenseLayers(weight, later), pad(bias.numpy())
    with pytest.raises(ValueError, match="found 6 inputs and a bias of"):
        dense(rows(2, 6), first)
    with pytest.raises(ValueError, match="found 7 inputs and a bias of 100"):
        dense(rows(2, 7), bias.numpy())
    double = DenseLayers(weight.double(), [(matrix.double(), own.double()) for matrix, own in later])
    with pytest.raises(TypingError, match="expected contiguous float32"):
        double(rows(2, 7), first.astype(np.float64))
    with pytest.raises(ValueError, match="expected each to read what comes before it"):
        DenseLayers(weight, later[1:])


def digest():
    """Of what all networks answer."""
    answers = hashlib.sha256()
    for sizes in SIZES:
        weight, later, bias = network(sizes)
        dense, first = DenseLayers(weight, later), pad(bias.numpy())
        for n in (1, 20, 47):
            answers.update(dense(rows(n, sizes[0]), first).tobytes())
    return answers.hexdigest()


@pytest.mark.skipif(_LANES == 8, reason="compares registers of 16 numbers with those of 8")
def test_narrower_registers_give_the_same_bits(tmp_path):
    """In a process that compiles for AVX2."""
    code = "import test_dense; from ploutos.training.fast import dense; print(dense._LANES, test_dense.digest())"
    own = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma", "NUMBA_CACHE_DIR": str(tmp_path)}
    environment = os.environ | own | {"PYTHONPATH": str(Path(__file__).parent)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["8", digest()]
