"""Right answers to the exercises of lesson 11, built in other ways."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import probe


def positions_by_loops(table, grid):
    h, w = grid
    rows = table[0][table.shape[1] - h * w :].detach()
    result = torch.zeros(h, w, h, w)
    for i in range(h * w):
        for j in range(h * w):
            one, other = rows[i], rows[j]
            cosine = (one * other).sum() / (one.norm() * other.norm())
            result[i // w, i % w, j // w, j % w] = cosine
    return result


def positions_by_torch(table, grid):
    places = table[0, -math.prod(grid) :].unflatten(0, grid)
    return F.cosine_similarity(places[:, :, None, None], places[None, None], dim=-1)


def positions_by_einsum(table, grid):
    places = table[:, table.shape[1] - grid[0] * grid[1] :].unflatten(1, grid)[0]
    places = places / places.norm(dim=-1, keepdim=True)
    return torch.einsum("hwd,yxd->hwyx", places, places)


def rollout_by_loops(maps):
    images = []
    for b in range(maps.shape[1]):
        reach = None
        for weights in maps[:, b]:
            layer = 0.5 * sum(weights) / len(weights) + 0.5 * torch.eye(maps.shape[-1])
            reach = layer if reach is None else layer.matmul(reach)
        images.append(reach)
    return torch.stack(images)


def rollout_from_the_end(maps):
    mixed = 0.5 * maps.mean(2) + 0.5 * torch.eye(maps.shape[-1])
    reach = mixed[-1]
    for layer in reversed(mixed[:-1]):
        reach = torch.bmm(reach, layer)
    return reach


def rollout_by_multi_dot(maps):
    mixed = torch.lerp(maps.mean(dim=2), torch.eye(maps.shape[-1]).expand_as(maps[:, :, 0]), 0.5)
    mixed = [*mixed.flip(0).transpose(0, 1)]  # for each image, the last layer first
    return torch.stack([torch.linalg.multi_dot([torch.eye(m.shape[-1]), *m]) for m in mixed])


def distance_by_loops(weights, grid, patch):
    h, w = grid
    first = weights.shape[-1] - h * w
    total = 0
    for i in range(h * w):
        row = weights[:, :, first + i, first:]
        away = [math.dist((i // w, i % w), (j // w, j % w)) * patch for j in range(h * w)]
        total = total + (row * torch.tensor(away)).sum(-1) / row.sum(-1)
    return total / (h * w)


def distance_by_einsum(weights, grid, patch):
    h, w = grid
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    y, x = y.flatten(), x.flatten()
    apart = torch.hypot((y[:, None] - y).float(), (x[:, None] - x).float())
    among = F.normalize(weights[:, :, -h * w :, -h * w :], p=1, dim=-1)
    return patch * torch.einsum("bkij,ij->bk", among, apart) / (h * w)


def similarity_by_loops(x):
    T, values = x.shape[1], []
    for image in x:
        pairs = [F.cosine_similarity(image[i], image[j], dim=0) for i in range(T) for j in range(i)]
        values.append(sum(pairs) / len(pairs))
    return torch.stack(values)


def similarity_by_sum(x):
    x, T = x / x.norm(dim=2, keepdim=True), x.shape[1]
    return (x.sum(1).square().sum(1) - T) / (T * (T - 1))


def similarity_by_mask(x):
    T = x.shape[1]
    pairs = nn.CosineSimilarity(dim=-1)(x[:, :, None], x[:, None])
    return pairs[:, ~torch.eye(T, dtype=torch.bool)].mean(dim=1)


RIGHT = {
    "position_similarity": [positions_by_loops, positions_by_torch, positions_by_einsum],
    "rollout": [rollout_by_loops, rollout_from_the_end, rollout_by_multi_dot],
    "attention_distance": [distance_by_loops, distance_by_einsum],
    "token_similarity": [similarity_by_loops, similarity_by_sum, similarity_by_mask],
}

SOURCES = {
    "position_similarity": """
        def answer(table, grid):
            h, w = grid
            rows = table[0, -h * w:]
            rows = rows / rows.norm(2, 1, True)
            alike = torch.matmul(rows, rows.T)
            return alike.reshape(h, w, h, w)
        """,
    "rollout": """
        def answer(maps):
            T = maps.shape[-1]
            reach = torch.eye(T)
            for weights in maps:
                layer = weights.mean(1)
                layer = (layer + torch.eye(T)) / 2
                reach = torch.matmul(layer, reach)
            return reach
        """,
    "attention_distance": """
        def answer(weights, grid, patch):
            h, w = grid
            rows = torch.arange(float(h))
            columns = torch.arange(float(w))
            places = torch.cartesian_prod(rows, columns)
            apart = torch.cdist(places, places) * patch
            among = weights[..., -h * w:, -h * w:]
            among = among / among.sum(-1, keepdim=True)
            far = (among * apart).sum(-1)
            return far.mean(-1)
        """,
    "token_similarity": """
        def answer(x):
            T = x.shape[1]
            x = x / x.norm(2, 2, True)
            pairs = torch.matmul(x, x.permute(0, 2, 1))
            total = pairs.sum((1, 2)) - T
            return total / (T * (T - 1))
        """,
}

EQUIVALENT = {
    (
        "position_similarity",
        "rows = table[0, -h * w:] -> rows = table[-1, -h * w:]",
    ): "the first axis of a table has the length 1, so its first entry is its last",
    (
        "rollout",
        "T = maps.shape[-1] -> T = maps.shape[-2]",
    ): "a map is square: as many queries as keys",
    (
        "attention_distance",
        "far = (among * apart).sum(-1) -> far = (among * apart).sum(-2)",
    ): "all products are added up and divided by N, whichever axis goes first",
    (
        "token_similarity",
        "total = pairs.sum((1, 2)) - T -> total = pairs.sum((2, 1)) - T",
    ): "a sum over two axes does not depend on their order",
}


def truth():
    """What the questions ask, computed."""
    everywhere = torch.full((1, 1, 64, 64), 1 / 64)
    own = probe.rollout([torch.eye(5).roll(1, 0)[None, None] for _ in range(4)])
    return {
        "what rollout leaves": own[0, 0, 0].item(),
        "distance in whole pixels": round(probe.attention_distance(everywhere, (8, 8), 4).item()),
    }
