"""The side of PyTorch: training steps as one writes them."""

import contextlib
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.against_torch.cases import Case

RATE, DECAY = 1e-4, 0.01


class Torch:
    """A network that learns, eagerly or compiled."""

    def __init__(self, net: nn.Module, case: Case, method: str, x: Any, y: np.ndarray, order: np.ndarray, **how: Any):
        self.device, self.dtype = how["device"], how["dtype"]
        self.layout = torch.channels_last if case.channels_last else torch.contiguous_format
        self.net = net.to(self.device).train()
        if case.channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        self._freeze(method)
        learning = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=RATE, weight_decay=DECAY, fused=True)
        self.x = [self._placed(part) for part in (x.values() if isinstance(x, dict) else [x])]
        self.y, self.order = torch.from_numpy(y).long().to(self.device), torch.from_numpy(order).to(self.device)
        self.loss = torch.compile(self._loss) if how["compile"] else self._loss
        self.taken = 0

    def _freeze(self, method: str) -> None:
        if method == "head":
            for name, value in self.net.named_parameters():
                value.requires_grad_(name.startswith("fc"))
            for layer in self.net.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()

    def _placed(self, part: np.ndarray) -> Any:
        """Images channels first, as torch wants them; in memory as the layout says."""
        here = torch.from_numpy(part)
        if here.ndim == 4:
            here = here.permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
        return (here.long() if here.dtype == torch.int32 else here).to(self.device)

    def _loss(self, x: list[Any], y: Any) -> Any:
        mixed = torch.autocast(self.device, torch.bfloat16) if self.dtype == "bf16" else contextlib.nullcontext()
        with mixed:
            return nn.functional.cross_entropy(self.net(*x), y)

    def steps(self, count: int) -> float:
        """`count` training steps; the loss of the last."""
        for _ in range(count):
            rows = self.order[self.taken % len(self.order)]
            x = [part[rows] for part in self.x]
            if x[0].ndim == 4:
                x = [part.contiguous(memory_format=self.layout) for part in x]
            loss = self.loss(x, self.y[rows])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.taken += 1
        return float(loss.detach())  # waits for the device
