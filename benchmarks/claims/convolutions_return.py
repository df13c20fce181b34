"""What does a ViT gain when it takes convolutions back, and by how much more if images are few?

Digits, enlarged to 12x12 pixels, in the middle of a black canvas of 16x16. Every model learns 60,
200 and 600 of them in 240 steps of 20, with the same recipe and as many parameters within 5 %. They
are tested on 360 others, in the middle as in training, and moved to eight sides by one pixel, or
by two, which none of them has seen.

The control is a plain ViT with 16 patches. CvT, CeiT and LeViT are as published but small: the CvT
has maps of 7x7, 4x4 and 2x2 places, the LeViT of 4x4 and 2x2, and the stem of the CeiT is narrow.
The BotNet is a ResNet of three bottlenecks whose last 3x3 convolution is attention over 4x4 places;
beside it stands the same ResNet with all its convolutions, a little narrower, to fit.

With 200 digits there are also four plain ViTs that take back one thing each: the MLP of CeiT, the
queries, keys and values of CvT, the stem of LeViT, or a number for each head and offset in the
scores.
"""

from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import Bottleneck

from benchmarks.claims import comparable
from vitcourse import Config, ViT, data
from vitcourse.data.augment import Augment
from vitcourse.papers.botnet import with_attention
from vitcourse.papers.ceit import CeiT, ImageToTokens, LeFF
from vitcourse.papers.cvt import ConvAttention, CvT
from vitcourse.papers.levit import LeViT, Sizes, Stem
from vitcourse.parts import RelativeAttention2D
from vitcourse.pyramid import PyramidConfig
from vitcourse.train import RECIPES, fit
from vitcourse.vit import Block, LearnedPosition, truncated_normal_

SEEDS = 3
COUNTS, ONE, MOVES = (60, 200, 600), 200, (1, 2)
SIDE, STEPS, BATCH = 16, 240, 20
SHAPE = dict(image=SIDE, channels=1, classes=10)


class NarrowStem(ImageToTokens):
    """The stem of CeiT with fewer channels."""

    width = 16


class SmallResNet(nn.Module):
    """Three bottlenecks over 8x8, 4x4 and 4x4 places: images (B, 1, 16, 16) -> logits (B, 10)."""

    def __init__(self, width, heads=0):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 2 * width, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        shrink = nn.Sequential(
            nn.Conv2d(2 * width, 4 * width, kernel_size=1, stride=2, bias=False),
            nn.BatchNorm2d(4 * width),
        )
        self.blocks = nn.Sequential(
            Bottleneck(2 * width, width // 2),
            Bottleneck(2 * width, width, stride=2, downsample=shrink),
            Bottleneck(4 * width, width),
        )
        if heads:
            with_attention(self.blocks[2], heads, grid=(4, 4))
        self.head = nn.Linear(4 * width, 10)

    def forward(self, images):
        return self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))


def plain(model=ViT, **sizes):
    """A ViT of patches of 4x4, or a variant."""
    return model(Config.of("Nano/4", **SHAPE, **sizes))


PYRAMID = PyramidConfig((20, 40, 56), (1, 2, 1), (1, 2, 4), (2, 2, 2), (4.0,) * 3, **SHAPE)
LEVIT = Sizes((40, 56), (2, 2), (3, 4), key=8, patch=4, **SHAPE)
Relative = RelativeAttention2D.on((4, 4))
SYSTEMS = {
    "ViT": plain,
    "CvT": lambda: CvT(PYRAMID),
    "CeiT": lambda: plain(CeiT.variant(Tokenizer=NarrowStem), dim=45, depth=3),
    "LeViT": lambda: LeViT(LEVIT),
    "BotNet": lambda: SmallResNet(width=54, heads=2),
    "ResNet": lambda: SmallResNet(width=50),
}
TAKEN_BACK = {
    "LeFF": lambda: plain(ViT.variant(Mlp=LeFF), mlp_ratio=3.5),
    "convolved keys": lambda: plain(ViT.variant(Attention=ConvAttention), mlp_ratio=3.7),
    "stem": lambda: plain(ViT.variant(Tokenizer=Stem), mlp_ratio=3.5),
    "relative scores": lambda: plain(ViT.variant(Attention=Relative)),
}


