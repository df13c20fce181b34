"""Do heads that may look anywhere form the grid of a convolution, and look further in deep blocks?

Two experiments. The first: one layer with nine heads at random places imitates a random 3x3
convolution on noise; its places move, or stay where they were. The second: a ViT of four blocks
with nine heads reads digits, a token a pixel, once with quadratic positions alone, once with
learned relative positions and content. How many of the 3x3 places around the query are the one
that a head looks at most, and how far the heads of a block look on average, are measured.
"""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.claims import comparable
from vitcourse import ViT, data
from vitcourse.papers.attention_as_convolution import QuadraticAttention, QuadraticViT
from vitcourse.parts import MeanHead, NoPosition, RelativeAttention2D
from vitcourse.probe import attention_distance, record_attention
from vitcourse.train import RECIPES, build_model

SEEDS = 3
GRID = 8, 8
LEARNED = ViT.variant(
    Position=NoPosition, Head=MeanHead, Attention=RelativeAttention2D.on(GRID, prefix_len=0)
)


def measure(seed):
    """The figures of both experiments."""
    return imitate(seed) | read_digits(seed)


def imitate(seed):
    """How well nine heads do what a convolution does, and how many of its places they find."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate").requires_grad_(False)
    moving, fixed = QuadraticAttention(8, 9), QuadraticAttention(8, 9)
    fixed.load_state_dict(moving.state_dict())
    fixed.position_centre.requires_grad_(False)
    comparable(fixed, moving)
    found = {"imitation, places of a new layer": covered(moving)}
    for name, layer in {"moving": moving, "fixed": fixed}.items():
        found[f"imitation, explained, {name}"] = explained(layer, conv, seed)
    return found | {"imitation, places found": covered(moving)}


def explained(layer, conv, seed):
    """Train the layer, and return the share of the convolution's variance that it explains."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(600):
        images = torch.randn(16, 8, *GRID)
        wanted = conv(images)
        loss = F.mse_loss(layer(images.flatten(2).mT, GRID).mT, wanted.flatten(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return 1 - (loss / wanted.var()).item()


def covered(layer):
    """How many of the 3x3 places around the query are the pixel that a head looks at most."""
    centres = layer.position_centre.detach().round()
    return len({tuple(place) for place in centres.tolist() if max(map(abs, place)) <= 1})


def read_digits(seed):
    """How far the heads of each block look, and how many places those of the first one cover."""
    digits, found = data.load("digits"), {}
    recipe = RECIPES["smoke"].but(model="Nano/1", seed=seed)
    for name, cls in {"quadratic": QuadraticViT, "learned": LEARNED}.items():
        model = build_model(recipe, digits, cls, dim=36, heads=9)
        if name == "quadratic":
            found["digits, places of a new first block"] = covered(model.blocks[0].attn)
        train(model, digits)
        found[f"{name}, accuracy"] = accuracy(model, digits)
        for block, distance in enumerate(distances(model, digits), start=1):
            found[f"{name}, distance, block {block}"] = distance
        if name == "quadratic":
            found["digits, places of the first block"] = covered(model.blocks[0].attn)
    return found


def train(model, digits, steps=160, batch=64):
    """Train; positions learn ten times faster than the rest, or they would stay where they are."""
    positions = [p for name, p in model.named_parameters() if "position" in name]
    rest = [p for name, p in model.named_parameters() if "position" not in name]
    optimizer = torch.optim.AdamW([{"params": positions}, {"params": rest}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.04, 0.004], steps)
    for _ in range(steps):
        chosen = torch.randint(len(digits.images), (batch,))
        logits = model(digits.normalise(digits.images[chosen]))
        optimizer.zero_grad()
        F.cross_entropy(logits, digits.labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model, digits):
    """The share of the test images that the model gets right."""
    found = model(digits.normalise(digits.test_images)).argmax(dim=1)
    return (found == digits.test_labels).float().mean().item()


@torch.no_grad()
def distances(model, digits):
    """How far the heads of each block look, in pixels, on average over 200 test images."""
    with record_attention(model) as maps:
        model(digits.normalise(digits.test_images[:200]))
    return [attention_distance(weights, GRID).mean().item() for weights in maps]


PAIRS = {
    "heads that may move imitate the convolution better": (
        "imitation, explained, moving",
        "imitation, explained, fixed",
    ),
    "imitation brings heads to places of the kernel": (
        "imitation, places found",
        "imitation, places of a new layer",
    ),
    "training on digits brings heads to places of a 3x3 kernel": (
        "digits, places of the first block",
        "digits, places of a new first block",
    ),
    "with quadratic positions, the last block looks further than the first": (
        "quadratic, distance, block 4",
        "quadratic, distance, block 1",
    ),
    "with learned positions and content, the last block looks further than the first": (
        "learned, distance, block 4",
        "learned, distance, block 1",
    ),
}
