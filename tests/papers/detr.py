"""DETR: beside transformers and PyTorch's own layers; the matching beside all that there are."""

from functools import partial
from itertools import permutations

import timm
import torch
import transformers
from torch import nn
from torch.nn.init import xavier_uniform_
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss
from transformers.models.detr.modeling_detr import replace_batch_norm

from tests.proofs import equal, images, randomise, same_as
from vitcourse.papers import detr
from vitcourse.papers.detr import (
    DETR,
    ConvMaps,
    DecoderLayer,
    EncoderLayer,
    ResNetMaps,
    Sizes,
    SmallDETR,
    match,
    set_loss,
)

SIZES = Sizes(
    dim=48,
    heads=3,
    hidden=40,
    encoder=1,
    decoder=2,
    queries=7,
    classes=5,
    drop=0.0,
    backbone=(10, 14),
)
MODELS = {"small": lambda: (SmallDETR(SIZES), 10 * torch.randn(2, 3, 32, 48))}
OTHER_SIZES = {"small": (40, 28)}
COUNTS = {"detr_r50": 41_524_768}
NARROW, BLOCKS = 16, (1, 2, 1, 1)


def joined(answer):
    """Logits and boxes (B, Q, classes + 4) as one tensor."""
    return torch.cat(tuple(answer), dim=-1)


class Joined(DETR):
    """A DETR with a narrow ResNet, that gives logits and boxes as one tensor."""

    Backbone = staticmethod(partial(ResNetMaps, width=NARROW))

    def forward(self, images):
        return joined(super().forward(images))


def layers(model):
    """The layers of a transformer."""
    return [*model.encoder, *model.decoder]


def as_resnet(model, maps):
    """Give a detector of transformers our ResNet as timm builds it, with random statistics."""
    body = timm.create_model(
        "resnet26", features_only=True, layers=BLOCKS, base_width=NARROW, out_indices=maps
    )
    replace_batch_norm(body)
    model.model.backbone.model = tame(body)
    return model.requires_grad_()


def tame(body):
    """Give the norms scales and shifts with which numbers stay small though filters are random."""
    numbers = generator(2)
    for norm in body.modules():
        if type(norm).__name__.endswith("FrozenBatchNorm2d"):
            norm.weight.copy_(0.15 + 0.05 * torch.randn(len(norm.weight), generator=numbers))
            norm.bias.copy_(0.1 * torch.randn(len(norm.bias), generator=numbers))
    return body


def generator(seed):
    return torch.Generator().manual_seed(seed)


def config(**options):
    """The sizes, as transformers calls them. Its own losses for each layer change the model."""
    sizes = dict(d_model=SIZES.dim, num_queries=SIZES.queries, num_labels=SIZES.classes)
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": getattr(SIZES, part), f"{part}_ffn_dim": SIZES.hidden}
        sizes[f"{part}_attention_heads"] = SIZES.heads
    return dict(backbone="resnet26", auxiliary_loss=False) | sizes | options


def no_rounding(*parameters):
    """The queries of the first layer begin as zeros, so they have nothing to tell each other.

    The gradients of the matrices are zero there, but for rounding, which is taken away.
    """
    for parameter in parameters:
        parameter.register_hook(torch.zeros_like)


def same_as_transformers():
    theirs = transformers.DetrForObjectDetection(transformers.DetrConfig(**config()))
    as_resnet(theirs, (4,))
    theirs.model.input_projection = nn.Conv2d(2048, SIZES.dim, 1)
    ours = Joined(Sizes(**(vars(SIZES) | {"backbone": BLOCKS})))

    def run(given):
        found = theirs(given)
        return joined((found.logits, found.pred_boxes))

    inside = theirs.model
    attention = inside.decoder.layers[0].self_attn
    no_rounding(*(getattr(attention, f"{part}_proj").weight for part in "qkv"))
    stages = layers(ours), [*inside.encoder.layers, *inside.decoder.layers]
    same_as(theirs, ours, images(2, 3, 96, 160), stages, run=run)


class PyTorchEncoder(nn.TransformerEncoderLayer):
    """PyTorch's layer, told the places."""

    def _sa_block(self, x, *_, **__):
        return self.self_attn(x + self.places, x + self.places, x, need_weights=False)[0]


class PyTorchDecoder(nn.TransformerDecoderLayer):
    """PyTorch's layer, told the places and the queries."""

    def _sa_block(self, x, *_, **__):
        return self.self_attn(x + self.queries, x + self.queries, x, need_weights=False)[0]

    def _mha_block(self, x, seen, *_, **__):
        return self.multihead_attn(x + self.queries, seen + self.places, seen)[0]


