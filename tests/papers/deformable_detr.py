"""Deformable DETR: beside transformers, pixel by pixel, and where it must be plain attention."""

import math
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss
from transformers.models.deformable_detr import modeling_deformable_detr as theirs_file

from tests.papers.detr import BLOCKS, NARROW, a_case, as_resnet, config, joined, layers
from tests.proofs import equal, images, randomise, same_as
from vitcourse import weights
from vitcourse.papers import deformable_detr, detr
from vitcourse.papers.deformable_detr import (
    DeformableAttention,
    DeformableDETR,
    Sizes,
    SmallDeformableDETR,
    focal_set_loss,
    inverse_sigmoid,
    middles,
    sampling_points,
)
from vitcourse.papers.detr import ResNetMaps

SIZES = Sizes(
    dim=64,
    heads=4,
    hidden=40,
    encoder=1,
    decoder=2,
    queries=7,
    classes=5,
    scales=3,
    maps=2,
    points=5,
    drop=0.0,
    backbone=(10, 14),
)
MODELS = {"small": lambda: (SmallDeformableDETR(SIZES), torch.randn(2, 3, 32, 48))}
OTHER_SIZES = {"small": (40, 28)}
COUNTS = {
    "deformable_detr_r50": 40_069_665,
    "deformable_detr_r50_single_scale": 34_066_593,
}
GRIDS = [(6, 9), (3, 5), (2, 3)]
PLACES = sum(h * w for h, w in GRIDS)


class Joined(DeformableDETR):
    """A model with a narrow ResNet, that gives logits and boxes as one tensor."""

    Backbone = staticmethod(partial(ResNetMaps, width=NARROW))

    def forward(self, images):
        return joined(super().forward(images))


def theirs_of(sizes):
    """The model of transformers with our ResNet."""
    options = config(d_model=sizes.dim, num_queries=sizes.queries, num_labels=sizes.classes)
    options |= {f"{part}_n_points": sizes.points for part in ("encoder", "decoder")}
    options |= {f"{part}_attention_heads": sizes.heads for part in ("encoder", "decoder")}
    options |= dict(num_feature_levels=sizes.scales, with_box_refine=sizes.refine)
    model = transformers.DeformableDetrForObjectDetection(
        transformers.DeformableDetrConfig(**options)
    )
    widths = [256 * 2**i for i in range(4)][-sizes.maps :]
    for proj, width in zip(model.model.input_proj, widths, strict=False):
        proj[0] = nn.Conv2d(width, sizes.dim, 1)
    if sizes.scales > sizes.maps:
        proj = model.model.input_proj[sizes.maps]
        proj[0] = nn.Conv2d(widths[-1], sizes.dim, 3, stride=2, padding=1)
    if sizes.refine:  # transformers has one class head for all layers then, too; the authors do not
        heads = (nn.Linear(sizes.dim, sizes.classes) for _ in range(sizes.decoder))
        model.class_embed = nn.ModuleList(heads)
    return as_resnet(model, tuple(range(5 - sizes.maps, 5)))


def same_model(**changes):
    """Assert that a model of our sizes, but for changes, is that of transformers."""
    sizes = replace(SIZES, backbone=BLOCKS, **changes)
    theirs, ours = theirs_of(sizes), Joined(sizes)
    inside = theirs.model
    stages = layers(ours), [*inside.encoder.layers, *inside.decoder.layers]

    def run(given):
        found = theirs(given)
        return joined((found.logits, found.pred_boxes))

    same_as(theirs, ours, images(2, 3, 64, 96), stages, run=run, dtypes=(torch.float64,))


def same_as_transformers():
    """With four scales of three maps."""
    same_model(scales=4, maps=3)


def same_as_transformers_with_one_scale():
    same_model(scales=1, maps=1)


def same_as_transformers_with_refinement():
    same_model(scales=3, maps=2, refine=True)


