"""One step of stable-baselines3's update: gradients are clipped and Adam steps, with the bytes of torch's own functions.

A network of a few small layers spends more time on what torch looks up anew at every step than on arithmetic.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

_KNOWN = {torch.optim.Adam: torch._fused_adam_, torch.optim.AdamW: torch._fused_adamw_}


class ClippedStep:
    """`clip_grad_norm_` and the fused step of Adam or AdamW; torch's own functions for what is neither or not on a CPU.

    Args:
        max_norm: of all gradients together.
        undecayed: parameters that AdamW's weight decay leaves alone; of one group.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float, undecayed: Sequence[Tensor] = ()) -> None:
        self._optimizer, self._max_norm, group = optimizer, max_norm, optimizer.param_groups[0]
        self._undecayed = list(undecayed) if isinstance(optimizer, torch.optim.AdamW) else []
        self._kept = 1 - group["lr"] * group["weight_decay"]
        self._parameters: list[Tensor] = [each for group in optimizer.param_groups for each in group["params"]]
        here = all(each.device.type == "cpu" for each in self._parameters) and len(optimizer.param_groups) == 1
        self._fused = _KNOWN.get(type(optimizer)) if here and not optimizer.param_groups[0].get("amsgrad") else None

    @torch.no_grad()
    def __call__(self) -> None:
        """Use the gradients of the last backward pass."""
        for each in self._undecayed:
            if each.grad is not None:  # else the step leaves it alone
                each.div_(self._kept)  # which the step multiplies it by
        moved = [each for each in self._parameters if each.grad is not None]
        states: list[dict[str, Any]] = [self._optimizer.state.get(each, {}) for each in moved]
        if self._fused is None or not all(states):  # Adam makes what it remembers at its first step
            nn.utils.clip_grad_norm_(moved, self._max_norm)
            self._optimizer.step()
            return
        gradients, group = [cast(Tensor, each.grad) for each in moved], self._optimizer.param_groups[0]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, torch.clamp(self._max_norm / (norm + 1e-6), max=1.0))
        means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        torch._foreach_add_(steps, 1)
        beta1, beta2 = group["betas"]
        self._fused(
            moved, gradients, means, squares, [], steps, amsgrad=False, lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=group["maximize"], grad_scale=None, found_inf=None,
        )  # fmt: skip