class OfPyTorch(nn.Module):
    """A DETR made of PyTorch's layers, whose tensors have the names of the authors' file."""

    def __init__(self, cfg):
        super().__init__()
        inner = nn.Module()
        inner.body = tame(ResNetMaps(BLOCKS, NARROW))
        self.backbone = nn.ModuleList([inner])
        self.input_proj = nn.Conv2d(2048, cfg.dim, 1)
        options = dict(dropout=0.0, batch_first=True)
        encoder = PyTorchEncoder(cfg.dim, cfg.heads, cfg.hidden, **options)
        decoder = PyTorchDecoder(cfg.dim, cfg.heads, cfg.hidden, **options)
        self.transformer = nn.Module()
        self.transformer.encoder = nn.TransformerEncoder(
            encoder, cfg.encoder, enable_nested_tensor=False
        )
        self.transformer.decoder = nn.TransformerDecoder(
            decoder, cfg.decoder, nn.LayerNorm(cfg.dim)
        )
        self.query_embed = nn.Embedding(cfg.queries, cfg.dim)
        self.class_embed = nn.Linear(cfg.dim, cfg.classes + 1)
        self.bbox_embed = nn.Module()
        self.bbox_embed.layers = nn.ModuleList(nn.Linear(cfg.dim, n) for n in (cfg.dim,) * 2 + (4,))

    def forward(self, images):
        map = self.input_proj(self.backbone[0].body.features(images)[-1])
        x, places = map.flatten(2).mT, places_of(map)
        queries = self.query_embed(torch.arange(self.query_embed.num_embeddings))
        for layer in self.transformer.encoder.layers:
            layer.places = places
        for layer in self.transformer.decoder.layers:
            layer.places, layer.queries = places, queries
        begin = x.new_zeros(len(x), *queries.shape)
        x = box = self.transformer.decoder(begin, self.transformer.encoder(x))
        for i, layer in enumerate(self.bbox_embed.layers):
            box = layer(box.relu() if i else box)
        return joined((self.class_embed(x), box.sigmoid()))


