"""Networks as after training, for tests."""

import torch
from torch import nn

from roadworthy.core import metanet_ops as ops


def lively(net: nn.Module) -> nn.Module:
    """As after training: no block is silent, no statistic is a whole number."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, ops.AttentionBlock | ops.AttentionDown):
            nn.init.normal_(module.position.weight, std=0.1)
    return net.eval()
