"""Exercises of lesson 19: finding things."""

from itertools import combinations, permutations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.ops import box_iou, generalized_box_iou

from vitcourse.check.exercise import Case, Exercise, Mistake, normal
from vitcourse.papers import detr
from vitcourse.papers.deformable_detr import DeformableAttention
from vitcourse.papers.detr import corners


def some_boxes(g, n):
    """Boxes (n, 4), centre and sides in parts of the image, inside it."""
    sides = 0.1 + 0.3 * torch.rand(n, 2, generator=g)
    return torch.cat([0.2 + 0.6 * torch.rand(n, 2, generator=g), sides], dim=-1)


# the overlap that knows how far apart boxes are ---------------------------------------------------


def areas(boxes):
    """Width times height: (n, 4) -> (n,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def giou(boxes, others):
    """Boxes (n, 4) and (m, 4), x1 y1 x2 y2 -> (n, m)."""
    low = torch.maximum(boxes[:, None, :2], others[:, :2])  # (n, m, 2)
    high = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)  # (n, m)
    union = areas(boxes)[:, None] + areas(others) - common
    low = torch.minimum(boxes[:, None, :2], others[:, :2])
    high = torch.maximum(boxes[:, None, 2:], others[:, 2:])
    hull = (high - low).prod(dim=-1)  # (n, m)
    return common / union - (hull - union) / hull


def parts(boxes, others, least=0.0):
    """The areas of what two boxes share, of their union, and of the box around both."""
    a, b = boxes[:, None], others
    common = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    common = common.clamp(min=least).prod(dim=-1)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return common, areas(boxes)[:, None] + areas(others) - common, hull.prod(dim=-1)


def only_iou(boxes, others):
    """What is shared, and no more."""
    return box_iou(boxes, others)


def not_clamped(boxes, others):
    """Two negative sides make a positive area."""
    common, union, hull = parts(boxes, others, least=-10)
    return common / union - (hull - union) / hull


def counted_twice(boxes, others):
    """The sum of the areas in the place of the union."""
    common, union, hull = parts(boxes, others)
    union = union + common
    return common / union - (hull - union) / hull


def added(boxes, others):
    """The empty part helps."""
    common, union, hull = parts(boxes, others)
    return common / union + (hull - union) / hull


def by_union(boxes, others):
    """The empty part in parts of the union."""
    common, union, hull = parts(boxes, others)
    return common / union - (hull - union) / union


def in_hull(boxes, others):
    """What is shared, in parts of the hull."""
    common, union, hull = parts(boxes, others)
    return common / hull - (hull - union) / hull


def without_common(boxes, others):
    """The hull less what is shared."""
    common, union, hull = parts(boxes, others)
    return common / union - (hull - common) / hull


def from_centres(boxes, others):
    """Corners taken for centres and sides."""
    return generalized_box_iou(corners(boxes), corners(others))


def turned(boxes, others):
    """(m, n)."""
    return generalized_box_iou(others, boxes)


def as_loss(boxes, others):
    """1 - GIoU."""
    return 1 - generalized_box_iou(boxes, others)


def area_clamped(boxes, others):
    """Clamped behind the product of the sides."""
    a, b = boxes[:, None], others
    common = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    common, hull = common.prod(dim=-1).clamp(min=0), parts(boxes, others)[2]
    union = areas(boxes)[:, None] + areas(others) - common
    return common / union - (hull - union) / hull


def covered_part(boxes, others):
    """The part of the hull that is covered, in the place of the one that is not."""
    common, union, hull = parts(boxes, others)
    return common / union - union / hull


def boxes_case(about, n, m, far):
    """Boxes of which some share something and some do not; `far` moves the others."""

    def inputs(g):
        move = torch.tensor([far, 0.0, far, 0.0])
        return corners(some_boxes(g, n)), corners(some_boxes(g, m)) + move

    return Case(about=about, inputs=inputs, shape="n m", sizes={"n": n, "m": m, "one box": 4})


GIOU = Exercise(
    name="giou",
    lesson="19",
    task="The generalised IoU of each of the boxes (n, 4) with each of the others (m, 4), as x1, y1, x2, "
    "y2: (n, m). It is the IoU, less the part of the box around both that neither of them covers.",
    minutes=10,
    difficulty=2,
    reference=generalized_box_iou,
    solution=(areas, giou),
    cases=(
        boxes_case("boxes of which some overlap", n=5, m=3, far=0.0),
        boxes_case("boxes that all lie apart", n=2, m=6, far=1.5),
    ),
    hints=(
        "boxes[:, None] is (n, 1, 4), so that boxes[:, None] and others meet in pairs. Which four numbers "
        "say where the common part begins and ends?",
        "The common part begins at the larger of both x1 and y1 and ends at the smaller of both x2 and "
        "y2. If it ends before it begins, its side is 0: .clamp(min=0). The union is both areas less it.",
        "The box around both begins at the smaller x1 and y1 and ends at the larger x2 and y2. With its "
        "area: common / union - (hull - union) / hull.",
    ),
    mistakes=(
        Mistake(
            "IoU",
            only_iou,
            "That is the IoU: of boxes that lie apart it is 0, however far apart they are",
        ),
        Mistake(
            "not clamped",
            not_clamped,
            "Boxes that lie apart share nothing: two negative sides make a positive area, so clamp them "
            "at 0 first",
        ),
        Mistake(
            "area clamped",
            area_clamped,
            "You clamped the area: two negative sides have made it positive by then, so clamp the sides",
        ),
        Mistake("1 - GIoU", as_loss, "That is 1 - GIoU, the loss: return the GIoU itself"),
        Mistake(
            "the covered part",
            covered_part,
            "You took away the part of the box around both that is covered: it is the rest, hull less union",
        ),
        Mistake(
            "counted twice",
            counted_twice,
            "Your union counts the common part twice: take it away once",
        ),
        Mistake(
            "added",
            added,
            "You added the part that neither covers: it is taken away, since it grows with the distance",
        ),
        Mistake(
            "divided by the union",
            by_union,
            "You divided the part that neither covers by the union: divide it by the box around both",
        ),
        Mistake(
            "overlap in the hull",
            in_hull,
            "You divided the common part by the box around both: the IoU divides it by the union",
        ),
        Mistake(
            "hull less common",
            without_common,
            "You took the common part from the box around both: what neither covers is hull less union",
        ),
        Mistake(
            "centres",
            from_centres,
            "You read the numbers as centre, width and height: these are corners, x1, y1, x2, y2",
        ),
        Mistake(
            "turned",
            turned,
            "Your rows are the others: row i belongs to the first boxes",
        ),
    ),
)

# what a pair costs --------------------------------------------------------------------------------


def package_cost(logits, boxes, labels, wanted):
    """The package's costs, kept on their way to the choice."""
    kept = []

    def keep(cost):
        kept.append(cost)
        return linear_sum_assignment(cost)

    detr.match(detr.class_cost(logits[None]), boxes[None], [(labels, wanted)], keep)
    return kept[0].to(logits.device)


