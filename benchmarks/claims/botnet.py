"""Two marks, far apart: are they the same? Can a c5 of convolutions tell, and one of attention?

Strips of 8x24 pixels with two marks of 4x4, each a cross or a ring, 4 to 20 pixels apart; 2000 to
train on, 2000 to test on, 20 epochs. A convolution makes a map of 4x12 places, two bottlenecks
follow, then the mean over all places and a Linear. Their 3x3 layers are convolutions or attention;
those of attention are wider, so that all learn about as many numbers. With convolutions, no place
of the last map sees both marks where they are 16 pixels or more apart. Then the mean adds up what
each mark says by itself, and a sum is right at most three times in four: a cross and a ring lie
between two crosses and two rings.
"""

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from benchmarks.claims import comparable
from vitcourse.data import Data
from vitcourse.data.augment import Augment
from vitcourse.papers.botnet import with_attention
from vitcourse.train import RECIPES, fit

SEEDS = 3
CROSS = [[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
RING = [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]
APART = range(4, 24, 4)
MODELS = {"convolutions": (21, False), "attention": (32, True)}


def strips(count, seed):
    """Images uint8 (count, 1, 8, 24), 1 where both marks are alike, and how far apart they are."""
    generator = torch.Generator().manual_seed(seed)

    def dice(sides):
        return (torch.rand(count, generator=generator) * sides).long()

    images, marks = torch.zeros(count, 1, 8, 24), torch.tensor([CROSS, RING])
    apart = 4 * (1 + dice(len(APART)))
    left, kinds = dice(21 - apart), (dice(2), dice(2))
    for kind, start in zip(kinds, (left, left + apart), strict=True):
        for image, mark, y, x in zip(images, marks[kind], dice(5), start, strict=True):
            image[0, y : y + 4, x : x + 4] = mark
    return (255 * images).byte(), (kinds[0] == kinds[1]).long(), apart


def network(width, attention, dim=32):
    """Two bottlenecks of that width, behind a stem that halves the sides."""
    blocks = [Bottleneck(dim, dim // 4, base_width=8 * width) for _ in range(2)]
    if attention:
        blocks = [with_attention(block, heads=4, grid=(4, 12)) for block in blocks]
    stem = nn.Conv2d(1, dim, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(dim), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, 2))


def measure(seed):
    """Accuracies by model and by how far apart the marks are."""
    train, test = strips(2000, 2 * seed), strips(2000, 2 * seed + 1)
    marks = Data("marks", *train[:2], *test[:2], ("different", "same"))
    recipe = RECIPES["smoke"].but(epochs=20, batch=32, lr=3e-3, seed=seed, evaluate_every=20)
    recipe, models, found = recipe.but(augment=Augment()), {}, {}
    for name, options in MODELS.items():
        torch.manual_seed(seed)
        models[name] = network(*options)
    comparable(*models.values())
    for name, model in models.items():
        fit(model, marks, recipe, device="cpu", quiet=True)
        with torch.no_grad():
            right = (model(marks.normalise(test[0])).argmax(dim=1) == test[1]).double()
        for apart in APART:
            found[f"{name}, {apart} pixels apart"] = right[test[2] == apart].mean().item()
        found[f"{name}, in view"] = right[test[2] <= 8].mean().item()
        found[f"{name}, out of view"] = right[test[2] >= 16].mean().item()
    return found


PAIRS = {
    **{
        f"{apart} pixels apart: attention is more accurate": (
            f"attention, {apart} pixels apart",
            f"convolutions, {apart} pixels apart",
        )
        for apart in APART
    },
    "convolutions lose where no place sees both marks": (
        "convolutions, in view",
        "convolutions, out of view",
    ),
}
CLAIMS = {
    "where a place sees both marks, both networks are right nine times in ten": lambda means: (
        min(means[f"{name}, in view"] for name in MODELS) > 0.9
    ),
    "where none does, convolutions stay below 80 %": lambda means: (
        means["convolutions, out of view"] < 0.8
    ),
}
