"""Look inside a model while it runs. Works on every model whose attention is `vit.Attention`."""

from contextlib import contextmanager

import torch

from vitcourse.vit import Attention, Block


@contextmanager
def record_attention(model):
    """Collect the attention weights: `with record_attention(model) as maps: model(images)`.

    `maps` fills with one (B, K, T, T) a block, in the order in which the blocks run. Inside, the
    explicit attention runs in place of the fused kernel; the output is the same.
    """
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no attention to record")
    maps = []
    try:
        for layer in layers:
            layer.recorder = lambda weights: maps.append(weights.detach())
        yield maps
    finally:
        for layer in layers:
            layer.recorder = None


@contextmanager
def record_tokens(model):
    """Collect what leaves each block, one (B, T, D) a block, in the order in which they run."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if not blocks:
        raise ValueError(f"{type(model).__name__} has no blocks to record")
    tokens = []
    hooks = [
        block.register_forward_hook(lambda *a: tokens.append(a[-1].detach())) for block in blocks
    ]
    try:
        yield tokens
    finally:
        for hook in hooks:
            hook.remove()


def rollout(maps):
    """How much of each input token reaches each output token: maps, each (B, K, T, T) -> (B, T, T).

    Heads are averaged; half of every block is its residual path. Rows sum to one.
    Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928
    """
    T = maps[0].shape[-1]
    reach = torch.eye(T).to(maps[0])
    for weights in maps:
        reach = (weights.mean(dim=1) + torch.eye(T).to(weights)) / 2 @ reach
    return reach
