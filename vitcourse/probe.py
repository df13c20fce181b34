"""Look inside a model while it runs. Works on every model whose attention is `vit.Attention`."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F

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


def attention_distance(weights, grid, patch=1):
    """How far each head looks, in pixels: weights (B, K, T, T) -> (B, K).

    The mean distance from a patch (query) to the patches (keys) that it looks at, by weight, over
    all queries. Prefix tokens have no place in the image: they are left out.
    """
    h, w = grid
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(weights)  # (N, 2)
    apart = torch.cdist(places, places) * patch  # (N, N)
    among = weights[..., -h * w :, -h * w :]  # (B, K, N, N)
    among = among / among.sum(dim=-1, keepdim=True)
    return (among * apart).sum(dim=-1).mean(dim=-1)


def position_similarity(table, grid, centre=False):
    """How alike the vectors of two places are, by cosine: (N, D) or (1, R+N, D) -> (h, w, h, w).

    `centre` first takes away the mean of all places: what they share hides how they differ.
    """
    h, w = grid
    rows = table.detach().reshape(-1, table.shape[-1])[-h * w :]  # (N, D)
    if centre:
        rows = rows - rows.mean(dim=0)
    rows = F.normalize(rows, dim=-1)
    return (rows @ rows.T).reshape(h, w, h, w)


def token_similarity(x):
    """How alike the tokens of an image are: x (B, T, D) -> the mean cosine of two of them (B,)."""
    T = x.shape[1]
    x = F.normalize(x, dim=-1)
    alike = (x @ x.transpose(1, 2)).sum(dim=(1, 2))  # (B,), each token with itself included
    return (alike - T) / (T * (T - 1))


def filter_components(weight, count=28):
    """The main patterns of the filters that read a patch: weight (D, C, P, P) -> two tensors.

    The components (count, C, P, P), each of length one, and the share of the filters' variance that
    each explains (count,), falling.
    """
    filters = weight.detach().flatten(1)  # (D, C*P*P)
    count = min(count, *filters.shape)
    _, sizes, patterns = torch.linalg.svd(filters - filters.mean(dim=0), full_matrices=False)
    share = sizes**2 / (sizes**2).sum()
    return patterns[:count].reshape(count, *weight.shape[1:]), share[:count]


def on_object(heat, masks):
    """How much of a heat map lies on an object: (B, h, w), bool (B, H, W) -> two tensors (B,).

    The share of the heat on it, and the share of the image that it covers, which is what a map that
    knows nothing would give.
    """
    area = F.adaptive_avg_pool2d(masks[:, None].to(heat), heat.shape[-2:])[:, 0]  # (B, h, w)
    share = (heat * area).sum(dim=(1, 2)) / heat.sum(dim=(1, 2))
    return share, area.mean(dim=(1, 2))


def with_tokens(model, images, keep):
    """The logits of a ViT that is shown only some patches: keep, their numbers (n,) or (B, n).

    The others are taken away after the positions are added: those that stay know their places.
    """
    x, grid = model.patch_embed(images)
    prefix = model.prefix.expand(len(x), -1, -1)  # (B, R, D)
    x = model.position(torch.cat([prefix, x], dim=1), grid)  # (B, T, D)
    R = prefix.shape[1]
    keep = keep.expand(len(x), -1)  # (B, n)
    chosen = x[:, R:].gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))  # (B, n, D)
    x = torch.cat([x[:, :R], chosen], dim=1)  # (B, R+n, D)
    for block in model.blocks:
        x = block(x)
    return model.head(model.norm(x), (1, keep.shape[1]))


@torch.no_grad()
def leave_one_out(model, images, labels):
    """What each patch does for the right class: images (B, C, H, W), labels (B,) -> (B, N).

    How far the logit of the label falls when this patch alone is taken away. Below zero: it rises.
    """
    chosen = torch.arange(len(labels)), labels
    whole = model(images)[chosen]  # (B,)
    count = model.patch_embed(images[:1])[0].shape[1]
    everything = torch.arange(count, device=images.device)
    falls = [
        whole - with_tokens(model, images, everything[everything != i])[chosen] for i in everything
    ]
    return torch.stack(falls, dim=1)  # (B, N)
