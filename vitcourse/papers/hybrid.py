"""R50+ViT, faithful to the published model: the patches are cut from a ResNet's maps.

An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, Dosovitskiy et al. 2020,
https://arxiv.org/abs/2010.11929

The question: a patch embedding is one linear map of 16x16 pixels. Is it better to look at
neighbouring pixels first? The change: a ResNet-50 makes a map that is 16 times smaller than the
image, and each of its pixels becomes a token. All else is the ViT. The three blocks of the fourth
stage, which would halve the map once more, stand in the third: 3, 4 and 9 blocks.

The ResNet has GroupNorm in place of BatchNorm, and its filters are standardised; its blocks are
normalised after each convolution, unlike those of the ResNet-v2 whose name some libraries give it.
The small numbers that avoid a division by zero are timm's. The authors' code adds 1e-5 to the
standard deviation of a filter, and its norms have 1e-6.
"""

import re
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse.config import Config, grid_of
from vitcourse.papers import Paper, Published
from vitcourse.vit import PatchEmbed, ViT, truncated_normal_
from vitcourse.weights import from_google, rename


def pad(x, kernel, stride):
    """Add zeros so that n pixels become ceil(n / stride): an odd one goes to the right or below."""
    sides = []
    for n in (x.shape[3], x.shape[2]):
        missing = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        sides += [missing // 2, missing - missing // 2]
    return F.pad(x, sides)


class StandardConv(nn.Conv2d):
    """A convolution that uses its filters with the mean 0 and the variance 1."""

    eps = 1e-8

    def __init__(self, channels, out, kernel, stride=1):
        super().__init__(channels, out, kernel, stride, bias=False)

    def reset_parameters(self):
        truncated_normal_(self.weight, std=self.weight[0].numel() ** -0.5)

    def filters(self):
        """The filters as they are used: (out, C, k, k)."""
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return (self.weight - mean) * (var + self.eps).rsqrt()

    def forward(self, x):
        if self.stride == (1, 1):
            return F.conv2d(x, self.filters(), padding="same")
        x = pad(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, self.filters(), stride=self.stride)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 pixels beside a shortcut: (B, C, h, w) -> (B, out, h, w)."""

    def __init__(self, channels, out, stride, groups):
        super().__init__()
        mid = out // 4
        self.conv1, self.norm1 = StandardConv(channels, mid, 1), nn.GroupNorm(groups, mid)
        self.conv2, self.norm2 = StandardConv(mid, mid, 3, stride), nn.GroupNorm(groups, mid)
        self.conv3, self.norm3 = StandardConv(mid, out, 1), nn.GroupNorm(groups, out)
        self.downsample = nn.Identity()
        if channels != out:
            conv, norm = StandardConv(channels, out, 1, stride), nn.GroupNorm(groups, out)
            self.downsample = nn.Sequential(OrderedDict(conv=conv, norm=norm))
        nn.init.zeros_(self.norm3.weight)  # at the start, only the shortcut counts

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))  # (B, out, h, w)
        return F.relu(self.downsample(x) + y)


class ResNet(nn.Module):
    """Images (B, C, H, W) -> maps (B, out, H/stride, W/stride). Stage i has `blocks[i]` blocks.

    The stem divides the sides by 4, each stage but the first by 2. The narrowest maps have `width`
    channels and every norm has half as many groups, which makes the 32 of the published model.
    """

    def __init__(self, channels, blocks, width):
        super().__init__()
        groups = width // 2
        conv, norm = StandardConv(channels, width, 7, 2), nn.GroupNorm(groups, width)
        self.stem = nn.Sequential(OrderedDict(conv=conv, norm=norm))
        self.stages, before = nn.Sequential(), width
        for i, depth in enumerate(blocks):
            out = 4 * width * 2**i
            first = Bottleneck(before, out, 1 if i == 0 else 2, groups)
            others = [Bottleneck(out, out, 1, groups) for _ in range(1, depth)]
            stage = OrderedDict(blocks=nn.Sequential(first, *others))
            self.stages.append(nn.Sequential(stage))
            before = out

    def forward(self, images):
        x = F.relu(self.stem(images))  # (B, width, h, w)
        # after a ReLU, a zero from padding is never above its neighbours
        x = F.max_pool2d(pad(x, 3, 2), 3, 2)  # (B, width, h/2, w/2)
        return self.stages(x)


class ResNetEmbed(PatchEmbed):
    """Embed the patches of a ResNet's maps: images (B, C, H, W) -> x (B, N, D), grid (h, w).

    `patch` is the side of a token in pixels of the image, so of patch / stride pixels of the maps.
    """

    blocks, width = (3, 4, 9), 64

    @classmethod
    def of(cls, blocks, width):
        """The class with another ResNet, ready for a slot."""
        return type(cls.__name__, (cls,), {"blocks": tuple(blocks), "width": width})

    def __init__(self, channels, dim, patch):
        stages, stride = len(self.blocks), 2 ** (len(self.blocks) + 1)
        if patch % stride:
            raise ValueError(f"patch is {patch}: {stages} stages need a multiple of {stride}")
        super().__init__(4 * self.width * 2 ** (stages - 1), dim, patch // stride)
        self.backbone = ResNet(channels, self.blocks, self.width)
        self.image_channels, self.image_patch = channels, patch

    def forward(self, images):
        if images.ndim != 4 or images.shape[1] != self.image_channels:
            shape, needed = tuple(images.shape), f"(batch, {self.image_channels}, height, width)"
            raise ValueError(f"images have the shape {shape}, this model needs {needed}")
        grid_of(images.shape[-2:], self.image_patch)
        return super().forward(self.backbone(images))


def from_google_hybrid(state, model):
    """Google's names for the ResNet, which count blocks and units from one."""
    ours = {"conv_proj": "downsample.conv", "gn_proj": "downsample.norm", "gn": "norm"}

    def unit(match):
        block, number, layer = int(match[1]) - 1, int(match[2]) - 1, match[3]
        for theirs, name in ours.items():
            layer = layer.replace(theirs, name)
        return f"patch_embed.backbone.stages.{block}.blocks.{number}.{layer}"

    rules = [
        (r"^conv_root\.", "patch_embed.backbone.stem.conv."),
        (r"^gn_root\.", "patch_embed.backbone.stem.norm."),
        (r"^block(\d+)\.unit(\d+)\.(\w+)", unit),
    ]
    flat = re.compile(r"\bgn\w+/(scale|bias)$")  # C numbers on four axes there
    state = {name: t.flatten() if flat.search(name) else t for name, t in state.items()}
    return rename(rules)(from_google(state, model), model)


class Hybrid(ViT):
    """A ViT whose tokens come from a ResNet."""

    Tokenizer = ResNetEmbed
    layouts = {"google hybrid": ("conv_root/kernel", from_google_hybrid)}


PAPER = Paper(
    name="R50+ViT",
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    authors="Dosovitskiy et al.",
    year=2020,
    arxiv="2010.11929",
    lesson="14",
    models=(Hybrid,),
    configs={"r50_vit_b_16": Published(Hybrid, Config.of("B/16"))},
)
