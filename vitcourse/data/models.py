"""The small trained models that come with the course, in data/models."""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "data" / "models"


def names():
    """The names of the models that are there."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def path(name):
    """Where the weights of that name lie, or would lie."""
    return FOLDER / f"{name}.safetensors"


def card(name):
    """How that model came to be: data, recipe, seed, environment, metrics, command."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def trained(name):
    """A trained ViT by its name, in evaluation mode: `trained("digits")`."""
    from vitcourse import weights

    if name not in names():
        raise ValueError(f"there is no trained model {name!r}: choose from {', '.join(names())}")
    model, about = weights.restore(path(name))
    model.class_names = about["classes"]
    return model
