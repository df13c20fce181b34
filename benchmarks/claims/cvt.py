"""Does a ViT with CvT's convolutions need positions, and which of the two kinds stands in for them?

Digits, 16 patches, two blocks of width 96, 10 epochs. The same ViT with CvT's tokenizer (3x3
pixels, one every 2), with its convolutions before queries, keys and values, with both, or with
neither; with a learned table of positions, or with none.
"""

from benchmarks.claims import comparable
from vitcourse import ViT, data
from vitcourse.papers.cvt import ConvAttention, ConvEmbed
from vitcourse.parts import NoPosition
from vitcourse.train import RECIPES, build_model, fit

SEEDS = 3
PARTS = {
    "ViT": {},
    "CvT": dict(Tokenizer=ConvEmbed, Attention=ConvAttention),
    "only tokens": dict(Tokenizer=ConvEmbed),
    "only projections": dict(Attention=ConvAttention),
}
MODELS = {f"{name}, none": ViT.variant(**p, Position=NoPosition) for name, p in PARTS.items()}
MODELS |= {f"{name}, table": ViT.variant(**PARTS[name]) for name in ("ViT", "CvT")}


def measure(seed):
    """Accuracies, and what each model loses without the table."""
    digits = data.load("digits")
    recipe = RECIPES["smoke"].but(model="Nano/2", epochs=10, seed=seed, evaluate_every=10)
    sizes = dict(dim=96, depth=2)
    models = {name: build_model(recipe, digits, cls, **sizes) for name, cls in MODELS.items()}
    comparable(*models.values())
    found = {
        name: fit(model, digits, recipe, device="cpu", quiet=True).accuracy
        for name, model in models.items()
    }
    for name in ("ViT", "CvT"):
        found[f"{name}, change without the table"] = (
            found[f"{name}, none"] - found[f"{name}, table"]
        )
    return found


PAIRS = {
    "without the table, the ViT is less accurate": ("ViT, table", "ViT, none"),
    "without a table, the CvT is more accurate than the ViT": ("CvT, none", "ViT, none"),
    "without the table, the CvT loses less than the ViT": (
        "CvT, change without the table",
        "ViT, change without the table",
    ),
    "the CvT without a table is more accurate than the ViT with one": ("CvT, none", "ViT, table"),
    "without a table, overlapping tokens alone make the ViT more accurate": (
        "only tokens, none",
        "ViT, none",
    ),
    "without a table, convolutions before q, k and v alone make the ViT more accurate": (
        "only projections, none",
        "ViT, none",
    ),
}
