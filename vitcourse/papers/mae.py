"""MAE, faithful to the published model: see a quarter of an image, tell the pixels of the rest.

Masked Autoencoders Are Scalable Vision Learners, He et al. 2021, https://arxiv.org/abs/2111.06377

The question: can a ViT learn from images without labels, by filling gaps, as language models do?
Two things are different in an image. Pixels repeat each other, so few gaps can be filled by copying
what stands beside them: three quarters are hidden. And a hidden patch says nothing, so the encoder
need not read it. The changes:

    encoder     reads the class token and the patches that are seen: a quarter of the work, and no
                mask tokens
    decoder     a small ViT in place of the head: all patches in their places, a learned mask token
                for each that is hidden, positions of its own. It goes after pre-training
    loss        squared error of the pixels of hidden patches, each patch normalised by itself
    positions   fixed waves, not learned, for encoder and decoder: two tables, kept in the files

The waves of the column stand before those of the row: a mistake in the authors' code on which all
published weights rely. A patch is normalised with the unbiased variance, plus 1e-6.

Shapes as in vit.py, and n patches that are seen, V = P*P*C values of a patch, E decoder's width.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import weights
from vitcourse.config import Config, grid_of
from vitcourse.papers import Paper, Published
from vitcourse.vit import (
    Attention,
    Block,
    LayerNorm,
    Mlp,
    ViT,
    patchify,
    truncated_normal_,
    unpatchify,
)
from vitcourse.weights import from_timm, from_transformers, rename


class Waves(nn.Module):
    """Add fixed waves of D/4 frequencies: x (B, T, D), grid -> x. Prefix tokens get zeros."""

    def __init__(self, dim, grid, prefix_len):
        super().__init__()
        self.grid, self.prefix_len = grid, prefix_len
        self.register_buffer("table", waves(dim, grid, prefix_len))

    def forward(self, x, grid):
        table = self.table
        if grid != self.grid:
            table = waves(x.shape[-1], grid, self.prefix_len).to(table)
        return x + table


def waves(dim, grid, prefix_len=0):
    """Sin and cos of the column, then sin and cos of the row: the table (1, R+N, D)."""
    if dim % 4:
        raise ValueError(f"dim is {dim}: waves for columns and rows need a multiple of 4")
    h, w = grid
    y = torch.arange(h).repeat_interleave(w)  # (N,)
    x = torch.arange(w).repeat(h)  # (N,)
    frequency = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    x, y = x[:, None] * frequency, y[:, None] * frequency
    places = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)  # (N, D)
    return F.pad(places, (0, 0, prefix_len, 0))[None].to(torch.get_default_dtype())


def take(x, which):
    """Some of the tokens of each image, in the order asked for: x (B, N, D), which (B, n)."""
    return x.take_along_dim(which[..., None], dim=1)  # (B, n, D)


class Decoder(nn.Module):
    """Tell the values of all patches: x (B, 1+n, D), grid, order (B, N) -> (B, N, V).

    `order` names the patches that were seen, as they come in x, and behind them the hidden ones.
    """

    prefix_len = 1
    dim, depth, heads = 512, 8, 16

    def __init__(self, cfg):
        super().__init__()
        self.embed = nn.Linear(cfg.dim, self.dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, self.dim))
        self.position = Waves(self.dim, cfg.grid, self.prefix_len)
        hidden = int(self.dim * cfg.mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(self.dim, Attention(self.dim, self.heads), Mlp(self.dim, hidden))
            for _ in range(self.depth)
        )
        self.norm = LayerNorm(self.dim)
        self.pixels = nn.Linear(self.dim, cfg.patch**2 * cfg.channels)
        truncated_normal_(self.mask_token)

    def forward(self, x, grid, order):
        x = self.embed(x)
        token, seen = x[:, :1], x[:, 1:]
        gaps = order.shape[1] - seen.shape[1]
        hidden = self.mask_token.expand(len(x), gaps, -1)
        back = order.argsort(dim=1)  # (B, N), where each patch stands in `order`
        patches = take(torch.cat([seen, hidden], dim=1), back)  # (B, N, E)
        x = self.position(torch.cat([token, patches], dim=1), grid)  # (B, T, E)
        for block in self.blocks:
            x = block(x, grid)  # (B, T, E)
        return self.pixels(self.norm(x))[:, 1:]


def official(state, model):
    """The names of the authors' files."""
    names = {
        "mask_token": "mask_token",
        "decoder_pos_embed": "position.table",
        "decoder_embed": "embed",
        "decoder_blocks": "blocks",
        "decoder_norm": "norm",
        "decoder_pred": "pixels",
    }
    rules = [(rf"^{theirs}\b", f"head.{ours}") for theirs, ours in names.items()]
    return from_timm(rename(rules)(state, model), model)


def of_transformers(state, model):
    """The names of transformers, whose decoder's layers are called like the encoder's."""
    encoder, decoder = {}, {}
    for name, tensor in state.items():
        if name.startswith("decoder."):
            decoder[name.removeprefix("decoder.").replace("decoder_layers.", "layers.")] = tensor
        else:
            encoder[name] = tensor
    decoder = from_transformers(decoder, model)
    decoder = rename([(r"^blocks\.", "decoder_blocks.")])(decoder, model)
    return official(from_transformers(encoder, model) | decoder, model)


