"""Vision Transformers written by others, beside ours with the same weights, and errors to plant.

The sizes are odd on purpose: B, C, T, D, K, d, h and w all differ, so no two axes can be confused.
"""

from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers

from vitcourse import vit, weights
from vitcourse.config import Config
from vitcourse.vit import Attention, Block, Mlp, PatchEmbed, ViT

SIZES = dict(dim=40, depth=3, heads=5, patch=6, classes=7, mlp_ratio=2.0)
SQUARE, WIDE = (24, 24), (18, 30)


def build_timm(image):
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=image,
        patch_size=6,
        embed_dim=40,
        depth=3,
        num_heads=5,
        mlp_ratio=2,
        num_classes=7,
    )
    return SimpleNamespace(model=model, blocks=model.blocks, run=model)


def build_torchvision(image):
    assert image[0] == image[1], "torchvision's ViT takes square images only"
    model = torchvision.models.VisionTransformer(
        image_size=image[0],
        patch_size=6,
        num_layers=3,
        num_heads=5,
        hidden_dim=40,
        mlp_dim=80,
        num_classes=7,
    )
    return SimpleNamespace(model=model, blocks=model.encoder.layers, run=model)


def build_transformers(image):
    config = transformers.ViTConfig(
        image_size=image,
        patch_size=6,
        num_hidden_layers=3,
        num_attention_heads=5,
        hidden_size=40,
        intermediate_size=80,
        num_labels=7,
        layer_norm_eps=1e-6,
    )
    model = transformers.ViTForImageClassification(config)
    return SimpleNamespace(
        model=model, blocks=model.vit.layers, run=lambda images: model(images).logits
    )


CASES = {
    "timm, square": (build_timm, SQUARE),
    "timm, wide": (build_timm, WIDE),
    "torchvision, square": (build_torchvision, SQUARE),
    "transformers, square": (build_transformers, SQUARE),
    "transformers, wide": (build_transformers, WIDE),
}


def randomise(model):
    """Give every parameter a value of its own: default ones, like zeros, hide errors."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


def run(model, blocks, forward, images):
    """Logits, the output of every block, and the gradient of every parameter."""
    outputs = []

    def keep(module, inputs, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in blocks]
    logits = forward(images)
    for hook in hooks:
        hook.remove()
    direction = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    model.zero_grad()
    (logits * direction).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return logits, outputs, gradients


def compare(case, dtype, tolerance):
    """Assert that ours and the oracle's logits, block outputs and gradients agree, relatively."""
    build, image = CASES[case]
    torch.manual_seed(1)
    oracle = build(image)
    randomise(oracle.model).to(dtype).eval()
    ours = ViT(Config(**SIZES, image=image)).to(dtype)
    weights.load(ours.eval(), oracle.model.state_dict())
    images = torch.randn(2, 3, *image, dtype=dtype)

    logits, blocks, gradients = run(ours, ours.blocks, ours, images)
    their_logits, their_blocks, theirs = run(oracle.model, oracle.blocks, oracle.run, images)
    # the gradients get our names in the way the weights did, by the loader
    layout, convert = weights.recognise(theirs, ours)
    theirs = convert(theirs, ours)

    assert len(blocks) == len(their_blocks) == 3
    assert gradients.keys() == theirs.keys()
    pairs = [("logits", logits, their_logits)]
    pairs += [
        (f"block {i}", *pair) for i, pair in enumerate(zip(blocks, their_blocks, strict=True))
    ]
    pairs += [(f"gradient of {name}", gradients[name], theirs[name]) for name in gradients]
    for name, a, b in pairs:
        error = (a - b).abs().max() / b.abs().max()
        assert error <= tolerance, f"{name}: {error:.1e} > {tolerance}"


# Errors of one line that keep every shape -----------------------------------------------------


def no_scale(self, dim, heads, *drops, original=Attention.__init__):
    original(self, dim, heads, *drops)
    self.scale = 1.0


def scale_by_dim(self, dim, heads, *drops, original=Attention.__init__):
    original(self, dim, heads, *drops)
    self.scale = dim**-0.5


def merge_without_transpose(self, x, grid=None):
    q, k, v = self.project(x, grid)
    return self.drop(self.proj(self.attend(q, k, v, self.bias(grid)).reshape(x.shape)))


def heads_in_wrong_order(self, x, grid):
    qkv = self.qkv(x).unflatten(-1, (3, -1, self.heads))
    return qkv.permute(2, 0, 4, 1, 3).unbind()


def keys_for_queries(self, x, grid, original=Attention.project):
    q, k, v = original(self, x, grid)
    return k, q, v


def softmax_over_queries(self, q, k, v, bias=None):
    return (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-2) @ v


def norm_after(self, x, grid=None):
    x = self.norm1(x + self.attn(x, grid))
    return self.norm2(x + self.mlp(x, grid))


def one_norm_twice(self, x, grid=None):
    x = x + self.attn(self.norm1(x), grid)
    return x + self.mlp(self.norm1(x), grid)


def patches_column_by_column(self, images, original=PatchEmbed.forward):
    x, (h, w) = original(self, images)
    return x.unflatten(1, (h, w)).transpose(1, 2).flatten(1, 2), (h, w)


def prefix_behind(self, images):
    x, grid = self.patch_embed(images)
    x = self.position(torch.cat([x, self.prefix.expand(len(x), -1, -1)], dim=1), grid)
    for block in self.blocks:
        x = block(x, grid)
    return self.norm(x), grid


def tanh_gelu(self, x, grid=None):
    return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x), approximate="tanh"))))


PLANTED = {
    "no scale": (Attention, "__init__", no_scale),
    "scale by the whole width": (Attention, "__init__", scale_by_dim),
    "heads merged without a transpose": (Attention, "forward", merge_without_transpose),
    "heads cut in the wrong order": (Attention, "project", heads_in_wrong_order),
    "queries and keys exchanged": (Attention, "project", keys_for_queries),
    "softmax over the queries": (Attention, "attend", softmax_over_queries),
    "norm after instead of before": (Block, "forward", norm_after),
    "the first norm used twice": (Block, "forward", one_norm_twice),
    "eps of 1e-5": (vit, "LayerNorm", torch.nn.LayerNorm),
    "patches column by column": (PatchEmbed, "forward", patches_column_by_column),
    "class token behind": (ViT, "encode", prefix_behind),
    "tanh in place of erf in GELU": (Mlp, "forward", tanh_gelu),
}


@contextmanager
def planted(name):
    """Our model with one error in it."""
    with mock.patch.object(*PLANTED[name]):
        yield