def attention_of(scales=3, points=5, heads=4):
    """Deformable attention with random weights, 32 wide, in float64."""
    return randomise(DeformableAttention(32, heads, scales, points)).double()


def a_scene(sides=2):
    """Queries (2, 7, 32), points or boxes (2, 7, 2 or 4), and maps of three scales (2, N, 32)."""
    points = images(2, 7, sides, seed=1).sigmoid()
    return images(2, 7, 32), points, images(2, PLACES, 32, seed=2)


class OfOurs(nn.Module):
    """Our attention around points, looking at maps: queries -> queries."""

    layouts = {
        "transformers": (
            "attn.sampling_offsets.weight",
            detr.translate(deformable_detr.HEADS_AND_POINTS),
        )
    }

    def __init__(self, points, seen):
        super().__init__()
        self.points, self.seen = points, seen
        self.attn = DeformableAttention(32, 4, 3, 5)

    def forward(self, queries):
        return self.attn(queries, self.points.to(queries), self.seen.to(queries), GRIDS)


class AsTransformers(nn.Module):
    """Their attention around points, looking at maps: queries -> queries."""

    def __init__(self, points, seen):
        super().__init__()
        self.points, self.seen = points[:, :, None].expand(-1, -1, 3, -1), seen
        options = transformers.DeformableDetrConfig(d_model=32, num_feature_levels=3)
        self.attn = theirs_file.DeformableDetrMultiscaleDeformableAttention(options, 4, 5)

    def forward(self, queries):
        return self.attn(
            hidden_states=queries,
            encoder_hidden_states=self.seen.to(queries),
            reference_points=self.points.to(queries),
            spatial_shapes=torch.tensor(GRIDS),
            spatial_shapes_list=GRIDS,
        )[0]


def same_as_transformers_attention():
    """Around points and around boxes, in float32 and float64."""
    for sides in (2, 4):
        queries, points, seen = a_scene(sides)
        same_as(AsTransformers(points, seen), OfOurs(points, seen), queries)


def pixel(map, y, x):
    """A map (d, h, w) at one of its pixels, zeros beside it."""
    inside = 0 <= y < map.shape[1] and 0 <= x < map.shape[2]
    return map[:, y, x] if inside else torch.zeros_like(map[:, 0, 0])


def same_as_reading_pixel_by_pixel():
    """Four pixels around a place, each by how near it is; pixels have their value in the middle."""
    layer, (queries, points, seen) = attention_of(), a_scene()
    weights, offsets = layer.weight(queries), layer.offset(queries)
    values, found = layer.value(seen), torch.zeros(2, 7, 32).double()
    for b in range(2):
        for q in range(7):
            for k in range(4):
                mine = weights[b, q].view(4, 15)[k].softmax(0).view(3, 5)
                start = 0
                for s, (h, w) in enumerate(GRIDS):
                    part = values[b, start : start + h * w, 8 * k : 8 * k + 8]
                    map, start = part.T.reshape(8, h, w), start + h * w
                    for p in range(5):
                        dx, dy = offsets[b, q].view(4, 3, 5, 2)[k, s, p]
                        x, y = points[b, q, 0] * w + dx - 0.5, points[b, q, 1] * h + dy - 0.5
                        left, top = math.floor(x.item()), math.floor(y.item())
                        for j in (top, top + 1):
                            for i in (left, left + 1):
                                near = (1 - (x - i).abs()) * (1 - (y - j).abs())
                                read = mine[s, p] * near * pixel(map, j, i)
                                found[b, q, 8 * k : 8 * k + 8] += read
    equal(layer(queries, points, seen, GRIDS), layer.proj(found))


def a_point_on_a_pixel_reads_it():
    """Without offsets, the encoder's places read themselves: attention leaves two linear layers."""
    layer, seen = attention_of(scales=1), images(2, 54, 32)
    with torch.no_grad():
        layer.offset.weight.zero_(), layer.offset.bias.zero_()
    points = middles(GRIDS[:1], seen)
    found = layer(images(2, 54, 32, seed=1), points[None], seen, GRIDS[:1])
    equal(found, layer.proj(layer.value(seen)))