def pair_costs(logits, boxes, labels, wanted):
    """(Q, classes + 1), (Q, 4), (n,), (n, 4) -> what each pair costs (Q, n)."""
    p = logits.softmax(dim=-1)[:, labels]  # (Q, n)
    apart = torch.cdist(boxes, wanted, p=1)  # (Q, n)
    overlap = generalized_box_iou(corners(boxes), corners(wanted))  # (Q, n)
    return -p + 5 * apart - 2 * overlap


def with_class(p, boxes, wanted):
    """Costs with another term for the class."""
    overlap = generalized_box_iou(corners(boxes), corners(wanted))
    return p + 5 * torch.cdist(boxes, wanted, p=1) - 2 * overlap


def logarithm(logits, boxes, labels, wanted):
    """The loss in the place of the cost."""
    return with_class(-logits.log_softmax(dim=-1)[:, labels], boxes, wanted)


def raw_logits(logits, boxes, labels, wanted):
    """No softmax."""
    return with_class(-logits[:, labels], boxes, wanted)


def no_object_forgotten(logits, boxes, labels, wanted):
    """A softmax over classes of objects alone."""
    return with_class(-logits[:, :-1].softmax(dim=-1)[:, labels], boxes, wanted)


def over_queries(logits, boxes, labels, wanted):
    """A softmax down the queries."""
    return with_class(-logits.softmax(dim=0)[:, labels], boxes, wanted)


