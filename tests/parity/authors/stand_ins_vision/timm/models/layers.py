"""Stochastic depth, pairs, and an initialisation whose values are overwritten here."""

import torch


class DropPath(torch.nn.Module):
    def __init__(self, probability=0.0):
        super().__init__()
        self.probability = probability

    def forward(self, branch):
        if not self.training or self.probability == 0:
            return branch
        keep = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1)) >= self.probability
        return branch * keep / (1 - self.probability)


def to_2tuple(value):
    return value if isinstance(value, tuple) else (value, value)


trunc_normal_ = torch.nn.init.trunc_normal_