def what_is_read_moves_with_the_point():
    """A map and a point that move by two columns and one row give the same, inside the map."""
    layer, map = attention_of(scales=1), images(2, 32, 8, 11)
    with torch.no_grad():
        layer.offset.weight.mul_(0.1), layer.offset.bias.mul_(0.1)
    queries, points = images(2, 7, 32), 0.4 + 0.1 * images(2, 7, 2).tanh()
    step = torch.tensor([2 / 11, 1 / 8], dtype=points.dtype)
    moved = map.roll((1, 2), (2, 3))
    one, two = (
        layer(queries, p, m.flatten(2).mT, [(8, 11)])
        for p, m in ((points, map), (points + step, moved))
    )
    equal(one, two)
    assert (layer(queries, points, moved.flatten(2).mT, [(8, 11)]) - one).abs().max() > 0.01


def few_places_are_read():
    """Four pixels for each place at most; with plain attention, every pixel reaches each query."""
    layer, (queries, points, seen) = attention_of(points=1, heads=2), a_scene()
    seen.requires_grad_()
    layer(queries, points, seen, GRIDS)[0, 0].sum().backward()
    reached = (seen.grad[0].abs().amax(-1) > 0).sum()
    assert 0 < reached <= 4 * 2 * 3 < PLACES


def a_box_is_looked_around():
    """With a box, places move and spread with its sides; outside of them nothing changes."""
    layer, (queries, boxes, _) = attention_of(), a_scene(4)
    wide = torch.cat([boxes[..., :2], 2 * boxes[..., 2:]], dim=-1)
    centre = boxes[:, :, None, None, None, :2]
    one, two = (layer.where(queries, around, GRIDS) - centre for around in (boxes, wide))
    equal(two, 2 * one)
    edge = boxes[:, :, None, None, None, 2:] / 2  # an offset of P pixels is the edge of the box
    offsets = layer.offset(queries).view(2, 7, 4, 3, 5, 2)
    equal(one, offsets / 5 * edge)


def it_begins_on_rays():
    """Each head in a direction of its own, the points 1 to P pixels away, all weights equal."""
    layer = DeformableAttention(32, 4, 3, 5).double()
    queries, points, _ = a_scene()
    size = torch.tensor([(w, h) for h, w in GRIDS]).double()
    away = (layer.where(queries, points, GRIDS) - points[:, :, None, None, None]) * size[:, None]
    rays = torch.tensor([(1, 0), (0, 1), (-1, 0), (0, -1)]).double()
    steps = torch.arange(1, 6).double()
    wanted = rays[:, None, None] * steps[:, None]
    equal(away, wanted.expand_as(away), tolerance=1e-6)
    equal(layer.how_much(queries), torch.full((2, 4, 7, 15), 1 / 15).double(), tolerance=1e-6)


def a_new_model_says_its_points():
    """Boxes lie at the learned points, 12 % wide and high, and each class is 1 % likely."""
    model = SmallDeformableDETR(SIZES).double().eval()
    for head in model.class_head:
        nn.init.zeros_(head.weight)
    logits, boxes = model(images(2, 3, 32, 48))
    points = model.point(model.position_queries[:, : SIZES.dim]).sigmoid()
    equal(boxes[..., :2], points.expand(2, -1, -1))
    equal(boxes[..., 2:], torch.full((2, 7, 2), 1 / (1 + math.exp(2))).double(), tolerance=1e-6)
    equal(logits.sigmoid(), torch.full((2, 7, 5), 0.01).double(), tolerance=1e-6)