def authors_start(module):
    """The authors begin all matrices with uniform numbers as wide as inputs and outputs ask for."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight.data.flatten(1))


class MAE(ViT):
    """A ViT that sees a part of an image and tells the pixels of all of it.

    images (B, C, H, W), noise (B, N) -> the values of each patch (B, N, V). The patches with the
    smallest noise are seen, the part `masked` of them is hidden. Without noise, all are seen.
    """

    Position, Head = Waves, Decoder
    masked = 0.75
    normalised = True  # each patch of the target by its own mean and deviation
    layouts = {
        "transformers": ("decoder.mask_token", of_transformers),
        "official": ("mask_token", official),
    }

    def __init__(self, cfg):
        super().__init__(cfg)
        self.apply(authors_start)

    def choose(self, images, noise=None):
        """The numbers of the patches: all in the order of their noise (B, N), those seen (B, n)."""
        h, w = grid_of(images.shape[-2:], self.cfg.patch)
        if noise is None:
            order = torch.arange(h * w, device=images.device).expand(len(images), -1)  # (B, N)
            return order, order
        order = noise.argsort(dim=1)  # (B, N)
        return order, order[:, : int(h * w * (1 - self.masked))]

    def encode(self, images, seen=None):
        """Images (B, C, H, W), the patches seen (B, n) -> x (B, 1+n, D), grid of all patches."""
        x, grid = self.patch_embed(images)
        prefix = self.prefix.expand(len(x), -1, -1)  # (B, R, D)
        x = torch.cat([prefix, x], dim=1)  # (B, T, D)
        x = self.drop(self.position(x, grid))  # (B, T, D)
        if seen is not None:
            x = torch.cat([x[:, :1], take(x[:, 1:], seen)], dim=1)
        for block in self.blocks:
            x = block(x, grid)
        return self.norm(x), grid

    def forward(self, images, noise=None):
        order, seen = self.choose(images, noise)
        x, grid = self.encode(images, seen)
        return self.head(x, grid, order)  # (B, N, V)


# The loss, and what `fit` is given ---------------------------------------------------------------


def draw(model, images, generator=None):
    """New noise for each patch of each image: (B, N), drawn on the CPU."""
    h, w = grid_of(images.shape[-2:], model.cfg.patch)
    return torch.rand(len(images), h * w, generator=generator).to(images.device)


def hidden(model, images, noise):
    """Which patches are hidden: (B, N), true or false."""
    order, seen = model.choose(images, noise)
    return torch.ones_like(order, dtype=torch.bool).scatter(1, seen, False)  # (B, N)


def normalise(patches):
    """Each patch with mean 0 and deviation 1, and these two: (B, N, V) -> three tensors."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)  # each (B, N, 1)
    deviation = (variance + 1e-6).sqrt()  # (B, N, 1)
    return (patches - mean) / deviation, mean, deviation


def loss(model, images, noise):
    """The mean squared error of the pixels of all hidden patches: a scalar."""
    target = patchify(images, model.cfg.patch)  # (B, N, V)
    if model.normalised:
        target = normalise(target)[0]  # (B, N, V)
    error = (model(images, noise) - target).square().mean(dim=-1)  # (B, N)
    gaps = hidden(model, images, noise)  # (B, N)
    return (error * gaps).sum() / gaps.sum()


def step(model, batch):
    """A step for `fit(model, data, recipe, step=step, score=score)`: new noise, then the loss."""
    return loss(model, batch.images, draw(model, batch.images))


def score(model, data):
    """The loss on the test images, with the same noise each time: {"error": number}."""
    images = data.normalise(data.test_images).to(model.prefix.device)
    noise = draw(model, images, torch.Generator().manual_seed(0))
    return {"error": loss(model, images, noise).item()}


@torch.no_grad()
def pictures(model, images, noise):
    """What is seen, the rest being 0, and the same with the model's answer in the gaps.

    Two of (B, C, H, W). A model of normalised patches does not know the mean and deviation of a
    patch: its answer gets the true ones.
    """
    true, answer = patchify(images, model.cfg.patch), model(images, noise)  # (B, N, V)
    if model.normalised:
        _, mean, deviation = normalise(true)
        answer = answer * deviation + mean  # (B, N, V)
    gaps = hidden(model, images, noise)[..., None]  # (B, N, 1)
    grid = grid_of(images.shape[-2:], model.cfg.patch)
    fillings = torch.zeros_like(true), answer
    return [unpatchify(true.where(~gaps, x), grid, model.cfg.patch) for x in fillings]


# After pre-training -------------------------------------------------------------------------------


def as_vit(model, classes, cls=ViT):
    """The pre-trained encoder as a ViT for labels, its head new: to fine-tune or to probe.

    What was the head is left out. The positions become parameters that begin as the fixed waves, as
    in the authors' code. They fine-tune with the mean of the patches, normed afterwards. Nearest
    to it is `cls` = `ViT.variant(Head=MeanHead, registers=1)`, which norms first: the class token
    stays, unread.
    """
    vit = cls(replace(model.cfg, classes=classes))
    state, wanted = model.state_dict(), vit.state_dict()
    names = [n for n in state if n in wanted and not n.startswith("head.")]
    weights.load(vit, {name: state[name] for name in names})
    return vit


PAPER = Paper(
    name="MAE",
    title="Masked Autoencoders Are Scalable Vision Learners",
    authors="He et al.",
    year=2021,
    arxiv="2111.06377",
    lesson="18",
    models=(MAE,),
    configs={"mae_b_16": Published(MAE, Config.of("B/16"))},
)