def likely_is_dear(logits, boxes, labels, wanted):
    """Plus the probability."""
    return with_class(logits.softmax(dim=-1)[:, labels], boxes, wanted)


def one_minus(logits, boxes, labels, wanted):
    """1 - p and 1 - GIoU."""
    return package_cost(logits, boxes, labels, wanted) + 3


def one_minus_p(logits, boxes, labels, wanted):
    """1 - p."""
    return package_cost(logits, boxes, labels, wanted) + 1


def one_minus_giou(logits, boxes, labels, wanted):
    """1 - GIoU."""
    return package_cost(logits, boxes, labels, wanted) + 2


def weights_exchanged(logits, boxes, labels, wanted):
    """2 for the distance, 5 for the overlap."""
    overlap = generalized_box_iou(corners(boxes), corners(wanted))
    more = torch.cdist(boxes, wanted, p=1) + overlap
    return package_cost(logits, boxes, labels, wanted) - 3 * more


def overlap_is_dear(logits, boxes, labels, wanted):
    """Plus the GIoU."""
    overlap = generalized_box_iou(corners(boxes), corners(wanted))
    return package_cost(logits, boxes, labels, wanted) + 4 * overlap


def plain_iou(logits, boxes, labels, wanted):
    """The IoU, in the place of the GIoU."""
    p = logits.softmax(dim=-1)[:, labels]
    overlap = box_iou(corners(boxes), corners(wanted))
    return -p + 5 * torch.cdist(boxes, wanted, p=1) - 2 * overlap


def not_corners(logits, boxes, labels, wanted):
    """Centres and sides taken for corners."""
    p = logits.softmax(dim=-1)[:, labels]
    overlap = generalized_box_iou(boxes, wanted)
    return -p + 5 * torch.cdist(boxes, wanted, p=1) - 2 * overlap


def between_corners(logits, boxes, labels, wanted):
    """The distance of corners."""
    return pair_costs(logits, boxes, labels, wanted) + 5 * (
        torch.cdist(corners(boxes), corners(wanted), p=1) - torch.cdist(boxes, wanted, p=1)
    )


def mean_distance(logits, boxes, labels, wanted):
    """The mean of four differences."""
    apart = torch.cdist(boxes, wanted, p=1)
    return pair_costs(logits, boxes, labels, wanted) - 5 * 0.75 * apart


def straight_distance(logits, boxes, labels, wanted):
    """L2."""
    apart = torch.cdist(boxes, wanted) - torch.cdist(boxes, wanted, p=1)
    return pair_costs(logits, boxes, labels, wanted) + 5 * apart


def all_alike(logits, boxes, labels, wanted):
    """No weights."""
    p = logits.softmax(dim=-1)[:, labels]
    overlap = generalized_box_iou(corners(boxes), corners(wanted))
    return -p + torch.cdist(boxes, wanted, p=1) - overlap


def costs_turned(logits, boxes, labels, wanted):
    """(n, Q)."""
    return pair_costs(logits, boxes, labels, wanted).mT


def costs_case(about, Q, n, classes):
    """Answers to an image with n objects."""

    def inputs(g):
        labels = torch.randperm(classes, generator=g)[:n]
        return 2 * normal(g, Q, classes + 1), some_boxes(g, Q), labels, some_boxes(g, n)

    return Case(about=about, inputs=inputs, shape="Q n", sizes=dict(Q=Q, n=n, classes=classes))