def places_of(map):
    """The waves of a map's places, number by number: (h*w, D)."""
    D, h, w = map.shape[1:]
    waves = torch.empty(h * w, D, dtype=torch.float64)
    for y in range(h):
        for x in range(w):
            for i in range(D // 2):
                for half, place, side in ((0, y, h), (1, x, w)):
                    part = torch.tensor(
                        (place + 1) / (side + 1e-6) * 2 * torch.pi, dtype=waves.dtype
                    )
                    angle = part / 10000 ** (2 * (i // 2) / (D / 2))
                    waves[y * w + x, half * D // 2 + i] = angle.cos() if i % 2 else angle.sin()
    return waves.to(map)


def same_as_PyTorchs_layers():
    """With the names of the authors' file; places are told to queries and keys, not to values."""
    theirs = OfPyTorch(SIZES).requires_grad_()
    ours = Joined(Sizes(**(vars(SIZES) | {"backbone": BLOCKS})))
    inside = theirs.transformer
    no_rounding(inside.decoder.layers[0].self_attn.in_proj_weight)
    stages = layers(ours), [*inside.encoder.layers, *inside.decoder.layers]
    same_as(theirs, ours, images(2, 3, 64, 96), stages, dtypes=(torch.float64,))


def a_case(queries=5, counts=(3, 0, 2), classes=4, dtype=torch.float64, seed=39):
    """Logits, boxes and truth of a batch: images with 3, 0 and 2 objects."""
    numbers = generator(seed)

    def boxes(n):
        centre, size = torch.rand(2, n, 2, generator=numbers, dtype=dtype)
        return torch.cat([0.3 + 0.4 * centre, 0.1 + 0.3 * size], dim=-1)

    logits = torch.randn(len(counts), queries, classes + 1, generator=numbers, dtype=dtype)
    found = torch.stack([boxes(queries) for _ in counts])
    truth = [(torch.randint(classes, (n,), generator=numbers), boxes(n)) for n in counts]
    return logits, found, truth


def cost(p, box, wanted):
    """What it costs to match one answer with one object, by the equations."""
    (x1, y1), (x2, y2) = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
    (u1, v1), (u2, v2) = wanted[:2] - wanted[2:] / 2, wanted[:2] + wanted[2:] / 2
    both = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
    either = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both
    around = (max(x2, u2) - min(x1, u1)) * (max(y2, v2) - min(y1, v1))
    giou = both / either - (around - either) / around
    return -p + 5 * (box - wanted).abs().sum() - 2 * giou


def the_matching_is_the_best_of_all():
    """The sum of its costs is the least of all ways to give each object a query of its own."""
    logits, boxes, truth = a_case()
    p = logits.softmax(-1)
    for i, (queries, objects) in enumerate(detr.match(-p, boxes, truth)):
        labels, wanted = truth[i]
        pairs = dict(zip(objects.tolist(), queries.tolist(), strict=True))
        assert len(set(pairs.values())) == len(pairs) == len(labels)

        def total(chosen, i=i, labels=labels, wanted=wanted):
            each = [cost(p[i, q, labels[o]], boxes[i, q], wanted[o]) for o, q in enumerate(chosen)]
            return torch.stack([torch.zeros([]), *each]).sum()

        everything = [total(chosen) for chosen in permutations(range(5), len(labels))]
        equal(total([pairs[o] for o in range(len(labels))]), min(everything))
        if len(labels) == 3:  # a case in which two objects have the same best query
            assert sorted(everything)[1] - min(everything) > 1e-3
            assert len(set(best_queries(p[i], boxes[i], labels, wanted))) < 3


def best_queries(p, boxes, labels, wanted):
    """For each object of an image the query that costs it least."""
    return [
        min(range(len(boxes)), key=lambda q, k=k, box=box: cost(p[q, k], boxes[q], box))
        for k, box in zip(labels, wanted, strict=True)
    ]


def the_loss_is_transformers():
    """Of the last layer and of the one before, with an image that shows nothing."""
    logits, boxes, truth = a_case(dtype=torch.float32)
    before, earlier, _ = a_case(dtype=torch.float32)
    before, earlier = before.flip(1), (earlier * 0.9).flip(0)
    labels = [{"class_labels": k, "boxes": b} for k, b in truth]
    options = transformers.DetrConfig(**config(num_labels=4, auxiliary_loss=True))
    stacks = torch.stack([before, logits]), torch.stack([earlier, boxes])
    wanted, *_ = ForObjectDetectionLoss(logits, labels, "cpu", boxes, options, *stacks)
    found = set_loss(logits, boxes, truth) + set_loss(before, earlier, truth)
    equal(found, wanted, tolerance=1e-5)


def the_order_of_objects_does_not_count():
    """Nor does that of the queries: the loss is one of sets."""
    logits, boxes, truth = a_case()
    wanted = set_loss(logits, boxes, truth)
    orders = [2, 0, 1], [], [1, 0]
    turned = [(k[order], b[order]) for (k, b), order in zip(truth, orders, strict=True)]
    equal(set_loss(logits, boxes, turned), wanted)
    queries = torch.tensor([3, 1, 4, 0, 2])
    equal(set_loss(logits[:, queries], boxes[:, queries], truth), wanted)


def only_matched_boxes_learn():
    """The box of a query without an object gets no gradient; every query's classes get one."""
    logits, boxes, truth = a_case()
    logits.requires_grad_(), boxes.requires_grad_()
    set_loss(logits, boxes, truth).backward()
    pairs = match(-logits.softmax(-1), boxes, truth)
    for i, (queries, _) in enumerate(pairs):
        reached = set((boxes.grad[i].abs().amax(-1) > 0).nonzero().flatten().tolist())
        assert reached == set(queries.tolist())
    assert (logits.grad.abs().amax(-1) > 0).all()


def nothing_counts_a_tenth():
    """One query answers for the object, four for nothing: the cross-entropy is a weighted mean."""
    logits, boxes, truth = a_case(counts=(1,))
    ((query, _),) = match(-logits.softmax(-1), boxes, truth)
    each = -logits[0].log_softmax(-1)  # (Q, classes + 1)
    right, nothing = each[query, truth[0][0]], each[:, -1].sum() - each[query, -1]
    box, wanted = boxes[0][query], truth[0][1]
    apart = (box - wanted).abs().sum() * 5 + 2 * (cost(0, box[0], box[0]) * 0)
    giou = -(cost(0, box[0], wanted[0]) - 5 * (box - wanted).abs().sum()) / 2
    expected = (right + 0.1 * nothing) / 1.4 + apart + 2 * (1 - giou)
    equal(set_loss(logits, boxes, truth), expected[0], tolerance=1e-6)


def places_reach_no_values():
    """Where the scores are equal, whatever they are told, places change nothing."""
    for cls in (EncoderLayer, DecoderLayer):
        layer = randomise(cls(SIZES)).double()
        D = SIZES.dim
        x, queries = images(2, 7, D), images(7, D, seed=1)
        seen, places = images(2, 11, D, seed=2), images(11, D, seed=3)
        told, silent = (
            ((seen, places), (seen, 0 * places))
            if cls is EncoderLayer
            else ((x, queries, seen, places), (x, 0 * queries, seen, 0 * places))
        )
        assert (layer(*told) - layer(*silent)).abs().max() > 0.01
        with torch.no_grad():
            for part in (m for m in layer.modules() if isinstance(m, detr.Look)):
                part.qkv.weight[:D] = 0
                part.qkv.bias[:D] = 0
        equal(layer(*told), layer(*silent))


def queries_look_at_each_other():
    """And at the image alone, once what they tell each other is cut off."""
    model = randomise(SmallDETR(SIZES)).double()
    given = images(2, 3, 32, 48)

    def reached():
        model.zero_grad()
        model(given)[1][:, 3].sum().backward()
        return model.position_queries.grad.abs().amax(-1) > 0

    assert reached().all()
    with torch.no_grad():
        for layer in model.decoder:
            layer.attn.proj.weight.zero_()
    assert reached().nonzero().flatten().tolist() == [3]


def exchanged_queries_exchange_answers():
    model = randomise(SmallDETR(SIZES)).double()
    given, order = images(2, 3, 32, 48), [3, 1, 6, 4, 0, 2, 5]
    wanted = joined(model(given))[:, order]
    with torch.no_grad():
        model.position_queries.copy_(model.position_queries[order])
    equal(joined(model(given)), wanted)


def each_layer_answers():
    """The last layer's answer is the model's; without that layer, it is the first's."""
    model = randomise(SmallDETR(SIZES)).double()
    given = images(2, 3, 32, 48)
    first, last = (joined(answer) for answer in model.predictions(given))
    equal(joined(model(given)), last)
    model.decoder = model.decoder[:1]
    equal(joined(model(given)), first)


def statistics_never_change():
    """The ResNet's norms do in training what they do in evaluation, one image or many."""
    body = randomise(ResNetMaps(BLOCKS, NARROW)).double()
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    given = images(2, 3, 64, 96)
    wanted = body.eval().features(given)[-1]
    equal(body.train().features(given)[-1], wanted)
    for name, tensor in body.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not [name for name, _ in body.named_parameters() if "bn" in name]


def maps_halve():
    """Each map has half the sides of the one before, and the channels that are promised."""
    given = torch.randn(2, 3, 64, 96)
    for body, sides in (
        (ConvMaps((10, 14, 6)), (2, 4, 8)),
        (ResNetMaps(BLOCKS, 16), (4, 8, 16, 32)),
    ):
        found = [tuple(map.shape) for map in body.features(given)]
        pairs = zip(body.widths, sides, strict=True)
        assert found == [(2, width, 64 // side, 96 // side) for width, side in pairs]


def it_begins_as_PyTorchs_layers():
    """Matrices of Xavier's width; biases zero where it looks, and those of a Linear in the MLP."""
    torch.manual_seed(0)
    ours = EncoderLayer(Sizes(dim=64, heads=4, hidden=128))
    detr.begin(ours)
    theirs = nn.TransformerEncoderLayer(64, 4, 128)
    for parameter in theirs.parameters():
        if parameter.ndim > 1:
            xavier_uniform_(parameter)  # as the authors do with all
    looks, names = theirs.self_attn, ("weight", "bias")
    pairs = [(getattr(ours.attn.qkv, name), getattr(looks, f"in_proj_{name}")) for name in names]
    for one, other in (
        (ours.attn.proj, looks.out_proj),
        (ours.mlp.fc1, theirs.linear1),
        (ours.mlp.fc2, theirs.linear2),
    ):
        pairs += [(getattr(one, name), getattr(other, name)) for name in names]
    for one, other in pairs:
        equal(one.abs().max(), other.abs().max(), tolerance=0.1)


PROOFS = [
    same_as_transformers,
    same_as_PyTorchs_layers,
    it_begins_as_PyTorchs_layers,
    the_matching_is_the_best_of_all,
    the_loss_is_transformers,
    the_order_of_objects_does_not_count,
    only_matched_boxes_learn,
    nothing_counts_a_tenth,
    places_reach_no_values,
    queries_look_at_each_other,
    exchanged_queries_exchange_answers,
    each_layer_answers,
    statistics_never_change,
    maps_halve,
]

waves, features = detr.waves, ConvMaps.features


def from_zero(x, grid, start=1.0):
    return waves(x, grid, 0.0)


def columns_first(x, grid, start=1.0):
    return waves(x, grid, start).roll(x.shape[-1] // 2, dims=-1)


def values_with_places(self, x, places):
    x = self.norm1(x + self.attn(x + places, x + places, x + places))
    return self.norm2(x + self.mlp(x))


def keys_without_places(self, x, queries, seen, places):
    x = self.norm1(x + self.attn(x + queries, x + queries, x))
    x = self.norm2(x + self.cross_attn(x + queries, seen, seen))
    return self.norm3(x + self.mlp(x))


def norm_of_the_next_layer(self, images):
    """As where transformers trains all layers: the next layer gets what is normalised."""
    seen, places, _ = self.encode(images)
    queries = self.position_queries.expand(len(images), -1, -1)
    x, known = torch.zeros_like(queries), []
    for layer in self.decoder:
        x = self.norm(layer(x, queries, seen, places))
        known.append(x)
    return known


def values_with_queries(self, x, queries, seen, places):
    x = self.norm1(x + self.attn(x + queries, x + queries, x + queries))
    x = self.norm2(x + self.cross_attn(x + queries, seen + places, seen + places))
    return self.norm3(x + self.mlp(x))


def by_logarithm(class_cost, *rest, **options):
    return match((-class_cost).log().neg(), *rest, **options)


def each_takes_its_best(matrix):
    """Every object takes the query that costs it least, even if another has it."""
    return matrix.argmin(dim=0).numpy(), torch.arange(matrix.shape[1]).numpy()


def half_as_wide(boxes):
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def by_number(class_cost, boxes, truth, assign=None):
    return [(torch.arange(len(k)), torch.arange(len(k))) for k, _ in truth]


def every_box(boxes, truth, pairs):
    return detr_box_loss(boxes, truth, pairs) + 0.1 * boxes.sum()


detr_box_loss = detr.box_loss


def alone(self, x, queries, seen, places):
    x = self.norm1(x)
    x = self.norm2(x + self.cross_attn(x + queries, seen + places, seen))
    return self.norm3(x + self.mlp(x))


def with_a_place(self, images):
    known = [x + torch.arange(x.shape[1])[:, None].to(x) for x in decode(self, images)]
    return known


decode = DETR.decode


def the_first_layer(self, images):
    return self.read(self.decode(images)[0])


def before_the_stage(self, images):
    return [images, *features(self, images)[:-1]]


PLANTED = {
    "places are counted from zero": ((detr, "waves", from_zero), same_as_transformers),
    "columns before rows": ((detr, "waves", columns_first), same_as_PyTorchs_layers),
    "keys of the image without places": (
        (DecoderLayer, "forward", keys_without_places),
        same_as_PyTorchs_layers,
    ),
    "the next layer gets what is normalised": (
        (DETR, "decode", norm_of_the_next_layer),
        same_as_transformers,
    ),
    "GELU": ((detr.ReluMlp, "forward", detr.Mlp.forward), same_as_transformers),
    "biases begin as those of a Linear": (
        (nn.init, "zeros_", torch.detach),
        it_begins_as_PyTorchs_layers,
    ),
    "matrices begin as those of a Linear": (
        (nn.init, "xavier_uniform_", torch.detach),
        it_begins_as_PyTorchs_layers,
    ),
    "values know their places": (
        (EncoderLayer, "forward", values_with_places),
        places_reach_no_values,
    ),
    "values know their queries": (
        (DecoderLayer, "forward", values_with_queries),
        places_reach_no_values,
    ),
    "each object takes its best query": (
        (detr, "match", partial(match, assign=each_takes_its_best)),
        the_matching_is_the_best_of_all,
    ),
    "boxes by their corner": ((detr, "corners", half_as_wide), the_matching_is_the_best_of_all),
    "nothing counts as much as an object": (
        (set_loss, "__defaults__", (set_loss.__defaults__[0], 1.0)),
        the_loss_is_transformers,
    ),
    "nothing counts half": (
        (set_loss, "__defaults__", (set_loss.__defaults__[0], 0.5)),
        nothing_counts_a_tenth,
    ),
    "the first query answers for the first object": (
        (detr, "match", by_number),
        the_order_of_objects_does_not_count,
    ),
    "matched by log-probability": ((detr, "match", by_logarithm), the_loss_is_transformers),
    "all boxes learn": ((detr, "box_loss", every_box), only_matched_boxes_learn),
    "queries are alone": ((DecoderLayer, "forward", alone), queries_look_at_each_other),
    "queries have numbers": ((DETR, "decode", with_a_place), exchanged_queries_exchange_answers),
    "the first layer answers": ((DETR, "forward", the_first_layer), each_layer_answers),
    "norms that learn": (
        (detr, "FrozenBatchNorm2d", nn.BatchNorm2d),
        statistics_never_change,
    ),
    "the maps before the stages": ((ConvMaps, "features", before_the_stage), maps_halve),
}