def the_loss_is_transformers():
    """Of the last layer and of the one before; theirs counts classes once, the authors' twice."""
    logits, boxes, truth = a_case(dtype=torch.float32)
    logits = logits[..., :4]
    before, earlier = logits.flip(1), (boxes * 0.9).flip(0)
    labels = [{"class_labels": k, "boxes": b} for k, b in truth]
    options = transformers.DeformableDetrConfig(**config(num_labels=4, auxiliary_loss=True))
    stacks = torch.stack([before, logits]), torch.stack([earlier, boxes])
    wanted, *_ = DeformableDetrForObjectDetectionLoss(
        logits, labels, "cpu", boxes, options, *stacks
    )
    answers = ((logits, boxes), (before, earlier))
    found = sum(focal_set_loss(*answer, truth, class_weight=1.0) for answer in answers)
    equal(found, wanted, tolerance=1e-5)


def what_is_certain_and_right_costs_little():
    """The focal loss of one object, by hand: what is wrong counts (1 - p) squared times."""
    logits, boxes, truth = a_case(queries=1, counts=(1,))
    logits, (label, box) = logits[..., :4], truth[0]
    p = logits[0, 0].sigmoid()
    each = -0.75 * p**2 * (1 - p).log()
    each[label] = (-0.25 * (1 - p) ** 2 * p.log())[label]
    same = focal_set_loss(logits, box[None], [(label, box)])
    equal(same, 2 * each.sum(), tolerance=1e-5)


def layers_correct_boxes():
    """Those of the layer before with refinement; without it, each begins at the point."""
    for refine in (True, False):
        model = randomise(SmallDeformableDETR(replace(SIZES, refine=refine))).double()
        given = images(2, 3, 32, 48)
        with torch.no_grad():
            last = model.box_head[-1][-1]
            (_, before), _ = model.predictions(given)
            last.weight.zero_(), last.bias.zero_()
            (_, first), (_, second) = model.predictions(given)
        points = model.point(model.position_queries[:, : SIZES.dim]).sigmoid()
        if refine:
            equal(first, before)
            equal(second, first, tolerance=1e-9)
        else:
            equal(second[..., :2], points.expand(2, -1, -1))
            equal(second[..., 2:], torch.full((2, 7, 2), 0.5).double())


def the_points_are_those_that_are_read():
    """What is drawn is what the layers of the decoder used, and their weights sum to one."""
    model = randomise(SmallDeformableDETR(SIZES)).double()
    given = images(2, 3, 32, 48)
    found = sampling_points(model, given)
    assert [places.shape for places, _ in found] == [(2, 7, 4, 3, 5, 2)] * 2
    seen, grids = model.encode(given)
    queries, x = model.position_queries.expand(2, -1, -1).chunk(2, -1)
    points = model.point(queries).sigmoid()
    for (places, much), layer in zip(found, model.decoder, strict=True):
        inner = layer.norm1(x + layer.attn(x + queries, x + queries, x)) + queries
        equal(places, layer.cross_attn.where(inner, points, grids))
        equal(much.sum(-1), torch.ones(2, 4, 7).double())
        x = layer(x, queries, points, seen, grids)
    equal(inverse_sigmoid(points).sigmoid(), points)