PAIR_COSTS = Exercise(
    name="pair_costs",
    lesson="19",
    task="What it costs, for one image, to let a query answer for an object: less the probability of the "
    "object's class, plus 5 times the L1 distance of the boxes, less 2 times their GIoU. logits (Q, "
    "classes + 1), boxes (Q, 4), labels (n,), wanted boxes (n, 4) -> (Q, n). Boxes are centre x, centre "
    "y, width, height.",
    minutes=10,
    difficulty=2,
    reference=package_cost,
    solution=pair_costs,
    tolerance=1e-4,
    cases=(
        costs_case("seven queries, three objects", Q=7, n=3, classes=5),
        costs_case("four queries, two objects", Q=4, n=2, classes=6),
    ),
    hints=(
        "Three matrices (Q, n), one for each term. The probabilities come from a softmax over all "
        "classes + 1; then take the columns of the objects' classes: [:, labels].",
        "torch.cdist(boxes, wanted, p=1) is the L1 distance of each pair: the sum of four differences, "
        "of the boxes as they are.",
        "generalized_box_iou of torchvision.ops wants corners: detr.corners(boxes). Then -p + 5 * apart "
        "- 2 * overlap.",
    ),
    mistakes=(
        Mistake(
            "logarithm",
            logarithm,
            "You took the logarithm of the probability: that is the loss, and the matching takes the "
            "probability itself",
        ),
        Mistake("logits", raw_logits, "You took the logits as they are: make them probabilities"),
        Mistake(
            "no object left out",
            no_object_forgotten,
            'Your softmax leaves out "no object", the last class: it takes its part of the probability',
        ),
        Mistake(
            "softmax over queries",
            over_queries,
            "Your softmax goes over the queries: each query has probabilities of its own, over classes",
        ),
        Mistake(
            "likely is dear",
            likely_is_dear,
            "You added the probability: a likely answer must cost less, so it is taken away",
        ),
        Mistake(
            "1 - p and 1 - GIoU",
            one_minus,
            "You took 1 - p and 1 - GIoU: this chooses the same queries, but the task asks for -p and "
            "-2 GIoU",
        ),
        Mistake(
            "1 - p",
            one_minus_p,
            "You took 1 - p: this chooses the same queries, but the task asks for -p",
        ),
        Mistake(
            "1 - GIoU",
            one_minus_giou,
            "You took 2 (1 - GIoU), as the loss does: this chooses the same queries, but the task asks "
            "for -2 GIoU",
        ),
        Mistake(
            "weights exchanged",
            weights_exchanged,
            "You exchanged the weights: the distance counts 5, the GIoU 2",
        ),
        Mistake(
            "overlap is dear",
            overlap_is_dear,
            "You added the GIoU: boxes that overlap must cost less, so it is taken away",
        ),
        Mistake(
            "IoU",
            plain_iou,
            "You took the IoU: it is 0 for all boxes that lie apart, the GIoU tells far from near",
        ),
        Mistake(
            "not corners",
            not_corners,
            "The GIoU wants corners, and you gave it centres and sides: detr.corners makes corners of them",
        ),
        Mistake(
            "distance of corners",
            between_corners,
            "You took the L1 distance of the corners: take that of centres and sides",
        ),
        Mistake(
            "mean distance",
            mean_distance,
            "You took the mean of the four differences: the L1 distance is their sum",
        ),
        Mistake(
            "straight distance",
            straight_distance,
            "You took the Euclidean distance: cdist(..., p=1) is the sum of the differences",
        ),
        Mistake(
            "no weights", all_alike, "Your terms count the same: the distance counts 5, the GIoU 2"
        ),
        Mistake(
            "objects first",
            costs_turned,
            "Your rows are objects: row q belongs to query q",
        ),
    ),
)

# who answers for which object ---------------------------------------------------------------------


