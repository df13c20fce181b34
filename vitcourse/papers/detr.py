"""DETR, faithful to the published model: queries find the objects, and a matching tells who found.

End-to-End Object Detection with Transformers, Carion et al. 2020,
https://arxiv.org/abs/2005.12872

The question: a detector guesses at thousands of places and throws away what was found twice. Can a
network say the objects of an image once each? The change has two parts:

    queries    learned vectors, each of which gives one box and one class, or "no object"; they look
               at each other and at the image, so that each can find what the others have not
    matching   objects have no order. For each image, the loss is that of the cheapest way to give
               each object a query of its own; all other queries must say "no object"

Places are told to the queries and keys of every attention, never to its values. The statistics of
the ResNet's batch norms never change; the authors train the stem and first stage of the ResNet not
at all, which is up to the optimizer here. All images of a batch have one size, so the mask that
hides the border of smaller ones is left out.

Shapes as in vit.py, and Q queries, n objects in an image. Boxes are (centre x, centre y, width,
height) in parts of the image, from 0 to 1. The truth of a batch is a list: for each image its
labels, int64 (n,), and boxes, (n, 4).
"""

import math
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import (
    FrozenBatchNorm2d,
    box_convert,
    generalized_box_iou,
    generalized_box_iou_loss,
)

from vitcourse.papers import Paper, Published
from vitcourse.vit import Attention, Mlp

# Backbones: `features(images)` are maps from fine to coarse, `widths` their numbers of channels ---


class ResNetMaps(ResNet):
    """The maps of a ResNet with `blocks` in each stage, from H/4 x W/4 to H/32 x W/32.

    `width` is that of the 3x3 convolutions of the first stage.
    """

    def __init__(self, blocks, width=64):
        norm = FrozenBatchNorm2d
        super().__init__(Bottleneck, blocks, width_per_group=width, norm_layer=norm)
        self.widths = [256 * 2**i for i in range(4)]
        del self.fc

    def features(self, images):
        """Images (B, 3, H, W) -> the map of every stage."""
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(images))))]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps[1:]


class ConvMaps(nn.Module):
    """For small images: stages of two convolutions, of `widths` channels; each halves the map."""

    def __init__(self, widths):
        super().__init__()
        self.widths, self.stages, before = list(widths), nn.ModuleList(), 3
        for width in widths:
            layers = []
            for stride in (2, 1):
                conv = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            self.stages.append(nn.Sequential(*layers))

    def features(self, images):
        """Images (B, 3, H, W) -> maps (B, widths[0], H/2, W/2), (B, widths[1], H/4, W/4), ..."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


# The transformer --------------------------------------------------------------------------------


def waves(x, grid, start=1.0):
    """Fixed waves that tell the places of a grid: (N, D) for x (B, N, D).

    Half of the numbers belong to the row, half to the column: sin and cos, in turns, of F = D/4
    frequencies. Rows and columns are counted from `start` and scaled so that the last is 2 pi.
    """
    D = x.shape[-1]
    frequency = 10000.0 ** -(torch.arange(0, D, 4, dtype=x.dtype, device=x.device) / D)  # (F,)

    def along(side):
        place = torch.arange(side, dtype=x.dtype, device=x.device) + start
        angle = place[:, None] / (side + 1e-6) * (2 * math.pi) * frequency  # (side, F)
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (side, 2F)

    h, w = grid
    rows = along(h)[:, None].expand(-1, w, -1)  # (h, w, 2F)
    columns = along(w).expand(h, -1, -1)  # (h, w, 2F)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (N, 4F)


class Look(Attention):
    """Attention that is given its queries (B, Q, D), keys and values (B, T, D): -> (B, Q, D)."""

    def forward(self, queries, keys, values):
        thirds = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        layers = zip((queries, keys, values), *thirds, strict=True)
        q, k, v = (F.linear(*x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in layers)
        x = self.attend(q, k, v)  # (B, K, Q, d)
        x = x.transpose(1, 2).flatten(2)  # (B, Q, D)
        return self.drop(self.proj(x))  # (B, Q, D)


class ReluMlp(Mlp):
    """The MLP with ReLU: x (B, T, D) -> x (B, T, D)."""

    def forward(self, x, grid=None):
        x = self.drop(F.relu(self.fc1(x)))  # (B, T, M)
        return self.drop(self.fc2(x))  # (B, T, D)


class EncoderLayer(nn.Module):
    """Places look at each other; each branch is added, then normalised: x (B, N, D), places."""

    def __init__(self, cfg):
        super().__init__()
        self.attn = Look(cfg.dim, cfg.heads, cfg.drop, cfg.drop)
        self.mlp = ReluMlp(cfg.dim, cfg.hidden, cfg.drop)
        self.norm1, self.norm2 = nn.LayerNorm(cfg.dim), nn.LayerNorm(cfg.dim)

    def forward(self, x, places):
        x = self.norm1(x + self.attn(x + places, x + places, x))  # (B, N, D)
        return self.norm2(x + self.mlp(x))  # (B, N, D)


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the image: x, queries (B, Q, D), seen (B, N, D) -> x."""

    def __init__(self, cfg):
        super().__init__()
        self.attn = Look(cfg.dim, cfg.heads, cfg.drop, cfg.drop)
        self.cross_attn = Look(cfg.dim, cfg.heads, cfg.drop, cfg.drop)
        self.mlp = ReluMlp(cfg.dim, cfg.hidden, cfg.drop)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(cfg.dim) for _ in range(3))

    def forward(self, x, queries, seen, places):
        x = self.norm1(x + self.attn(x + queries, x + queries, x))  # (B, Q, D)
        x = self.norm2(x + self.cross_attn(x + queries, seen + places, seen))  # (B, Q, D)
        return self.norm3(x + self.mlp(x))  # (B, Q, D)


