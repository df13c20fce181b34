"""Put a finished run into data/models, with its card: `python -m benchmarks.ship RUN NAME`."""

import json
import shutil
import sys
from pathlib import Path

from vitcourse.data import models


def ship(run, name):
    """Copy the weights of a run, and write down how they came to be."""
    run = Path(run)
    read = {part: json.loads((run / f"{part}.json").read_text()) for part in PARTS}
    origin = json.loads((run / "data.json").read_text())["name"]
    train = f"vitcourse train --data {origin} --out RUN"
    card = {
        "data": origin,
        "command": f"{train} && python -m benchmarks.ship RUN {name}",
        "seed": read["recipe"]["seed"],
        **{part: read[part] for part in PARTS},
    }
    models.FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "model.safetensors", models.path(name))
    (models.FOLDER / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n")


PARTS = ("metrics", "recipe", "environment")

if __name__ == "__main__":
    ship(*sys.argv[1:])