OF_THE_AUTHORS = {
    "backbone.": "backbone.0.body.",
    "input_proj.": "input_proj.",
    "position_queries": "query_embed.weight",
    "position_scales": "transformer.level_embed",
    "point.": "transformer.reference_points.",
    "encoder.0.attn.offset.": "transformer.encoder.layers.0.self_attn.sampling_offsets.",
    "encoder.0.attn.weight.": "transformer.encoder.layers.0.self_attn.attention_weights.",
    "encoder.0.attn.value.": "transformer.encoder.layers.0.self_attn.value_proj.",
    "encoder.0.attn.proj.": "transformer.encoder.layers.0.self_attn.output_proj.",
    "encoder.0.norm1.": "transformer.encoder.layers.0.norm1.",
    "encoder.0.mlp.fc1.": "transformer.encoder.layers.0.linear1.",
    "encoder.0.mlp.fc2.": "transformer.encoder.layers.0.linear2.",
    "encoder.0.norm2.": "transformer.encoder.layers.0.norm2.",
    "decoder.0.attn.qkv.": "transformer.decoder.layers.0.self_attn.in_proj_",
    "decoder.0.attn.proj.": "transformer.decoder.layers.0.self_attn.out_proj.",
    "decoder.0.norm1.": "transformer.decoder.layers.0.norm2.",
    "decoder.0.cross_attn.offset.": "transformer.decoder.layers.0.cross_attn.sampling_offsets.",
    "decoder.0.cross_attn.weight.": "transformer.decoder.layers.0.cross_attn.attention_weights.",
    "decoder.0.cross_attn.value.": "transformer.decoder.layers.0.cross_attn.value_proj.",
    "decoder.0.cross_attn.proj.": "transformer.decoder.layers.0.cross_attn.output_proj.",
    "decoder.0.norm2.": "transformer.decoder.layers.0.norm1.",
    "decoder.0.mlp.fc1.": "transformer.decoder.layers.0.linear1.",
    "decoder.0.mlp.fc2.": "transformer.decoder.layers.0.linear2.",
    "decoder.0.norm3.": "transformer.decoder.layers.0.norm3.",
    "class_head.0.": "class_embed.0.",
    "box_head.0.0.": "bbox_embed.0.layers.0.",
    "box_head.0.2.": "bbox_embed.0.layers.1.",
    "box_head.0.4.": "bbox_embed.0.layers.2.",
}


def a_file_of_the_authors_is_read():
    """In their decoder the first norm follows the cross-attention. Shared heads are in it twice."""
    sizes = replace(SIZES, decoder=1)
    model, other = (randomise(SmallDeformableDETR(sizes), seed) for seed in (1, 2))
    state = {}
    for name, tensor in model.state_dict().items():
        (start,) = (start for start in OF_THE_AUTHORS if name.startswith(start))
        state[name.replace(start, OF_THE_AUTHORS[start])] = tensor
    state |= {n.replace("embed.0.", "embed.1."): t for n, t in state.items() if "embed.0." in n}
    weights.load(other, {"model": state})
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


PROOFS = [
    same_as_transformers,
    same_as_transformers_with_one_scale,
    same_as_transformers_with_refinement,
    same_as_transformers_attention,
    same_as_reading_pixel_by_pixel,
    a_point_on_a_pixel_reads_it,
    what_is_read_moves_with_the_point,
    few_places_are_read,
    a_box_is_looked_around,
    it_begins_on_rays,
    a_new_model_says_its_points,
    the_loss_is_transformers,
    what_is_certain_and_right_costs_little,
    layers_correct_boxes,
    the_points_are_those_that_are_read,
    a_file_of_the_authors_is_read,
]

where, how_much = DeformableAttention.where, DeformableAttention.how_much
start, maps, predictions = (
    DeformableAttention.start,
    DeformableDETR.maps,
    DeformableDETR.predictions,
)
forward, grid_sample = DeformableAttention.forward, F.grid_sample


def corners_of_the_map(*given, align_corners):
    return grid_sample(*given, align_corners=True)


def rows_first(self, queries, points, grids):
    return where(self, queries, points, grids).flip(-1)


def height_by_width(self, queries, points, grids):
    return where(self, queries, points, [(w, h) for h, w in grids])


def each_scale_by_itself(self, queries):
    weights = self.weight(queries).unflatten(-1, (self.heads, self.scales, self.points))
    return weights.softmax(-1).flatten(-2).transpose(1, 2) / self.scales


def in_pixels(self, queries, points, grids):
    """Offsets are pixels, whatever the box."""
    return where(self, queries, points[..., :2], grids)


def places_first(grids, x):
    return middles(grids, x).flip(-1)