class BoxHead(nn.Sequential):
    """Three layers that read a box: x (B, Q, D) -> four numbers before the sigmoid (B, Q, 4)."""

    def __init__(self, dim):
        first, second = nn.Linear(dim, dim), nn.Linear(dim, dim)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(dim, 4))


# The loss: objects are a set ----------------------------------------------------------------------


@torch.no_grad()
def match(class_cost, boxes, truth, assign=linear_sum_assignment):
    """Who answers for which object: for each image, two int64 (n,), of queries and of objects.

    class_cost (B, Q, classes) is what it costs to hold a query's answer for an object of a class;
    boxes (B, Q, 4). A wrong box costs 5 times its L1 distance, and -2 times its GIoU. `assign`
    chooses in a matrix of costs (Q, n); by default, it is the choice of the least sum.
    """
    labels, wanted = (torch.cat(part) for part in zip(*truth, strict=True))
    found = boxes.flatten(0, 1)  # (answers, 4)
    cost = class_cost.flatten(0, 1)[:, labels]  # (answers, objects), of all images
    cost = cost + 5 * torch.cdist(found, wanted, p=1)  # (answers, objects)
    cost = cost - 2 * generalized_box_iou(corners(found), corners(wanted))  # (answers, objects)
    # a loss that is no number is noticed by whoever trains, not here
    cost = cost.unflatten(0, boxes.shape[:2]).nan_to_num(1e9).cpu()  # (B, Q, objects)
    parts = cost.split([len(labels) for labels, _ in truth], dim=-1)
    pairs = [assign(part[i]) for i, part in enumerate(parts)]
    return [tuple(torch.as_tensor(side, device=boxes.device) for side in pair) for pair in pairs]


def corners(boxes):
    """Boxes (centre x, centre y, width, height) as (x1, y1, x2, y2): (..., 4)."""
    return box_convert(boxes, "cxcywh", "xyxy")


def chosen(pairs):
    """The matched queries of a batch, to be used as an index: image and query, int64 (objects,)."""
    image = [torch.full_like(query, i) for i, (query, _) in enumerate(pairs)]
    return torch.cat(image), torch.cat([query for query, _ in pairs])


def matched(truth, pairs):
    """The labels (objects,) and boxes (objects, 4) of a batch, in the order of `chosen`."""
    sides = zip(truth, pairs, strict=True)
    labels, boxes = zip(*((k[object], b[object]) for (k, b), (_, object) in sides), strict=True)
    return torch.cat(labels), torch.cat(boxes)


