"""Which arithmetic matrix products use, decided by measurement.

Torch's `medium` precision sends float32 products to faster routines. On most CPUs they are as exact as the slow ones, on
others they compute in bfloat16. So the error is measured first, on the device that will train.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

logger = logging.getLogger(__name__)

Precision = Literal["highest", "high", "medium"]
FLOAT32_ERROR = 2e-6
"""Most that a product may be off, on average, as a share of its root mean square: float32 gives 3e-7, bfloat16 2e-3."""


def product_error(precision: Precision, device: str = "cpu") -> float:
    """Mean error of a float32 product at a precision, against float64, as a share of the product's root mean square."""
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(512, 484, generator=random), torch.randn(484, 256, generator=random)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    product = (a.to(device) @ b.to(device)).cpu().double()
    torch.set_float32_matmul_precision(before)
    exact = a.double() @ b.double()
    return float((product - exact).abs().mean() / exact.square().mean().sqrt())


@contextmanager
def matmul_precision(fast: bool, device: str = "cpu") -> Iterator[Precision]:
    """Within the block, products use the fast routines if they are requested and exact; afterwards what was before."""
    before = torch.get_float32_matmul_precision()
    precision: Precision = "highest"
    if fast:
        error = product_error("medium", device)
        precision = "medium" if error <= FLOAT32_ERROR else "highest"
        logger.info("matrix products: error %.1e of their size at medium precision, so %s is used", error, precision)
    torch.set_float32_matmul_precision(precision)
    try:
        yield precision
    finally:
        torch.set_float32_matmul_precision(before)
