"""Are tokens from a small ResNet better than patches, at the same number of parameters?

Shapes of 32x32 pixels, 2000 of them, 16 tokens, 20 epochs: a ViT of 4 blocks on patches, and one of
3 blocks on the maps of a ResNet with two stages, whose numbers make up for the fourth. "Stays the
same" is the part of the test images whose answer does not change when they are moved by 1 to 4
pixels in a circle, so that a patch begins elsewhere.
"""

import torch

from benchmarks.claims import comparable
from vitcourse import ViT, data
from vitcourse.papers.hybrid import Hybrid, ResNetEmbed
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
SmallHybrid = Hybrid.variant(Tokenizer=ResNetEmbed.of(blocks=(1, 1), width=16))
MODELS = {"patches": (ViT, 4), "maps": (SmallHybrid, 3)}


def measure(seed):
    """Accuracy, and how often the answer stays the same, of both models."""
    shapes = data.load("shapes", train=2000, test=1000)
    recipe = RECIPES["smoke"].but(model="Nano/8", epochs=20, batch=64, lr=3e-3, seed=seed)
    recipe = recipe.but(augment=RECIPES["shapes"].augment, evaluate_every=20)
    models = {
        name: build_model(recipe, shapes, cls, depth=depth) for name, (cls, depth) in MODELS.items()
    }
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        run = fit(model, shapes, recipe, device="cpu", quiet=True)
        found[f"{name}, accuracy"] = run.accuracy
        found[f"{name}, stays the same"] = unmoved(run.model, shapes)
    return found


@torch.no_grad()
def unmoved(model, shapes):
    """The part of the test images whose answer is the same after a move."""
    images = shapes.normalise(shapes.test_images)
    before = model(images).argmax(dim=1)
    same = [
        (model(images.roll((pixels, pixels), dims=(2, 3))).argmax(dim=1) == before).float().mean()
        for pixels in (1, 2, 3, 4)
    ]
    return torch.stack(same).mean().item()


PAIRS = {
    "tokens from maps are more accurate than patches": ("maps, accuracy", "patches, accuracy"),
    "after a move, the answer stays more often with maps": (
        "maps, stays the same",
        "patches, stays the same",
    ),
}