def whole_sides(self, queries, points, grids):
    if points.shape[-1] == 4:
        points = torch.cat([points[..., :2], 2 * points[..., 2:]], dim=-1)
    return where(self, queries, points, grids)


def places_from_the_corner(self, queries, points, grids):
    """A place does not follow the query's point."""
    return where(self, queries, 0 * points + 0.5, grids)


def everything_is_read(self, queries, points, seen, grids):
    return forward(self, queries, points, seen + seen.mean(1, keepdim=True), grids)


@torch.no_grad()
def one_direction(self):
    start(self)
    self.offset.bias.copy_(
        self.offset.bias.view(self.heads, -1)[:1].expand(self.heads, -1).flatten()
    )


@torch.no_grad()
def random_offsets(self):
    start(self)
    nn.init.normal_(self.offset.weight)


def boxes_anywhere(self, images):
    return [(logits, boxes.flip(1)) for logits, boxes in predictions(self, images)]


def after_a_relu(self, images):
    return [map.relu() for map in maps(self, images)]


def never_again(x):
    """The sigmoid is forgotten."""
    return x


NAMES_IN_ORDER = deformable_detr.reader([r for r in deformable_detr.AUTHORS if "norm" not in r[0]])

PLANTED = {
    "maps after a ReLU": (
        (DeformableDETR, "maps", after_a_relu),
        same_as_transformers_with_one_scale,
    ),
    "waves from one, as in DETR": (
        (deformable_detr, "waves", lambda x, grid, start: detr.waves(x, grid)),
        same_as_transformers,
    ),
    "x and y exchanged in the encoder": (
        (deformable_detr, "middles", places_first),
        same_as_transformers,
    ),
    "points are corrected as numbers from 0 to 1": (
        (deformable_detr, "inverse_sigmoid", never_again),
        same_as_transformers_with_refinement,
    ),
    "width and height exchanged": (
        (DeformableAttention, "where", height_by_width),
        same_as_transformers_attention,
    ),
    "each scale has weights of its own": (
        (DeformableAttention, "how_much", each_scale_by_itself),
        same_as_transformers_attention,
    ),
    "rows before columns": (
        (DeformableAttention, "where", rows_first),
        same_as_reading_pixel_by_pixel,
    ),
    "the edge counts as a pixel": (
        (F, "grid_sample", corners_of_the_map),
        a_point_on_a_pixel_reads_it,
    ),
    "places do not follow the point": (
        (DeformableAttention, "where", places_from_the_corner),
        what_is_read_moves_with_the_point,
    ),
    "everything is read": (
        (DeformableAttention, "forward", everything_is_read),
        few_places_are_read,
    ),
    "offsets in pixels": ((DeformableAttention, "where", in_pixels), a_box_is_looked_around),
    "offsets in whole sides": ((DeformableAttention, "where", whole_sides), a_box_is_looked_around),
    "one ray for all heads": ((DeformableAttention, "start", one_direction), it_begins_on_rays),
    "rays that depend on the query": (
        (DeformableAttention, "start", random_offsets),
        it_begins_on_rays,
    ),
    "each query says the point of another": (
        (DeformableDETR, "predictions", boxes_anywhere),
        a_new_model_says_its_points,
    ),
    "alpha for what is wrong": ((deformable_detr, "ALPHA", 0.75), the_loss_is_transformers),
    "not focal": ((deformable_detr, "GAMMA", 0.0), what_is_certain_and_right_costs_little),
    "points stay as numbers": (
        (deformable_detr, "inverse_sigmoid", never_again),
        layers_correct_boxes,
    ),
    "weights sum to two": (
        (DeformableAttention, "how_much", lambda self, queries: 2 * how_much(self, queries)),
        the_points_are_those_that_are_read,
    ),
    "norms in the order of their names": (
        (DeformableDETR, "layouts", {"authors": ("transformer.level_embed", NAMES_IN_ORDER)}),
        a_file_of_the_authors_is_read,
    ),
}