def begun(make, recipe):
    """A new model, with the start values of the recipe for positions and for layers of blocks."""
    torch.manual_seed(recipe.seed)
    model = make()
    for part in model.modules():
        if isinstance(part, LearnedPosition):
            truncated_normal_(part.table, std=recipe.position_std)
        for layer in part.modules() if isinstance(part, Block) else ():
            if isinstance(layer, nn.Linear):
                truncated_normal_(layer.weight, std=recipe.gain * layer.in_features**-0.5)
    return model


def canvases(count, seed):
    """So many digits to learn from, each class as often as chance has it, in the middle."""
    digits, generator = data.load("digits"), torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(digits.labels), generator=generator)[:count]
    return replace(
        digits,
        images=F.pad(larger(digits.images[chosen]), (2, 2, 2, 2)),
        labels=digits.labels[chosen],
        test_images=F.pad(larger(digits.test_images), (2, 2, 2, 2)),
    )


def larger(images):
    """Half as high and wide again: 12x12 pixels."""
    images = F.interpolate(images.float(), size=(12, 12), mode="bilinear")
    return images.round().to(torch.uint8)


@torch.no_grad()
def accuracy_when_moved(model, made, pixels):
    """The mean over eight moves, up, down, to the sides and diagonal: what comes in is black."""
    found = []
    for y, x in product((-pixels, 0, pixels), repeat=2):
        if y or x:
            images = made.normalise(made.test_images.roll((y, x), dims=(2, 3)))
            found.append((model(images).argmax(dim=1) == made.test_labels).float().mean())
    return torch.stack(found).mean().item()


def measure(seed):
    """Accuracy in the middle and moved, of each system by number of digits, and of the parts."""
    found = {}
    for count in COUNTS:
        made, epochs = canvases(count, seed), STEPS * BATCH // count
        recipe = RECIPES["smoke"].but(batch=BATCH, seed=seed, augment=Augment())
        recipe = recipe.but(epochs=epochs, evaluate_every=epochs)
        makers = SYSTEMS | (TAKEN_BACK if count == ONE else {})
        models = {name: begun(make, recipe) for name, make in makers.items()}
        comparable(*models.values())
        for name, model in models.items():
            run = fit(model, made, recipe, device="cpu", quiet=True)
            found[f"{name}, {count} digits"] = run.accuracy
            for move in MOVES:
                moved = accuracy_when_moved(run.model, made, move)
                found[f"{name}, {count} digits, moved by {move}"] = moved
        for test in ("", *(f", moved by {move}" for move in MOVES)):
            before = found[f"ViT, {count} digits{test}"]
            gains = [found[f"{name}, {count} digits{test}"] - before for name in FOUR]
            found[f"mean gain, {count} digits{test}"] = sum(gains) / len(gains)
    return found


FOUR = ("CvT", "CeiT", "LeViT", "BotNet")


def better(name, than, test):
    """A pair of figures: two models, and what both are asked."""
    return f"{name}, {test}", f"{than}, {test}"


PAIRS = {
    f"{test}: {name} better than {than}": better(name, than, test)
    for test, names, than in (
        *((f"{count} digits", FOUR, "ViT") for count in COUNTS),
        *((f"600 digits, moved by {move}", FOUR, "ViT") for move in MOVES),
        *((f"{count} digits", ["BotNet"], "ResNet") for count in COUNTS),
        (f"{ONE} digits", TAKEN_BACK, "ViT"),
    )
    for name in names
}
PAIRS |= {
    "on average, the four gain more with 60 digits than with 600": (
        "mean gain, 60 digits",
        "mean gain, 600 digits",
    ),
    "with 600, they gain more on digits moved by 1 than in the middle": (
        "mean gain, 600 digits, moved by 1",
        "mean gain, 600 digits",
    ),
}
