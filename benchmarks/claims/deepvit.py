"""Does mixing the heads' maps keep the maps of a deep ViT apart, and does that help it?

Digits, 16 patches, 12 narrow blocks, 12 epochs: the same ViT with plain attention and with
re-attention. How alike two maps are is their cosine, without what all of them share, over all
test images; the figure is the mean over neighbouring blocks, head by head.
"""

import torch
import torch.nn.functional as F

from benchmarks.claims import comparable
from vitcourse import ViT, data
from vitcourse.papers.deepvit import DeepViT
from vitcourse.probe import record_attention
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
MODELS = {"plain": ViT, "re-attention": DeepViT}


def measure(seed):
    """Accuracy, and how unlike the maps of neighbouring blocks are, of both models."""
    digits = data.load("digits")
    recipe = RECIPES["smoke"].but(model="Nano/2", epochs=12, seed=seed, evaluate_every=12)
    models = {n: build_model(recipe, digits, cls, dim=24, depth=12) for n, cls in MODELS.items()}
    comparable(*models.values())
    found = {}
    for name, model in models.items():
        run = fit(model, digits, recipe, device="cpu", quiet=True)
        found[f"{name}, accuracy"] = run.accuracy
        found[f"{name}, maps unlike"] = 1 - alike(run.model, digits)
    return found


@torch.no_grad()
def alike(model, digits):
    """The mean cosine of the maps of neighbouring blocks."""
    with record_attention(model) as maps:
        model(digits.normalise(digits.test_images))
    maps = [weights - weights.mean(dim=-1, keepdim=True) for weights in maps]  # (B, K, T, T)
    cosines = [
        F.cosine_similarity(one.flatten(2), two.flatten(2), dim=-1).mean()
        for one, two in zip(maps, maps[1:], strict=False)
    ]
    return torch.stack(cosines).mean().item()


PAIRS = {
    "re-attention is more accurate": ("re-attention, accuracy", "plain, accuracy"),
    "with re-attention, neighbouring blocks have less like maps": (
        "re-attention, maps unlike",
        "plain, maps unlike",
    ),
}