def box_loss(boxes, truth, pairs):
    """5 times the L1 distance of matched boxes, plus 2 times 1 - GIoU: the mean of all pairs."""
    found, (_, wanted) = boxes[chosen(pairs)], matched(truth, pairs)
    distance = F.l1_loss(found, wanted, reduction="sum")
    apart = generalized_box_iou_loss(corners(found), corners(wanted), reduction="sum")
    return (5 * distance + 2 * apart) / max(len(wanted), 1)


def class_cost(logits):
    """What it costs to hold an answer for a class: less the probability, not its logarithm."""
    return -logits.softmax(dim=-1)


def set_loss(logits, boxes, truth, assign=linear_sum_assignment, no_object=0.1):
    """The loss of a set of answers: logits (B, Q, classes + 1), boxes (B, Q, 4) -> a scalar.

    It is the cross-entropy of all queries, in which "no object", the last class, counts `no_object`
    times, and the `box_loss` of those that are matched with an object.
    """
    pairs = match(class_cost(logits), boxes, truth, assign)
    classes = logits.shape[-1] - 1
    labels = torch.full(logits.shape[:2], classes, device=logits.device)
    labels[chosen(pairs)] = matched(truth, pairs)[0]
    weight = torch.ones(classes + 1, dtype=logits.dtype, device=logits.device)
    weight[-1] = no_object
    wrong = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight)
    return wrong + box_loss(boxes, truth, pairs)


# The model ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """The sizes of a DETR. `backbone` is what its class of a backbone is built from."""

    dim: int = 256
    heads: int = 8
    hidden: int = 2048
    encoder: int = 6
    decoder: int = 6
    queries: int = 100
    classes: int = 91
    drop: float = 0.1
    backbone: tuple = (3, 4, 6, 3)


def translate(rules):
    """A layout: all rules (pattern, replacement) are applied to each name, one after another."""

    def convert(state, model):
        ours = {}
        for name, tensor in fuse(state).items():
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            ours[name] = tensor
        return ours

    return convert


