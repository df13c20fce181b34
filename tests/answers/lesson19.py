"""Right answers to the exercises of lesson 19, and the truth about its questions."""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torchvision.ops import generalized_box_iou, generalized_box_iou_loss

from benchmarks.claims.detr import greed
from vitcourse import papers
from vitcourse.papers.detr import corners
from vitcourse.probe import record_attention

# giou ---------------------------------------------------------------------------------------------


def giou_by_the_loss(boxes, others):
    """The loss of torchvision is one less it, for pairs that are given."""
    n, m = len(boxes), len(others)
    a = boxes[:, None].expand(n, m, 4).reshape(-1, 4)
    b = others[None].expand(n, m, 4).reshape(-1, 4)
    return 1 - generalized_box_iou_loss(a, b, eps=0).view(n, m)


def giou_by_loops(boxes, others):
    """Pair by pair; hull = union where nothing is empty."""
    rows = []
    for a in boxes:
        row = []
        for b in others:
            sides = [torch.minimum(a[2 + i], b[2 + i]) - torch.maximum(a[i], b[i]) for i in (0, 1)]
            around = [torch.maximum(a[2 + i], b[2 + i]) - torch.minimum(a[i], b[i]) for i in (0, 1)]
            common = F.relu(sides[0]) * F.relu(sides[1])
            both = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - common
            row.append(common / both - 1 + both / (around[0] * around[1]))
        rows.append(torch.stack(row))
    return torch.stack(rows)


# pair_costs ---------------------------------------------------------------------------------------


def costs_by_objects(logits, boxes, labels, wanted):
    columns = []
    for label, box in zip(labels, wanted, strict=True):
        likely = logits[:, label].exp() / logits.exp().sum(dim=1)
        apart = (boxes - box).abs().sum(dim=1)
        overlap = generalized_box_iou(corners(boxes), corners(box[None]))[:, 0]
        columns.append(5 * apart - likely - 2 * overlap)
    return torch.stack(columns, dim=1)


def costs_by_gather(logits, boxes, labels, wanted):
    p = F.softmax(logits, 1).gather(1, labels.expand(len(boxes), -1))
    half = torch.cat([torch.eye(2), torch.eye(2), -0.5 * torch.eye(2), 0.5 * torch.eye(2)])
    to = half.view(2, 2, 2, 2).permute(1, 3, 0, 2).reshape(4, 4).T.to(boxes)
    apart = F.l1_loss(
        boxes[:, None].expand(-1, len(wanted), -1),
        wanted.expand(len(boxes), -1, -1),
        reduction="none",
    )
    return apart.sum(-1) * 5 - p - 2 * generalized_box_iou(boxes @ to, wanted @ to)


# best_matching ------------------------------------------------------------------------------------


def matching_of_the_turned(cost):
    """SciPy, of objects and queries: the rows are objects, in order."""
    who = torch.zeros_like(cost)
    objects, queries = linear_sum_assignment(cost.detach().mT)
    who[queries, objects] = 1.0
    return who


def matching_by_recursion(cost):
    """The best for the first object and each query, with the best of the rest."""

    def best(left, object):
        if object == cost.shape[1]:
            return 0.0, []
        found = []
        for q in left:
            rest, queries = best([other for other in left if other != q], object + 1)
            found.append((cost[q, object].item() + rest, [q, *queries]))
        return min(found)

    queries = best(list(range(cost.shape[0])), 0)[1]
    return torch.stack([torch.eye(cost.shape[0])[q] for q in queries], dim=1)


# look_at_few --------------------------------------------------------------------------------------


def look_by_four_pixels(map, points, offsets, scores):
    """The four pixels around each place, by the area opposite."""
    (B, C, h, w), (Q, P) = map.shape, scores.shape[1:]
    padded = F.pad(map, (1, 1, 1, 1)).flatten(2)  # (B, C, (h+2)*(w+2))
    x = points[..., :1] * w + offsets[..., 0] - 0.5 + 1  # (B, Q, P), in pixels of the padded map
    y = points[..., 1:] * h + offsets[..., 1] - 0.5 + 1
    total = 0
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = x.detach().floor() + dx, y.detach().floor() + dy
            part = (1 - (x - column).abs()) * (1 - (y - row).abs())  # (B, Q, P)
            inside = (column >= 0) & (column <= w + 1) & (row >= 0) & (row <= h + 1)
            place = (row.clamp(0, h + 1) * (w + 2) + column.clamp(0, w + 1)).long()
            read = padded.gather(2, place.flatten(1)[:, None].expand(-1, C, -1))
            total = total + read.view(B, C, Q, P) * (part * inside)[:, None]
    return torch.einsum("bcqp,bqp->bqc", total, scores.softmax(-1))


