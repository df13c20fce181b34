"""Put a finished run into data/models, with its card.

python -m benchmarks.ship RUN NAME
python -m benchmarks.ship RUN NAME "CIFAR-10, JPEG copy"    if it was trained on a folder
"""

import json
import sys
from pathlib import Path

from vitcourse import data, weights
from vitcourse.data import models

PARTS = ("metrics", "recipe", "environment")
LIMIT = 6_000_000  # bytes: a clone should stay small


def ship(run, name, pictures=None):
    """Copy the weights of a run, and write down how they came to be.

    What would be too large is stored in float16; `trained` gives it back in float32. `pictures`
    says what was in a folder, whose path tells nobody anything.
    """
    run = Path(run)
    read = {part: json.loads((run / f"{part}.json").read_text()) for part in PARTS}
    origin = json.loads((run / "data.json").read_text())["name"]
    if origin not in data.NAMES and not pictures:
        raise ValueError(f"the run learned from {origin}: say in a third argument what that is")
    train = f"vitcourse train --data {origin if origin in data.NAMES else 'FOLDER'} --out RUN"
    card = {
        "data": pictures or origin,
        "command": f"{train} && python -m benchmarks.ship RUN {name}",
        "seed": read["recipe"]["seed"],
        **{part: read[part] for part in PARTS},
    }
    model, about = weights.restore(run / "model.safetensors")
    size = (run / "model.safetensors").stat().st_size
    if size > 2 * LIMIT:
        raise ValueError(
            f"{run} holds {size:,} bytes, of which half is too much: take a smaller model"
        )
    if size > LIMIT:
        model.half()
        card["stored"] = "in float16, rounded after the metrics were measured"
    about = {key: about[key] for key in about if key not in ("model", "config")}  # `save` adds them
    weights.save(model, models.path(name), overwrite=True, **about)
    (models.FOLDER / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    ship(*sys.argv[1:])
