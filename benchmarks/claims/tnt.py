"""Does a ViT with coarse patches gain from a transformer inside each of them?

Digits, enlarged to 16 x 16 pixels and cut into four patches of 8 x 8; 4 blocks. Three models that
learn about as many numbers: a ViT; a ViT with the tokenizer of a TNT, which folds 16 pixel tokens a
patch into its token once, at the start; and a TNT, which relates the pixel tokens and folds them
again in each block. Inner and outer positions begin as the recipe says.

From all digits, each of the three is right on 98.5 % and more after 20 epochs, which leaves nothing
to compare. So they learn from 200 images, each seed from others, in 480 steps of 20 images.
"""

from benchmarks.claims import comparable
from benchmarks.claims.cct import BATCH, STEPS, few
from benchmarks.claims.t2t_vit import enlarged
from vitcourse import ViT, data
from vitcourse.papers.tnt import TNT, PixelEmbed
from vitcourse.train import RECIPES, build_model, fit
from vitcourse.vit import truncated_normal_

SEEDS = 3
IMAGES = 200


class Pixels(PixelEmbed):
    """16 pixel tokens for a patch of 8 x 8."""

    width, stride = 12, 2


class FoldedOnce(Pixels):
    """The same, of which a ViT sees the patch tokens alone."""

    def forward(self, images):
        x, _, grid = super().forward(images)
        return x, grid


MODELS = {
    "ViT": (ViT, dict(dim=40, heads=4, mlp_ratio=4.5)),
    "folded once": (ViT.variant(Tokenizer=FoldedOnce), dict(dim=40, heads=4)),
    "TNT": (TNT.variant(Tokenizer=Pixels), dict(dim=32, heads=4)),
}


def measure(seed):
    """The accuracy of each."""
    digits = enlarged(data.load("digits"))
    digits, epochs = few(digits, IMAGES, seed), STEPS * BATCH // IMAGES
    recipe = RECIPES["smoke"].but(model="Nano/8", epochs=epochs, batch=BATCH, seed=seed)
    recipe = recipe.but(evaluate_every=epochs)
    models = {n: build_model(recipe, digits, cls, **s) for n, (cls, s) in MODELS.items()}
    comparable(*models.values())
    for model in models.values():
        if isinstance(model.patch_embed, Pixels):
            truncated_normal_(model.patch_embed.position, std=recipe.position_std)
    return {
        f"{name}, accuracy": fit(model, digits, recipe, device="cpu", quiet=True).accuracy
        for name, model in models.items()
    }


PAIRS = {
    "a TNT is more accurate than a ViT": ("TNT, accuracy", "ViT, accuracy"),
    "a TNT is more accurate than a ViT with its tokenizer": (
        "TNT, accuracy",
        "folded once, accuracy",
    ),
}