def look_by_tents(map, points, offsets, scores):
    """Each place as a weight for every row and every column."""
    h, w = map.shape[2:]
    x = points[:, :, None, 0] * w + offsets[..., 0]  # (B, Q, P)
    y = points[:, :, None, 1] * h + offsets[..., 1]
    columns = F.relu(1 - (x[..., None] - torch.arange(w) - 0.5).abs())  # (B, Q, P, w)
    rows = F.relu(1 - (y[..., None] - torch.arange(h) - 0.5).abs())  # (B, Q, P, h)
    return torch.einsum("bchw,bqph,bqpw,bqp->bqc", map, rows, columns, scores.softmax(dim=2))


RIGHT = {
    "giou": [giou_by_the_loss, giou_by_loops],
    "pair_costs": [costs_by_objects, costs_by_gather],
    "best_matching": [matching_of_the_turned, matching_by_recursion],
    "look_at_few": [look_by_four_pixels, look_by_tents],
}

SOURCES = {
    "giou": """
def answer(boxes, others):
    a = boxes[:, None]
    wide = a[..., 2].minimum(others[:, 2]) - a[..., 0].maximum(others[:, 0])
    high = a[..., 3].minimum(others[:, 3]) - a[..., 1].maximum(others[:, 1])
    common = wide.clamp(0) * high.clamp(0)
    wide = a[..., 2].maximum(others[:, 2]) - a[..., 0].minimum(others[:, 0])
    high = a[..., 3].maximum(others[:, 3]) - a[..., 1].minimum(others[:, 1])
    hull = wide * high
    size = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    others_size = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = size + others_size - common
    return common / union - (hull - union) / hull
""",
    "pair_costs": """
def answer(logits, boxes, labels, wanted):
    from torchvision.ops import generalized_box_iou
    from vitcourse.papers.detr import corners
    p = logits.softmax(1)
    p = p[:, labels]
    apart = torch.cdist(boxes, wanted, 1)
    overlap = generalized_box_iou(corners(boxes), corners(wanted))
    return 5 * apart - p - 2 * overlap
""",
    "best_matching": """
def answer(cost):
    from itertools import permutations
    Q, n = cost.shape
    orders = torch.tensor(list(permutations(range(Q), n)))
    total = cost[orders, torch.arange(n)]
    total = total.sum(1)
    who = torch.zeros_like(cost)
    who[orders[total.argmin()], torch.arange(n)] = 1.0
    return who
""",
    "look_at_few": """
def answer(map, points, offsets, scores):
    h, w = map.shape[2:]
    sides = torch.tensor([w, h])
    places = points[:, :, None] + offsets / sides
    places = 2 * places - 1
    read = F.grid_sample(map, places, align_corners=False)
    weights = scores.softmax(2)
    read = read * weights[:, None]
    read = read.sum(3)
    return read.mT
""",
}

EQUIVALENT = {}


def giou_at_a_corner():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 4.0, 4.0]])
    return generalized_box_iou(boxes[:1], boxes[1:]).item()


def greed_pays():
    cost = torch.tensor([[0.0, 1.0], [1.0, 8.0]])
    queries, objects = greed(cost)
    return int(cost[queries, objects].sum())


def places_read():
    """The recorded weights of a layer, for one query."""
    with torch.device("meta"):
        model, image = papers.build("deformable_detr_r50"), torch.empty(1, 3, 256, 256)
    with record_attention(model.decoder[0].cross_attn) as maps:
        model(image)
    _, K, _, A = maps[0].shape
    return K * A


def truth():
    return {
        "the GIoU of": giou_at_a_corner(),
        "what greed pays": greed_pays(),
        "places that a query": places_read(),
    }
