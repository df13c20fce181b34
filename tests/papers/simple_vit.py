"""SimpleViT: beside vit-pytorch and timm, and what must follow from its positions and its mean."""

from unittest import mock

import timm
import torch
import vit_pytorch.simple_vit as theirs
from einops import rearrange
from torch import nn

from tests.proofs import equal, images, randomise, same_as
from vitcourse import parts
from vitcourse.config import Config
from vitcourse.papers.simple_vit import SimpleViT
from vitcourse.parts import MeanHead, SinCosPosition, sincos
from vitcourse.vit import Attention, PatchEmbed, ViT, patchify
from vitcourse.weights import rename

SIZES = Config(dim=40, depth=3, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
MODELS = {"simple_vit": lambda: (SimpleViT(SIZES), torch.randn(2, 3, 18, 30))}
OTHER_SIZES = {"simple_vit": (24, 12)}
COUNTS = {"simple_vit_s_16": 21_974_632}


class NormedPatches(nn.Module):
    """The tokenizer of vit-pytorch: a norm before and a norm after the projection."""

    def __init__(self, channels, dim, patch):
        super().__init__()
        self.patch, pixels = patch, channels * patch**2
        self.layers = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, dim), nn.LayerNorm(dim))

    def forward(self, images):
        grid = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        return self.layers(patchify(images, self.patch)), grid


class NoBias(Attention):
    """The attention of vit-pytorch: no biases."""

    def build(self, dim):
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)


class LikeVitPytorch(SimpleViT):
    """SimpleViT with the tokenizer, the attention and the eps of vit-pytorch."""

    Tokenizer, Attention = NormedPatches, NoBias
    layer = r"^transformer\.layers\.(\d+)\."
    rules = [
        (r"^to_patch_embedding\.([123])\.", lambda m: f"patch_embed.layers.{int(m[1]) - 1}."),
        (layer + r"0\.norm\.", r"blocks.\1.norm1."),
        (layer + r"0\.to_qkv\.", r"blocks.\1.attn.qkv."),
        (layer + r"0\.to_out\.", r"blocks.\1.attn.proj."),
        (layer + r"1\.net\.0\.", r"blocks.\1.norm2."),
        (layer + r"1\.net\.1\.", r"blocks.\1.mlp.fc1."),
        (layer + r"1\.net\.3\.", r"blocks.\1.mlp.fc2."),
        (r"^transformer\.norm\.", "norm."),
        (r"^linear_head\.", "head."),
    ]
    layouts = {"vit-pytorch": ("linear_head.weight", rename(rules))}

    def __init__(self, cfg):
        super().__init__(cfg)
        for layer in self.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = 1e-5


def bare(model):
    """The same model, its empty prefix no parameter: oracles have none."""
    del model.prefix
    model.prefix = torch.empty(1, 0, SIZES.dim)
    return model


def same_as_vit_pytorch():
    """The whole model; theirs adds the waves to the tokens in place."""
    sizes = dict(image_size=(18, 30), patch_size=6, num_classes=7)
    oracle = theirs.SimpleViT(**sizes, dim=40, depth=3, heads=5, dim_head=8, mlp_dim=80)
    ours = bare(LikeVitPytorch(SIZES))
    stages = (ours.position, ours.norm), (oracle.to_patch_embedding, oracle.transformer)
    same_as(oracle, ours, images(2, 3, 18, 30), stages)


def timm_with_waves():
    """timm's ViT without class token, and vit-pytorch's waves, added to its patches."""
    sizes = dict(img_size=(18, 30), patch_size=6, embed_dim=40, depth=3, num_heads=5, mlp_ratio=2)
    rest = dict(num_classes=7, class_token=False, global_pool="avg", fc_norm=False)
    oracle = timm.create_model("vit_tiny_patch16_224", **sizes, **rest, pos_embed="none")
    waves = theirs.posemb_sincos_2d(3, 5, 40)
    oracle.patch_embed.register_forward_hook(lambda *a: a[-1] + waves.to(a[-1]))
    return oracle


def same_as_timm():
    """With biases and with the eps that published models have."""
    oracle, ours = timm_with_waves(), bare(SimpleViT(SIZES))
    stages = (*ours.blocks, ours.norm), (*oracle.blocks, oracle.norm)
    same_as(oracle, ours, images(2, 3, 18, 30), stages)