def package_matching(cost):
    """The package's choice, as a matrix."""
    queries, objects = (torch.as_tensor(s) for s in linear_sum_assignment(cost.detach().cpu()))
    return as_matrix(cost, queries[objects.argsort()])


def as_matrix(cost, queries):
    """The query of each object, (n,), as zeros and ones (Q, n)."""
    return F.one_hot(queries, cost.shape[0]).T.to(cost)


def best_matching(cost):
    """What each pair costs (Q, n) -> zeros and ones (Q, n): who answers for which object."""
    Q, n = cost.shape
    orders = torch.tensor(list(permutations(range(Q), n)), device=cost.device)  # (choices, n)
    objects = torch.arange(n, device=cost.device)
    total = cost[orders, objects].sum(dim=-1)  # (choices,)
    who = torch.zeros_like(cost)
    who[orders[total.argmin()], objects] = 1.0
    return who


def cheapest_each(cost):
    """Each object's own cheapest, whoever else has taken it."""
    return as_matrix(cost, cost.argmin(dim=0))


def cheapest_of_queries(cost):
    """Each query's own cheapest."""
    return F.one_hot(cost.argmin(dim=1), cost.shape[1]).to(cost)


def greed(cost):
    """The cheapest pair, again and again."""
    who, cost = torch.zeros_like(cost), cost.detach().clone()
    for _ in range(cost.shape[1]):
        query, object = divmod(int(cost.argmin()), cost.shape[1])
        who[query, object] = 1.0
        cost[query], cost[:, object] = torch.inf, torch.inf
    return who


def in_turn(cost):
    """The first object chooses first."""
    who, cost = torch.zeros_like(cost), cost.detach().clone()
    for object in range(cost.shape[1]):
        query = int(cost[:, object].argmin())
        who[query, object] = 1.0
        cost[query] = torch.inf
    return who


def dearest(cost):
    """The largest sum."""
    return package_matching(-cost)


def by_number(cost):
    """The right queries, in the order of their numbers."""
    return as_matrix(cost, package_matching(cost).argmax(dim=0).sort().values)


def in_one_order(cost):
    """Each set of queries in the order of their numbers alone."""
    orders = torch.tensor(list(combinations(range(cost.shape[0]), cost.shape[1])))
    total = cost.cpu()[orders, torch.arange(cost.shape[1])].sum(dim=-1)
    return as_matrix(cost, orders[total.argmin()])


def worst_pair(cost):
    """The choice whose dearest pair is cheapest."""
    orders = torch.tensor(list(permutations(range(cost.shape[0]), cost.shape[1])))
    dearest = cost.cpu()[orders, torch.arange(cost.shape[1])].amax(dim=-1)
    return as_matrix(cost, orders[dearest.argmin()])


def first_queries(cost):
    """Only n queries are asked."""
    who = torch.zeros_like(cost)
    who[: cost.shape[1]] = package_matching(cost[: cost.shape[1]])
    return who


def objects_first(cost):
    """(n, Q)."""
    return package_matching(cost).T


def matching_case(about, Q, n):
    """Costs of which some queries are good for several objects."""
    return Case(
        about=about,
        inputs=lambda g: (normal(g, Q, n) + normal(g, Q, 1),),
        shape="Q n",
        sizes=dict(Q=Q, n=n),
    )


