"""Deformable DETR, faithful to the published model without its second stage: look at few places.

Deformable DETR: Deformable Transformers for End-to-End Object Detection, Zhu et al. 2020,
https://arxiv.org/abs/2010.04159

The question: DETR learns slowly and cannot afford fine maps, because each place looks at all
others, at first at all alike. Must it? The change: a query looks at a handful of places around a
point, in maps of several scales. It says where they lie, as offsets from the point, and how much
each counts; there are no keys. Between its pixels, a map is read by straight lines.

In the encoder, the point of a place is the place itself. In the decoder each query learns its point
and says its box from there; with `refine`, each layer corrects the box of the layer before, and
looks around it. Classes are judged one by one, with a sigmoid and the focal loss: no class stands
for "no object".

The second stage, in which the encoder proposes the points, is left out. So is, as in detr.py, the
mask for images of several sizes.

Shapes as in detr.py, and S scales, P points in each: a query reads A = S*P places. N counts the
places of all maps.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from vitcourse.papers import Paper, Published, detr
from vitcourse.papers.detr import (
    BoxHead,
    ConvMaps,
    Look,
    ReluMlp,
    ResNetMaps,
    begin,
    box_loss,
    chosen,
    match,
    matched,
    translate,
    waves,
)
from vitcourse.vit import Attention


class DeformableAttention(Attention):
    """Queries read maps at a few places: queries (B, Q, D), points, seen (B, N, D) -> (B, Q, D).

    points (B, Q, 2), x and y from 0 to 1, or boxes (B, Q, 4), which also say how far to look.
    `grids` are the (h, w) of the maps, one behind the other in `seen`. What is recorded are the
    weights of the places that are read: (B, K, Q, A).
    """

    def __init__(self, dim, heads, scales, points, drop=0.0):
        self.scales, self.points = scales, points
        super().__init__(dim, heads, drop)

    def build(self, dim):
        each = self.heads * self.scales * self.points
        self.offset, self.weight = nn.Linear(dim, 2 * each), nn.Linear(dim, each)
        self.value, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.start()

    @torch.no_grad()
    def start(self):
        """Begin with equal weights on points that lie on rays, one direction for each head."""
        for layer in (self.offset, self.weight):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (K, 2)
        ray = ray / ray.abs().amax(dim=-1, keepdim=True)  # (K, 2)
        steps = torch.arange(1, self.points + 1)
        rays = ray[:, None, None] * steps[:, None]  # (K, 1, P, 2)
        self.offset.bias.copy_(rays.expand(-1, self.scales, -1, -1).flatten())
        for layer in (self.value, self.proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def where(self, queries, points, grids):
        """The places that queries read, x and y in parts of the image: (B, Q, K, S, P, 2)."""
        offset = self.offset(queries).unflatten(-1, (self.heads, self.scales, self.points, 2))
        centre = points[..., None, None, None, :2]
        if points.shape[-1] == 4:
            return centre + offset / self.points * points[..., None, None, None, 2:] / 2
        sides = torch.tensor(grids).to(offset).flip(-1)  # (S, 2), width and height
        return centre + offset / sides[:, None]

    def how_much(self, queries):
        """How much each of these places counts: (B, K, Q, A), rows that sum to one."""
        weights = self.weight(queries).unflatten(-1, (self.heads, -1))  # (B, Q, K, A)
        return weights.softmax(dim=-1).transpose(1, 2)

    def forward(self, queries, points, seen, grids):
        weights = self.how_much(queries)  # (B, K, Q, A)
        if self.recorder is not None:
            self.recorder(weights)
        places = 2 * self.where(queries, points, grids) - 1  # (B, Q, K, S, P, 2), from -1 to 1
        places = places.transpose(1, 2).flatten(0, 1)  # (B*K, Q, S, P, 2)
        values = self.value(seen).unflatten(-1, (self.heads, -1))  # (B, N, K, d)
        values = values.permute(0, 2, 3, 1).flatten(0, 1)  # (B*K, d, N)
        maps = values.split([h * w for h, w in grids], dim=-1)
        read = [
            F.grid_sample(map.unflatten(-1, grid), places[:, :, i], align_corners=False)
            for i, (map, grid) in enumerate(zip(maps, grids, strict=True))
        ]
        read = torch.cat(read, dim=-1)  # (B*K, d, Q, A)
        x = (read * weights.flatten(0, 1)[:, None]).sum(dim=-1)  # (B*K, d, Q)
        x = x.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2)  # (B, Q, D)
        return self.drop(self.proj(x))  # (B, Q, D)


class EncoderLayer(nn.Module):
    """Each place of the maps reads a few others: x (B, N, D), places, points (N, 2), grids."""

    def __init__(self, cfg):
        super().__init__()
        self.attn = DeformableAttention(cfg.dim, cfg.heads, cfg.scales, cfg.points, cfg.drop)
        self.mlp = ReluMlp(cfg.dim, cfg.hidden, cfg.drop)
        self.norm1, self.norm2 = nn.LayerNorm(cfg.dim), nn.LayerNorm(cfg.dim)

    def forward(self, x, places, points, grids):
        x = self.norm1(x + self.attn(x + places, points, x, grids))  # (B, N, D)
        return self.norm2(x + self.mlp(x))  # (B, N, D)


class DecoderLayer(nn.Module):
    """Queries look at each other, then at a few places of the maps: x, queries (B, Q, D) -> x."""

    def __init__(self, cfg):
        super().__init__()
        self.attn = Look(cfg.dim, cfg.heads, cfg.drop, cfg.drop)
        self.cross_attn = DeformableAttention(cfg.dim, cfg.heads, cfg.scales, cfg.points, cfg.drop)
        self.mlp = ReluMlp(cfg.dim, cfg.hidden, cfg.drop)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(cfg.dim) for _ in range(3))

    def forward(self, x, queries, points, seen, grids):
        x = self.norm1(x + self.attn(x + queries, x + queries, x))  # (B, Q, D)
        x = self.norm2(x + self.cross_attn(x + queries, points, seen, grids))  # (B, Q, D)
        return self.norm3(x + self.mlp(x))  # (B, Q, D)


def middles(grids, x):
    """The middle of each place of all maps, x and y from 0 to 1, in the type of x: (N, 2)."""

    def along(side):
        return (torch.arange(side, dtype=x.dtype, device=x.device) + 0.5) / side

    maps = [torch.cartesian_prod(along(h), along(w)).flip(-1) for h, w in grids]
    return torch.cat(maps)  # (N, 2)


# The loss -----------------------------------------------------------------------------------------

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss


def focal_cost(logits, class_weight=2.0):
    """What it costs to hold an answer for each class: (B, Q, classes).

    The focal loss if it were right to say the class, less that if it were wrong.
    """
    p = logits.sigmoid()
    right = ALPHA * (1 - p) ** GAMMA * -(p + 1e-8).log()
    wrong = (1 - ALPHA) * p**GAMMA * -(1 - p + 1e-8).log()
    return class_weight * (right - wrong)


def focal_set_loss(logits, boxes, truth, assign=linear_sum_assignment, class_weight=2.0):
    """The loss of a set of answers: logits (B, Q, classes), boxes (B, Q, 4) -> a scalar.

    Each class of each query is right or wrong by itself; like the boxes', this loss is divided by
    the number of objects. It counts `class_weight` times, in the matching as well.
    """
    pairs = match(focal_cost(logits, class_weight), boxes, truth, assign)
    image, query = chosen(pairs)
    labels = matched(truth, pairs)[0]
    wanted = torch.zeros_like(logits)
    wanted[image, query, labels] = 1.0
    wrong = sigmoid_focal_loss(logits, wanted, ALPHA, GAMMA, reduction="sum")
    return class_weight * wrong / max(len(labels), 1) + box_loss(boxes, truth, pairs)


# The model ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """The sizes of a Deformable DETR. The coarsest `maps` of the backbone are read.

    Where `scales` is more than that, each further map is half as large as the one before. `refine`:
    each layer of the decoder has heads of its own, and corrects the box of the layer before.
    `backbone` is what the class of the backbone is built from.
    """

    dim: int = 256
    heads: int = 8
    hidden: int = 1024
    encoder: int = 6
    decoder: int = 6
    queries: int = 300
    classes: int = 91
    scales: int = 4
    maps: int = 3
    points: int = 4
    refine: bool = False
    drop: float = 0.1
    backbone: tuple = (3, 4, 6, 3)


def inverse_sigmoid(x):
    """The number whose sigmoid is x, with x kept away from 0 and 1."""
    return x.clamp(min=1e-5).log() - (1 - x).clamp(min=1e-5).log()


class ToWidth(nn.Sequential):
    """Give a map D channels, and halve it where `stride` is 2: (B, C, h, w) -> (B, D, h', w')."""

    def __init__(self, channels, dim, stride=1):
        size = dict(kernel_size=1) if stride == 1 else dict(kernel_size=3, padding=1)
        super().__init__(nn.Conv2d(channels, dim, stride=stride, **size), nn.GroupNorm(32, dim))
        nn.init.xavier_uniform_(self[0].weight)
        nn.init.zeros_(self[0].bias)


HEADS_AND_POINTS = [
    (r"^(?:model|transformer)\.decoder\.(class|bbox)_embed\.", r"\1_embed."),
    (r"\.sampling_offsets\.", ".offset."),
    (r"\.attention_weights\.", ".weight."),
    (r"\.value_proj\.", ".value."),
    (r"\.output_proj\.", ".proj."),
    (r"^class_embed\.", "class_head."),
    (r"^bbox_embed\.(\d+)\.layers\.([012])\.", lambda m: f"box_head.{m[1]}.{2 * int(m[2])}."),
]
AUTHORS = [
    *detr.AUTHORS,
    (r"^transformer\.level_embed$", "position_scales"),
    (r"^transformer\.reference_points\.", "point."),
    # in their decoder, the first norm follows the cross-attention
    (r"^(decoder\.\d+)\.norm1\.", r"\1.norm of cross_attn."),
    (r"^(decoder\.\d+)\.norm2\.", r"\1.norm1."),
    (r"\.norm of cross_attn\.", ".norm2."),
    *HEADS_AND_POINTS,
]
TRANSFORMERS = [
    *detr.TRANSFORMERS,
    (r"^model\.level_embed$", "position_scales"),
    (r"^model\.reference_points\.", "point."),
    (r"^model\.input_proj\.", "input_proj."),
    *HEADS_AND_POINTS,
]


def reader(rules):
    """A layout by these rules, without the copies that libraries keep of heads that are shared."""

    def convert(state, model):
        ours, wanted = translate(rules)(state, model), model.state_dict()
        return {n: t for n, t in ours.items() if n in wanted or "_head." not in n}

    return convert


class DeformableDETR(nn.Module):
    """Images (B, 3, H, W) -> logits (B, Q, classes) and boxes (B, Q, 4), one row a query.

    `Backbone` is a class whose `features(images)` are maps, from fine to coarse.
    """

    Backbone = ResNetMaps
    class_cost, set_loss = staticmethod(focal_cost), staticmethod(focal_set_loss)
    layouts = {
        "authors": ("transformer.level_embed", reader(AUTHORS)),
        "transformers": ("model.level_embed", reader(TRANSFORMERS)),
    }

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.encoder = nn.ModuleList(EncoderLayer(cfg) for _ in range(cfg.encoder))
        self.decoder = nn.ModuleList(DecoderLayer(cfg) for _ in range(cfg.decoder))
        self.point = nn.Linear(cfg.dim, 2)
        begin(self)
        nn.init.xavier_uniform_(self.point.weight)
        nn.init.zeros_(self.point.bias)
        self.position_queries = nn.Parameter(torch.randn(cfg.queries, 2 * cfg.dim))
        self.position_scales = nn.Parameter(torch.randn(cfg.scales, cfg.dim))
        self.backbone = self.Backbone(cfg.backbone)
        widths = self.backbone.widths[-cfg.maps :]
        more = [widths[-1], *[cfg.dim] * cfg.scales][: cfg.scales - cfg.maps]
        self.input_proj = nn.ModuleList(ToWidth(width, cfg.dim) for width in widths)
        self.input_proj.extend(ToWidth(width, cfg.dim, stride=2) for width in more)
        heads = range(cfg.decoder if cfg.refine else 1)
        self.class_head = nn.ModuleList(nn.Linear(cfg.dim, cfg.classes) for _ in heads)
        self.box_head = nn.ModuleList(BoxHead(cfg.dim) for _ in heads)
        for classes, box in zip(self.class_head, self.box_head, strict=True):
            nn.init.constant_(classes.bias, -math.log(99))  # each class is 1 % likely
            nn.init.zeros_(box[-1].weight)  # each box lies at its point
            nn.init.zeros_(box[-1].bias)
        nn.init.constant_(self.box_head[0][-1].bias[2:], -2.0)  # with sides of 12 % of the image

    def maps(self, images):
        """Images (B, 3, H, W) -> one map (B, D, h, w) for each scale, from fine to coarse."""
        found = self.backbone.features(images)[-self.cfg.maps :]
        maps = [proj(map) for proj, map in zip(self.input_proj, found, strict=False)]
        for proj in self.input_proj[len(found) :]:
            last = maps[-1] if len(maps) > len(found) else found[-1]
            maps.append(proj(last))
        return maps

    def encode(self, images):
        """Images (B, 3, H, W) -> what the places of all maps have seen (B, N, D), and the grids."""
        maps = self.maps(images)
        grids = [tuple(map.shape[2:]) for map in maps]
        tokens = [map.flatten(2).transpose(1, 2) for map in maps]
        scales = zip(tokens, grids, self.position_scales, strict=True)
        told = [waves(x, grid, 0.5) + scale for x, grid, scale in scales]
        x, places = torch.cat(tokens, dim=1), torch.cat(told)
        points = middles(grids, x)[None]  # (1, N, 2), the same for all images
        for layer in self.encoder:
            x = layer(x, places, points, grids)  # (B, N, D)
        return x, grids

    def predictions(self, images):
        """The answers after each layer of the decoder, all of which are trained: a list."""
        seen, grids = self.encode(images)
        queries, x = self.position_queries.expand(len(images), -1, -1).chunk(2, -1)  # (B, Q, D)
        points = self.point(queries).sigmoid()  # (B, Q, 2)
        found = []
        for i, layer in enumerate(self.decoder):
            x = layer(x, queries, points, seen, grids)  # (B, Q, D)
            head = i if self.cfg.refine else 0
            near = F.pad(inverse_sigmoid(points), (0, 4 - points.shape[-1]))  # (B, Q, 4)
            boxes = (near + self.box_head[head](x)).sigmoid()  # (B, Q, 4)
            found.append((self.class_head[head](x), boxes))
            if self.cfg.refine:
                points = boxes.detach()  # (B, Q, 4)
        return found

    def forward(self, images):
        return self.predictions(images)[-1]

    @staticmethod
    def probabilities(logits):
        """How likely each class of object is: (B, Q, classes) -> (B, Q, classes)."""
        return logits.sigmoid()


@torch.no_grad()
def sampling_points(model, images):
    """Where the queries look, in each layer of the decoder: a list of (places, weights).

    places (B, Q, K, S, P, 2) are x and y in parts of the image, weights (B, K, Q, A).
    """
    found = []

    def keep(layer, given):
        queries, points, _, grids = given
        found.append((layer.where(queries, points, grids), layer.how_much(queries)))

    hooks = [layer.cross_attn.register_forward_pre_hook(keep) for layer in model.decoder]
    try:
        model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class SmallDeformableDETR(DeformableDETR):
    """A Deformable DETR for small images: a few convolutions in place of the ResNet."""

    Backbone = ConvMaps


SMALL = Sizes(
    dim=64,
    heads=4,
    hidden=64,
    encoder=1,
    decoder=2,
    queries=10,
    classes=8,
    scales=2,
    maps=1,
    drop=0.0,
    backbone=(32, 64),
)

PAPER = Paper(
    name="Deformable DETR",
    title="Deformable DETR: Deformable Transformers for End-to-End Object Detection",
    authors="Zhu et al.",
    year=2020,
    arxiv="2010.04159",
    lesson="19",
    models=(DeformableDETR,),
    configs={
        "deformable_detr_r50": Published(DeformableDETR, Sizes(), "40M"),
        "deformable_detr_r50_single_scale": Published(
            DeformableDETR, Sizes(scales=1, maps=1), "34M"
        ),
    },
)