def it_is_a_vit_whose_table_holds_waves():
    """Learned positions that have learned the waves, written here one number at a time."""
    model, plain = randomise(SimpleViT(SIZES)).double(), ViT.variant(Head=MeanHead)(SIZES)
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for y in range(3):
            for x in range(5):
                for i in range(10):
                    angle = torch.tensor([x, x, y, y]) / 10000.0 ** (i / 9)
                    wave = [angle[0].sin(), angle[1].cos(), angle[2].sin(), angle[3].cos()]
                    plain.position.table[0, 5 * y + x, i::10] = torch.stack(wave)
    x = images(2, 3, 18, 30)
    equal(model(x), plain.double().eval()(x), tolerance=1e-5)  # the waves are float32


def a_place_is_the_same_in_an_image_of_any_size():
    """What is added at (y, x) does not depend on the grid; a resized table would differ."""
    position, large = SinCosPosition(40, (3, 5), 0), (7, 6)
    added = position(torch.zeros(1, 42, 40), large).unflatten(1, large)[:, :3, :5]
    equal(added, position(torch.zeros(1, 15, 40), (3, 5)).unflatten(1, (3, 5)))


def only_the_waves_know_the_order():
    """Shuffled patches give other logits, and the same ones as soon as the waves are gone."""
    model = randomise(SimpleViT(SIZES)).double()
    x = images(2, 3, 18, 30)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    cut = dict(h=3, w=5, p=6, q=6)
    patches = rearrange(x, "B C (h p) (w q) -> (h w) B C p q", **cut)[order]
    shuffled = rearrange(patches, "(h w) B C p q -> B C (h p) (w q)", **cut)
    assert (model(x) - model(shuffled)).abs().max() > 1e-3
    with mock.patch.object(model.position, "table", torch.zeros(1, 15, 40).double()):
        equal(model(shuffled), model(x))


def every_token_is_read_alike():
    """The gradient of a logit is the same at every token behind the norm: weight / N."""
    model = randomise(SimpleViT(SIZES)).double()
    x, grid = model.encode(images(2, 3, 18, 30))
    x = x.detach().requires_grad_()
    model.head(x, grid)[:, 4].sum().backward()
    equal(x.grad, (model.head.weight[4] / 15).expand(2, 15, 40).detach())


PROOFS = [
    same_as_vit_pytorch,
    same_as_timm,
    it_is_a_vit_whose_table_holds_waves,
    a_place_is_the_same_in_an_image_of_any_size,
    only_the_waves_know_the_order,
    every_token_is_read_alike,
]


def rows_first(dim, grid, prefix_len=0):
    return sincos(dim, grid, prefix_len).roll(dim // 2, dims=-1)


def like_mae(dim, grid, prefix_len=0):
    """Frequencies i / (D/4), not i / (D/4 - 1)."""
    h, w = grid
    frequency = 10000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    x, y = x.reshape(-1, 1) * frequency, y.reshape(-1, 1) * frequency
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)[None]


def stretched(self, x, grid):
    return x + parts.resize_position(self.table, self.grid, grid, 0)


def norm_after_mean(self, images):
    x, grid = self.patch_embed(images)
    x = self.position(x, grid)
    for block in self.blocks:
        x = block(x, grid)
    return self.norm(x.mean(1, keepdim=True)), (1, 1)


def one_token(self, x, grid):
    return nn.functional.linear(x[:, 0], self.weight, self.bias)


def in_order(self, images):
    x, grid = PatchEmbed.forward(self, images)
    return x.cumsum(dim=1), grid


PLANTED = {
    "rows before columns": ((parts, "sincos", rows_first), same_as_vit_pytorch),
    "the norm after the mean": ((SimpleViT, "encode", norm_after_mean), same_as_timm),
    "the frequencies of MAE": ((parts, "sincos", like_mae), it_is_a_vit_whose_table_holds_waves),
    "a stretched table": (
        (SinCosPosition, "forward", stretched),
        a_place_is_the_same_in_an_image_of_any_size,
    ),
    "tokens that know their order": (
        (SimpleViT, "Tokenizer", type("InOrder", (PatchEmbed,), {"forward": in_order})),
        only_the_waves_know_the_order,
    ),
    "the first token is read": ((MeanHead, "forward", one_token), every_token_is_read_alike),
}