BEST_MATCHING = Exercise(
    name="best_matching",
    lesson="19",
    task="What each pair of a query and an object costs is given, (Q, n). Each object gets a query, and no "
    "query two objects. Of the choice whose sum is least, give a matrix (Q, n): 1.0 where a query answers "
    "for an object, 0.0 elsewhere. Try all choices: there are few here.",
    minutes=10,
    difficulty=2,
    reference=package_matching,
    solution=best_matching,
    cases=(
        matching_case("five queries for three objects", Q=5, n=3),
        matching_case("six queries, four objects", Q=6, n=4),
        matching_case("as many queries as objects, plus one", Q=4, n=3),
    ),
    hints=(
        "itertools.permutations(range(Q), n) gives every way to choose n of Q queries in an order: the "
        "first for object 0, the second for object 1, and so on.",
        "The sum of one choice: sum(cost[q, i] for i, q in enumerate(order)). Keep the order with the "
        "least sum.",
        "Then who = torch.zeros_like(cost), and who[q, i] = 1.0 for each i, q in enumerate(order). "
        "(SciPy's linear_sum_assignment, if you take it, wants cost.detach().)",
    ),
    mistakes=(
        Mistake(
            "each its cheapest",
            cheapest_each,
            "You gave each object its own cheapest query: a query may be asked twice that way",
        ),
        Mistake(
            "greedy",
            greed,
            "You took the cheapest pair, again and again: what is left may be dear, and the sum is not "
            "the least",
        ),
        Mistake(
            "in turn",
            in_turn,
            "Your objects choose one after the other: the first takes what a later one needs more",
        ),
        Mistake("dearest", dearest, "You chose the largest sum: these are costs"),
        Mistake(
            "sorted",
            by_number,
            "You have the right queries, but gave them to the objects in the order of their numbers",
        ),
        Mistake(
            "each query its cheapest",
            cheapest_of_queries,
            "You gave each query an object: an object has one query, and all others have none",
        ),
        Mistake(
            "in one order",
            in_one_order,
            "You tried each set of queries in one order alone, as itertools.combinations gives it: "
            "permutations gives all",
        ),
        Mistake(
            "the dearest pair",
            worst_pair,
            "You made the dearest pair as cheap as possible: it is the sum that must be least",
        ),
        Mistake(
            "the first queries",
            first_queries,
            "You tried the first n queries alone: any n of the Q may be the best",
        ),
        Mistake("objects first", objects_first, "Your rows are objects: row q belongs to query q"),
    ),
)

# look at a few places -----------------------------------------------------------------------------


class Says(nn.Module):
    """A layer that says the same to all."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, queries):
        return self.answer


def package_look(map, points, offsets, scores):
    """The package's attention, with one head and one map, told where and how much."""
    layer = DeformableAttention(map.shape[1], heads=1, scales=1, points=scores.shape[-1])
    layer.offset, layer.weight = Says(offsets.flatten(2)), Says(scores)
    layer.value = layer.proj = nn.Identity()
    return layer(None, points, map.flatten(2).mT, [tuple(map.shape[2:])])


def look_at_few(map, points, offsets, scores):
    """(B, C, h, w), (B, Q, 2), (B, Q, P, 2), (B, Q, P) -> (B, Q, C)."""
    h, w = map.shape[2:]
    sides = torch.tensor([w, h], device=map.device)
    places = points[:, :, None] + offsets / sides  # (B, Q, P, 2), from 0 to 1
    read = F.grid_sample(map, 2 * places - 1, align_corners=False)  # (B, C, Q, P)
    weights = scores.softmax(dim=-1)  # (B, Q, P)
    return (read * weights[:, None]).sum(dim=-1).mT  # (B, Q, C)


def reads(map, places, weights, **how):
    """Read at places from -1 to 1."""
    read = F.grid_sample(map, places, **(dict(align_corners=False) | how))
    return (read * weights[:, None]).sum(dim=-1).mT


def places_of(map, points, offsets):
    """Where to read, from -1 to 1."""
    sides = torch.tensor(map.shape[:1:-1], device=map.device)
    return 2 * (points[:, :, None] + offsets / sides) - 1


def corners_aligned(map, points, offsets, scores):
    """Pixels with their value at the corners of the map."""
    places = places_of(map, points, offsets)
    return reads(map, places, scores.softmax(dim=-1), align_corners=True)


def nearest(map, points, offsets, scores):
    """The nearest pixel."""
    return reads(map, places_of(map, points, offsets), scores.softmax(dim=-1), mode="nearest")


def at_the_border(map, points, offsets, scores):
    """The border goes on outside."""
    places = places_of(map, points, offsets)
    return reads(map, places, scores.softmax(dim=-1), padding_mode="border")