def fuse(state):
    """Stack the layers q_proj, k_proj and v_proj of an attention into one, qkv."""
    ours = {}
    for name, tensor in state.items():
        if ".q_proj." in name:
            three = [state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            name, tensor = name.replace(".q_proj.", ".qkv."), torch.cat(three)
        if not re.search(r"\.[kv]_proj\.", name):
            ours[name] = tensor
    return ours


# the authors' names, which are those of PyTorch's transformer
AUTHORS = [
    (r"^backbone\.0\.body\.", "backbone."),
    (r"^query_embed\.weight$", "position_queries"),
    (r"^transformer\.((?:en|de)coder)\.layers\.", r"\1."),
    (r"\.self_attn\.", ".attn."),
    (r"\.in_proj_", ".qkv."),
    (r"\.out_proj\.", ".proj."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
]
from_authors = translate(
    AUTHORS
    + [
        (r"\.multihead_attn\.", ".cross_attn."),
        (r"^transformer\.decoder\.norm\.", "norm."),
        (r"^class_embed\.", "class_head."),
        (r"^bbox_embed\.layers\.([012])\.", lambda m: f"box_head.{2 * int(m[1])}."),
    ]
)


# the names of transformers' layers, in release 4, which are in the files, and in release 5
TRANSFORMERS = [
    (r"^model\.backbone\.(conv_encoder\.)?model\.", "backbone."),
    (r"^model\.query_position_embeddings\.weight$", "position_queries"),
    (r"^model\.((?:en|de)coder)\.layers\.", r"\1."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"^(encoder\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.self_attn\.", ".attn."),
    (r"\.(o|out)_proj\.", ".proj."),
    (r"^((?:en|de)coder\.\d+)\.fc([12])\.", r"\1.mlp.fc\2."),
]
from_transformers = translate(
    TRANSFORMERS
    + [
        (r"^model\.input_projection\.", "input_proj."),
        (r"^model\.decoder\.layernorm\.", "norm."),
        (r"^class_labels_classifier\.", "class_head."),
        (r"^bbox_predictor\.layers\.([012])\.", lambda m: f"box_head.{2 * int(m[1])}."),
    ]
)


def begin(model):
    """Start values of the layers inside Look and ReluMlp: Xavier's; what looks has zero biases."""
    for module in model.modules():
        if isinstance(module, (Look, ReluMlp)):
            for layer in module.children():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    if isinstance(module, Look):
                        nn.init.zeros_(layer.bias)


class DETR(nn.Module):
    """Images (B, 3, H, W) -> logits (B, Q, classes + 1) and boxes (B, Q, 4), one row a query.

    `Backbone` is a class whose `features(images)` are maps; the last one is read.
    """

    Backbone = ResNetMaps
    class_cost, set_loss = staticmethod(class_cost), staticmethod(set_loss)
    layouts = {
        "authors": ("query_embed.weight", from_authors),
        "transformers": ("class_labels_classifier.weight", from_transformers),
    }

    def __init__(self, cfg):
        super().__init__()
        if cfg.dim % 4:
            raise ValueError(f"dim is {cfg.dim}: the waves of places need a multiple of 4")
        self.cfg = cfg
        self.encoder = nn.ModuleList(EncoderLayer(cfg) for _ in range(cfg.encoder))
        self.decoder = nn.ModuleList(DecoderLayer(cfg) for _ in range(cfg.decoder))
        self.norm = nn.LayerNorm(cfg.dim)
        begin(self)
        self.backbone = self.Backbone(cfg.backbone)
        self.input_proj = nn.Conv2d(self.backbone.widths[-1], cfg.dim, kernel_size=1)
        self.position_queries = nn.Parameter(torch.randn(cfg.queries, cfg.dim))
        self.class_head = nn.Linear(cfg.dim, cfg.classes + 1)
        self.box_head = BoxHead(cfg.dim)

    def encode(self, images):
        """Images (B, 3, H, W) -> what places have seen (B, N, D), waves (N, D), and the grid."""
        map = self.input_proj(self.backbone.features(images)[-1])  # (B, D, h, w)
        grid = tuple(map.shape[2:])
        x = map.flatten(2).transpose(1, 2)  # (B, N, D)
        places = waves(x, grid)  # (N, D)
        for layer in self.encoder:
            x = layer(x, places)  # (B, N, D)
        return x, places, grid

    def decode(self, images):
        """What the queries know after each layer of the decoder: a list of (B, Q, D)."""
        seen, places, _ = self.encode(images)
        queries = self.position_queries.expand(len(images), -1, -1)  # (B, Q, D)
        x, known = torch.zeros_like(queries), []
        for layer in self.decoder:
            x = layer(x, queries, seen, places)  # (B, Q, D)
            known.append(self.norm(x))
        return known

    def read(self, x):
        """What queries know, x (B, Q, D) -> logits (B, Q, classes + 1) and boxes (B, Q, 4)."""
        return self.class_head(x), self.box_head(x).sigmoid()

    def predictions(self, images):
        """The answers after each layer of the decoder, all of which are trained: a list."""
        return [self.read(x) for x in self.decode(images)]

    def forward(self, images):
        return self.read(self.decode(images)[-1])

    @staticmethod
    def probabilities(logits):
        """How likely each class of object is: (B, Q, classes + 1) -> (B, Q, classes)."""
        return logits.softmax(dim=-1)[..., :-1]


class SmallDETR(DETR):
    """A DETR for small images: a few convolutions in place of the ResNet."""

    Backbone = ConvMaps


SMALL = Sizes(
    dim=64,
    heads=4,
    hidden=128,
    encoder=1,
    decoder=2,
    queries=10,
    classes=8,
    drop=0.0,
    backbone=(32, 64),
)

PAPER = Paper(
    name="DETR",
    title="End-to-End Object Detection with Transformers",
    authors="Carion et al.",
    year=2020,
    arxiv="2005.12872",
    lesson="19",
    models=(DETR,),
    configs={"detr_r50": Published(DETR, Sizes(), "41M")},
)
