"""Data-parallel training: several processes work one training, each its share of every batch.

The gradients of a step are summed over the processes in one message, whose weights make it the batch's mean; all
processes then make the same optimiser step on the same weights. DistributedDataParallel would not fit: it counts on
one `forward` a step through its wrapper, while a step here calls parts of the model, and first, several times, without
gradient; and one message of a refiner's 3 MB leaves it nothing to overlap.

Who starts the processes is another's business: Ray Train, `torchrun`, a test. Knows nothing of the training itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """The processes of one training, seen from one of them. A process on its own is a group of one."""

    rank: int
    """Which one this is; 0 alone writes and reports."""
    size: int
    device: str
    """Where messages are taken from; NCCL knows no CPU tensors."""

    def share(self, count: int) -> range:
        """The positions 0 … count - 1 that fall to this process: consecutive ones, as in `Batch.split`."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message; all of one dtype."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, summed in zip(tensors, torch.split(flat, [each.numel() for each in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def any(self, value: bool) -> bool:
        """Whether the value is true on any process."""
        total = torch.tensor([float(value)], device=self.device)
        self.sum_([total])
        return bool(total.item())

    def same(self, value: int) -> bool:
        """Whether the value is the same on all processes."""
        total = torch.tensor([float(value)], dtype=torch.float64, device=self.device)
        self.sum_([total])
        return not self.any(value * self.size != total.item())


def group(device: str) -> Group:
    """The process group that is up, or this process alone."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size(), device)
    return Group(0, 1, device)