def from_zero(map, points, offsets, scores):
    """Places from 0 to 1."""
    return reads(map, (places_of(map, points, offsets) + 1) / 2, scores.softmax(dim=-1))


def rows_first(map, points, offsets, scores):
    """y and x."""
    return reads(map, places_of(map, points, offsets).flip(-1), scores.softmax(dim=-1))


def height_first(map, points, offsets, scores):
    """x in parts of the height."""
    sides = torch.tensor(map.shape[2:], device=map.device)
    return reads(map, 2 * (points[:, :, None] + offsets / sides) - 1, scores.softmax(dim=-1))


def half_of_it(map, points, offsets, scores):
    """The points doubled, the offsets not."""
    places = places_of(map, points, offsets / 2)
    return reads(map, places, scores.softmax(dim=-1))


def in_pixels(map, points, offsets, scores):
    """Places in pixels."""
    sides = torch.tensor(map.shape[:1:-1], device=map.device)
    return reads(map, points[:, :, None] * sides + offsets, scores.softmax(dim=-1))


def mean_of_places(map, points, offsets, scores):
    """A mean, where the weights sum to one already."""
    return package_look(map, points, offsets, scores) / scores.shape[-1]


def reshaped(map, points, offsets, scores):
    """(B, C, Q), read as (B, Q, C)."""
    x = package_look(map, points, offsets, scores)
    return x.mT.reshape(x.shape)


def not_in_pixels(map, points, offsets, scores):
    """Offsets in parts of the map."""
    return reads(map, 2 * (points[:, :, None] + offsets) - 1, scores.softmax(dim=-1))


def no_offsets(map, points, offsets, scores):
    """All at the point."""
    return reads(map, places_of(map, points, 0 * offsets), scores.softmax(dim=-1))


def not_shared(map, points, offsets, scores):
    """Scores as weights."""
    return reads(map, places_of(map, points, offsets), scores)


def shared_by_queries(map, points, offsets, scores):
    """A softmax over queries."""
    return reads(map, places_of(map, points, offsets), scores.softmax(dim=1))


def averaged(map, points, offsets, scores):
    """All places alike."""
    return reads(
        map, places_of(map, points, offsets), torch.full_like(scores, 1 / scores.shape[-1])
    )


def channels_first(map, points, offsets, scores):
    """(B, C, Q)."""
    return package_look(map, points, offsets, scores).mT


def look_case(about, B, C, grid, Q, P):
    """Points all over the map; some places lie outside."""

    def inputs(g):
        points = torch.rand(B, Q, 2, generator=g)
        return (
            normal(g, B, C, *grid),
            points,
            1.5 * normal(g, B, Q, P, 2),
            normal(g, B, Q, P),
        )

    sizes = dict(B=B, C=C, h=grid[0], w=grid[1], Q=Q, P=P)
    return Case(about=about, inputs=inputs, shape="B Q C", sizes=sizes)


