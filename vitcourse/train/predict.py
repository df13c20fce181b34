"""Classify one picture with a trained model, and show where the model looks."""

from pathlib import Path

import torch
from torchvision.transforms import functional as T

from vitcourse.data.folder import open_picture
from vitcourse.probe import record_attention, rollout
from vitcourse.show.pictures import attention_overlay


def read_picture(path, channels, size):
    """A picture file as floats in 0..1, of the model's size: (C, H, W)."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        picture = open_picture(path, max(size), channels)
    except Exception as error:  # a damaged picture can raise anything
        raise ValueError(f"{path} is no picture that can be read: {error}") from None
    height, width = size
    scale = max(height / picture.height, width / picture.width)
    fitted = (max(round(picture.height * scale), height), max(round(picture.width * scale), width))
    picture = T.center_crop(T.resize(picture, fitted, T.InterpolationMode.BICUBIC), (height, width))
    return T.to_tensor(picture)


@torch.no_grad()
def predict_file(model, about, path, top=3):
    """The likeliest classes of a picture, [(name, chance), ...], and a Figure of the attention."""
    cfg = model.cfg
    image = read_picture(path, cfg.channels, cfg.image)
    mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
    with record_attention(model) as maps:
        chances = model(((image - mean) / std)[None]).softmax(dim=-1)[0]
    best = chances.topk(min(top, len(chances)))
    names = [about["classes"][i] for i in best.indices.tolist()]
    heat = rollout(maps)[0, 0, -cfg.grid[0] * cfg.grid[1] :].reshape(cfg.grid)
    title = f"{names[0]} ({best.values[0].item():.0%})"
    pairs = list(zip(names, best.values.tolist(), strict=True))
    return pairs, attention_overlay(image, heat, title)
