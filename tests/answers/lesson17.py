"""Lesson 17: answers that are right, and what its numbers are."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import nn
from torchvision.models.resnet import Bottleneck, resnet50

from vitcourse import papers
from vitcourse.papers.botnet import MapAttention
from vitcourse.probe import record_attention

# conv_keys ----------------------------------------------------------------------------------------


class KeysByEinops(nn.Module):
    def __init__(self, dim, stride):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.BatchNorm2d(dim)
        self.conv = nn.Conv2d(dim, dim, 3, stride=stride, padding=1, groups=dim, bias=False)

    def forward(self, x, grid):
        h, w = grid
        token, patches = x[:, : -h * w], x[:, -h * w :]
        map = rearrange(patches, "B (h w) D -> B D h w", h=h)
        keys = rearrange(self.norm(self.conv(map)), "B D h w -> B (h w) D")
        return torch.cat([self.linear(token), self.linear(keys)], dim=1)


class KeysByWindows(nn.Module):
    """The windows cut out, and nine products added up."""

    def __init__(self, dim, stride):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride, 1, groups=dim, bias=False)
        self.norm, self.linear, self.stride = nn.BatchNorm2d(dim), nn.Linear(dim, dim), stride

    def forward(self, x, grid):
        N, D = grid[0] * grid[1], x.shape[-1]
        map = x[:, -N:].transpose(1, 2).reshape(len(x), D, *grid)
        windows = F.unfold(map, 3, padding=1, stride=self.stride).unflatten(1, (D, 9))
        keys = einsum(windows, self.conv.weight.flatten(1), "B D n S, D n -> B D S")
        keys = self.norm(keys[..., None])[..., 0].transpose(1, 2)
        return self.linear(torch.cat([x[:, :-N], keys], dim=1))


# relative_logits ----------------------------------------------------------------------------------


def logits_of_the_package(q, rows, columns, grid):
    """The layer's own, whose scores are divided."""
    layer = MapAttention(q.shape[1] * q.shape[3], q.shape[1], grid)
    del layer.position_rows, layer.position_columns
    layer.position_rows, layer.position_columns = rows, columns
    return layer.relative(q, grid) / layer.scale


def logits_by_loop(q, rows, columns, grid):
    (h, w), parts = grid, []
    for n in range(h * w):
        y, x = divmod(n, w)
        seen = rows[h - 1 - y : 2 * h - 1 - y, None] + columns[w - 1 - x : 2 * w - 1 - x]
        parts.append(q[:, :, n] @ seen.flatten(0, 1).T)  # (B, K, N)
    return torch.stack(parts, dim=2)


def logits_by_gather(q, rows, columns, grid):
    """Products with whole tables, and then those that are needed."""
    h, w = grid
    y, x = torch.cartesian_prod(torch.arange(h), torch.arange(w)).T
    by_row, by_column = q @ rows.T, q @ columns.T  # (B, K, N, 2h-1), (B, K, N, 2w-1)
    dy = (y - y[:, None] + h - 1).expand(*q.shape[:2], -1, -1)
    dx = (x - x[:, None] + w - 1).expand(*q.shape[:2], -1, -1)
    return by_row.gather(3, dy) + by_column.gather(3, dx)


# fuse_norm ----------------------------------------------------------------------------------------


def fused_by_trying(weight, gamma, beta, mean, var, eps):
    """What comes out for nothing is the bias; what each input adds to it is its column."""

    def both(x):
        return (x @ weight.T - mean) / (var + eps) ** 0.5 * gamma + beta

    nothing = both(weight.new_zeros(1, weight.shape[1]))
    columns = both(torch.eye(weight.shape[1])) - nothing
    return torch.cat([columns, nothing]).T


def fused_by_rows(weight, gamma, beta, mean, var, eps):
    rows = []
    for m in range(len(weight)):
        root = (var[m] + eps) ** 0.5
        row, bias = gamma[m] * weight[m] / root, beta[m] - gamma[m] * mean[m] / root
        rows.append(torch.cat([row, bias[None]]))
    return torch.stack(rows)


def fused_as_a_product(weight, gamma, beta, mean, var, eps):
    """The norm is a matrix, too."""
    factor = gamma * torch.rsqrt(var + eps)
    wide = torch.cat([weight, -mean[:, None]], dim=1)
    return torch.diag(factor) @ wide + F.pad(beta[:, None], (weight.shape[1], 0))


RIGHT = {
    "conv_keys": [KeysByEinops, KeysByWindows],
    "relative_logits": [logits_of_the_package, logits_by_loop, logits_by_gather],
    "fuse_norm": [fused_by_trying, fused_by_rows, fused_as_a_product],
}

SOURCES = {
    "conv_keys": """
class answer(nn.Module):
    def __init__(self, dim, stride):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride, 1, groups=dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x, grid):
        h, w = grid
        R = x.shape[1] - h * w
        token = x[:, :R]
        map = x[:, R:].permute(0, 2, 1).unflatten(2, (h, w))
        map = self.conv(map)
        map = self.norm(map)
        keys = map.flatten(2).permute(0, 2, 1)
        x = torch.cat([token, keys], dim=1)
        return self.linear(x)
""",
    "relative_logits": """
def answer(q, rows, columns, grid):
    h, w = grid
    place = torch.arange(h * w)
    y = place // w
    x = place % w
    dy = y[None, :] - y[:, None]
    dx = x[None, :] - x[:, None]
    dy = dy + (h - 1)
    dx = dx + (w - 1)
    offset = rows[dy] + columns[dx]
    return (q[:, :, :, None] * offset).sum(dim=4)
""",
    "fuse_norm": """
def answer(weight, gamma, beta, mean, var, eps):
    root = (var + eps).sqrt()
    factor = gamma / root
    bias = beta - mean * factor
    weight = weight * factor[:, None]
    return torch.cat([weight, bias[:, None]], dim=1)
""",
}

EQUIVALENT = {}


def first_scores_of_cvt():
    """The size of the first map of the published model."""
    with torch.device("meta"), torch.no_grad():
        model = papers.build("cvt_13").eval()
        with record_attention(model) as maps:
            model(torch.empty(1, 3, 224, 224))
    return maps[0][0, 0].numel()


def convolutions_that_botnet_keeps():
    """Of the blocks' 3x3 convolutions, those of a ResNet-50 that are still there."""
    with torch.device("meta"):
        before, after = resnet50(), papers.build("botnet_50")
    kinds = [
        [type(block.conv2) for block in model.modules() if isinstance(block, Bottleneck)]
        for model in (before, after)
    ]
    assert kinds[0] == [nn.Conv2d] * 16
    return kinds[1].count(nn.Conv2d)


def spatial_kernels_of_levit():
    """Layers whose learned kernel is larger than one place."""
    with torch.device("meta"):
        model = papers.build("levit_128s")
    kernels = [layer.kernel_size for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return sum(kernel != (1, 1) for kernel in kernels)


def truth():
    return {
        "scores of the head": first_scores_of_cvt(),
        "of the sixteen": convolutions_that_botnet_keeps(),
        "layers of LeViT-128S": spatial_kernels_of_levit(),
    }