LOOK_AT_FEW = Exercise(
    name="look_at_few",
    lesson="19",
    task="One head of deformable attention on one map: map (B, C, h, w), points (B, Q, 2), x and y from 0 "
    "to 1, offsets (B, Q, P, 2), x and y in pixels of the map, scores (B, Q, P) -> (B, Q, C). Each query "
    "reads P places, and their weights are the softmax of its scores. Outside of the map are zeros.",
    minutes=15,
    difficulty=3,
    reference=package_look,
    solution=look_at_few,
    tolerance=1e-4,
    cases=(
        look_case("a wide map", B=2, C=3, grid=(4, 8), Q=5, P=6),
        look_case("a high map, with three places", B=4, C=2, grid=(9, 7), Q=6, P=3),
    ),
    hints=(
        "A step of one pixel to the right is 1/w of the map, one down is 1/h: points[:, :, None] + "
        "offsets / torch.tensor([w, h]) are the places, from 0 to 1.",
        "F.grid_sample(map, 2 * places - 1, align_corners=False) reads them, since it counts from -1 to "
        "1: (B, C, Q, P).",
        "scores.softmax(dim=-1) is (B, Q, P): give it an axis for the channels, multiply, and sum over "
        "the places. What is left is (B, C, Q): exchange the last two axes.",
    ),
    mistakes=(
        Mistake(
            "corners aligned",
            corners_aligned,
            "You read with align_corners=True: a pixel has its value in its middle, not at the edge of "
            "the map",
        ),
        Mistake(
            "nearest", nearest, "You read the nearest pixel: read between pixels, by straight lines"
        ),
        Mistake(
            "border",
            at_the_border,
            "You continue the border outside of the map: there are zeros",
        ),
        Mistake(
            "from 0 to 1",
            from_zero,
            "grid_sample counts from -1 to 1, and you gave it places from 0 to 1: 2 * places - 1",
        ),
        Mistake("y before x", rows_first, "You exchanged x and y: grid_sample, too, has x first"),
        Mistake(
            "height first",
            height_first,
            "You divided the offsets by (h, w): x comes first, so divide by (w, h)",
        ),
        Mistake(
            "offsets in parts",
            not_in_pixels,
            "You took offsets as parts of the map: they are pixels, so divide them by (w, h)",
        ),
        Mistake(
            "half the offset",
            half_of_it,
            "You doubled the points alone: from -1 to 1, an offset counts twice as well",
        ),
        Mistake(
            "in pixels",
            in_pixels,
            "You gave grid_sample places in pixels: it counts from -1 to 1",
        ),
        Mistake(
            "mean of places",
            mean_of_places,
            "You took the mean over the places: their weights sum to one, so take the sum",
        ),
        Mistake(
            "reshaped",
            reshaped,
            "You reshaped (B, C, Q) to (B, Q, C): that mixes both, exchange the axes with .mT",
        ),
        Mistake("no offsets", no_offsets, "All your places lie at the point: add the offsets"),
        Mistake(
            "no softmax",
            not_shared,
            "You took the scores as weights: their softmax is, so that weights sum to one",
        ),
        Mistake(
            "softmax over queries",
            shared_by_queries,
            "Your softmax goes over the queries: the places of one query share its weight",
        ),
        Mistake(
            "averaged",
            averaged,
            "Your places count all the same: their weights come from the scores",
        ),
        Mistake(
            "channels first",
            channels_first,
            "Your channels come before the queries: exchange the last two axes",
        ),
    ),
)

EXERCISES = (GIOU, PAIR_COSTS, BEST_MATCHING, LOOK_AT_FEW)

QUESTIONS = {
    "the GIoU of two boxes of 2 x 2 that touch at a corner": (
        -0.5,
        "They share nothing, so the IoU is 0; of the 16 around both, 8 are empty.",
        {
            0: "That is the IoU: the box around both is half empty.",
            0.5: "That is the empty part: it is taken away.",
            -1: "That is the limit for boxes that are infinitely far apart.",
            -0.25: "Count again what of the box of 4 x 4 neither covers.",
        },
    ),
    "what greed pays for the costs 0 and 1 of one query, 1 and 8 of the other": (
        8,
        "It takes the 0, and then only the 8 is left.",
        {
            2: "That is the best choice: greed begins with the cheapest pair.",
            0: "That is its first pair: the other object needs a query, too.",
            1: "Two objects, so two costs are added.",
            9: "These are not a choice: one object would have two queries.",
        },
    ),
    "places that a query of the published Deformable DETR reads in one layer": (
        128,
        "8 heads, 4 maps, 4 points in each.",
        {
            16: "So many has one head: there are 8.",
            4: "So many has one head in one map.",
            32: "Those are the places of all heads in one map: there are 4.",
            300: "Those are the queries.",
            512: "All layers? One is asked for: 8 heads, 4 maps, 4 points.",
        },
    ),
}
