"""LV-ViT: beside tlt, the authors' package; and what MixToken and the token labels must obey."""

import sys
import warnings
from unittest import mock

import numpy as np
import torch
from torch import nn

from tests.proofs import equal, images, outputs_and_gradients, randomise, same_as
from vitcourse import losses, weights
from vitcourse.config import Config
from vitcourse.papers import lv_vit
from vitcourse.papers.lv_vit import ConvStem, Divide, LVViT, TokenHead
from vitcourse.train.batches import Batch
from vitcourse.vit import ViT

SIZES = Config(dim=24, depth=2, heads=3, patch=6, image=(18, 30), classes=7, mlp_ratio=3)
SMALL = LVViT.variant(Tokenizer=type("SmallStem", (ConvStem,), {"widths": (5, 6, 8)}))
MODELS = {"lv-vit": lambda: (SMALL(SIZES), torch.randn(2, 3, 18, 30))}
OTHER_SIZES = {"lv-vit": (24, 12)}
COUNTS = {
    "lv_vit_t": 8_534_720,
    "lv_vit_s": 26_151_824,
    "lv_vit_m": 55_830_544,
    "lv_vit_l": 150_021_968,
}
BOX = 0, 1, 2, 4  # top, left, bottom, right


def official(**options):
    """The authors' model, for images of 32 x 48 pixels and 2 x 3 patches, unless said otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports old names of timm
        import tlt.models  # noqa: F401
    sizes = dict(img_size=(32, 48), embed_dim=24, depth=2, num_heads=3, num_classes=7)
    sizes |= dict(mlp_ratio=3.0, skip_lam=2.0, return_dense=True, mix_token=True)
    return sys.modules["tlt.models.lvvit"].LV_ViT(**{**sizes, **options})


def ours(model=LVViT, image=(32, 48)):
    return model(Config(dim=24, depth=2, heads=3, image=image, classes=7, mlp_ratio=3))


def same_as_tlt():
    """The published model in evaluation, on a grid of 2 x 3."""
    theirs, model = official(), ours()
    same_as(theirs, model, images(2, 3, 32, 48), (model.blocks, theirs.blocks))


def same_as_the_large_one_of_tlt():
    """The stem and the divisor of LV-ViT-L."""
    theirs = official(p_emb="4_2_128", skip_lam=3.0)
    same_as(theirs, ours(LVViT.variant(Tokenizer=lv_vit.WideConvStem, divisor=3.0)), x_32_48())


def x_32_48():
    return images(2, 3, 32, 48)


def trains_as_tlt():
    """MixToken and both losses: the loss and every gradient, for a batch of three."""
    import tlt.models  # noqa: F401
    from tlt.loss.cross_entropy import TokenLabelCrossEntropy

    size, box = (48, 80), BOX  # 3 x 5 patches
    theirs, model = official(img_size=size), ours(image=size).double()
    randomise(theirs).double()
    weights.load(model, theirs.state_dict())
    x, labels = images(3, 3, *size), images(3, 7, 16, seed=1).softmax(1)
    label, token_labels = labels[..., 0], labels[..., 1:].transpose(1, 2)
    packed = torch.cat([torch.zeros(3, 7, 1), labels], dim=2)  # truth, image, patches
    top, left, bottom, right = box

    def their_loss(x):
        module = sys.modules["tlt.models.lvvit"]
        with mock.patch.object(module, "rand_bbox", lambda *_: (top, left, bottom, right)):
            return TokenLabelCrossEntropy(dense_weight=0.5)(theirs.train()(x), packed)[None]

    def our_loss(x):
        batch = Batch(x, label, label.argmax(1), torch.arange(3))
        with mock.patch.object(lv_vit, "random_box", lambda grid: box):
            return lv_vit.training_step(lambda batch: token_labels)(model.train(), batch)[None]

    wanted, their_gradients = outputs_and_gradients(theirs, their_loss, (), x)
    got, gradients = outputs_and_gradients(model, our_loss, (), x)
    equal(got["logits"], wanted["logits"])
    their_gradients = LVViT.layouts["tlt"][1](their_gradients, model)
    assert gradients.keys() == their_gradients.keys()
    for name in gradients:
        equal(gradients[name], their_gradients[name], name, 1e-9)


def boxes_are_those_of_tlt():
    """The same three random numbers give the authors' box, on grids that are not square."""
    official()
    module, np_int = sys.modules["tlt.models.lvvit"], getattr(np, "int", None)
    np.int = int  # which tlt needs, and NumPy no longer has
    try:
        for seed in range(200):
            area, y, x = np.random.default_rng(seed).uniform(size=3)
            centre = [int(5 * y), int(7 * x)]
            with mock.patch.object(np.random, "randint", side_effect=centre):
                wanted = module.rand_bbox((2, 24, 5, 7), 1 - area)
            given = torch.tensor([area, y, x], dtype=torch.float64)
            with mock.patch.object(torch, "rand", return_value=given):
                assert lv_vit.random_box((5, 7)) == tuple(wanted), seed
    finally:
        if np_int is None:
            del np.int


def without_its_changes_it_is_a_vit():
    """No divisor, no tokens' logits, norms of the ViT and a bias of zero: the ViT with its stem."""
    model = randomise(SMALL.variant(divisor=1.0, eps=1e-6)(SIZES)).double()
    plain = randomise(ViT.variant(Tokenizer=SMALL.Tokenizer)(SIZES)).double()
    nn.init.zeros_(model.head.aux.weight)
    nn.init.zeros_(model.head.aux.bias)
    state = {n: t for n, t in model.state_dict().items() if "aux" not in n}
    state |= {n: 0 * t for n, t in plain.state_dict().items() if n.endswith("qkv.bias")}
    plain.load_state_dict(state)
    x = images(2, 3, 18, 30)
    equal(model(x), plain(x))


def a_token_teaches_its_own_image():
    """The label of one patch reaches, through a stem without neighbours, where the patch is from.

    With MixToken too: image 0's patch inside the box is computed in the sequence of image 2, and
    its logits stand with image 0 again.
    """
    model = randomise(SMALL(SIZES)).double()
    model.blocks = nn.ModuleList()
    x = images(3, 3, 18, 30).requires_grad_()
    _, token_logits = model.tokens(x, BOX)
    for patch in (1, 14):  # inside and outside the box
        (gradient,) = torch.autograd.grad(token_logits[0, patch].sum(), x, retain_graph=True)
        assert gradient[0].any() and not gradient[1:].any(), patch
    sequence, grid = model.encode(x, BOX)
    (gradient,) = torch.autograd.grad(sequence[2, 1 + 1].sum(), x)
    assert gradient[0].any() and not gradient[1:].any()


def mixing_twice_is_nothing():
    """And labels are mixed by the part of the tokens that came from elsewhere."""
    x, label = images(3, 15, 4), images(3, 7, seed=1).softmax(1)
    mixed = lv_vit.swap(x, (3, 5), BOX)
    equal(lv_vit.swap(mixed, (3, 5), BOX), x)
    for i in range(3):
        own = (mixed[i] == x[i]).all(-1).double().mean()
        wanted = label[i] if i == 1 else own * label[i] + (1 - own) * label[2 - i]
        equal(lv_vit.mix_labels(label, (3, 5), BOX)[i], wanted)


def no_weight_no_teacher():
    """The tokens' loss is weighed: with zero its head learns nothing; the sum is linear in it."""
    logits, tokens = images(3, 7), images(3, 15, 7, seed=1).requires_grad_()
    label, token_labels = images(3, 7, seed=2).softmax(1), images(3, 15, 7, seed=3).softmax(2)
    zero, half, one = (
        losses.token_labelling(logits, tokens, label, token_labels, w) for w in (0, 0.5, 1)
    )
    equal(half - zero, (one - zero) / 2)
    equal(zero, -(label * logits.log_softmax(1)).sum(1).mean())
    equal(one - zero, -(token_labels * tokens.log_softmax(2)).sum(2).mean())
    assert not torch.autograd.grad(zero, tokens)[0].any()


def a_teacher_agrees_with_itself():
    """Labels that a model gives to its own patches leave its second head as it is."""
    model = randomise(SMALL(SIZES)).double()
    batch = Batch(images(3, 3, 18, 30), *3 * [images(3, 7, seed=1).softmax(1)])
    lv_vit.training_step(lv_vit.labels_from(model), mix=False)(model, batch).backward()
    assert model.head.aux.weight.grad.abs().max() < 1e-12 < model.head.weight.grad.abs().max()


PROOFS = [
    same_as_tlt,
    same_as_the_large_one_of_tlt,
    trains_as_tlt,
    boxes_are_those_of_tlt,
    without_its_changes_it_is_a_vit,
    a_token_teaches_its_own_image,
    mixing_twice_is_nothing,
    no_weight_no_teacher,
    a_teacher_agrees_with_itself,
]


def mean_of_tokens(self, x, grid):
    logits, token_logits = self.both(x, grid)
    return logits + 0.5 * token_logits.mean(dim=1)


def swapped_to_the_next(x, grid, box):
    return torch.where(inside(grid, box), x.roll(1, 0), x)


def swapped_columns(x, grid, box):
    top, left, bottom, right = box
    return torch.where(inside(grid, (left, top, right, bottom)), x.flip(0), x)


def inside(grid, box):
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask.flatten()[:, None]


def not_put_back(self, images, box=None):
    return self.head.both(*self.encode(images, box))


def label_by_half(label, grid, box):
    return (label + label.flip(0)) / 2


def not_clipped(grid):
    side, y, x = torch.rand(3).tolist()
    rows, columns = int(grid[0] * side**0.5) // 2, int(grid[1] * side**0.5) // 2
    y, x = int(grid[0] * y), int(grid[1] * x)
    return y - rows, x - columns, y + rows, x + columns


def hard_labels(logits, token_logits, label, token_labels, weight):
    token_labels = token_labels.argmax(-1).flatten()
    patches = nn.functional.cross_entropy(token_logits.flatten(0, 1), token_labels)
    return nn.functional.cross_entropy(logits, label) + weight * patches


def a_sharp_teacher(teacher):
    return lambda batch: teacher.tokens(batch.images)[1].detach().mul(2).softmax(-1)


PLANTED = {
    "the mean of the tokens' logits": ((TokenHead, "forward", mean_of_tokens), same_as_tlt),
    "the ViT's eps": ((LVViT, "eps", 1e-6), same_as_tlt),
    "branches are multiplied": ((Divide, "forward", lambda self, x: x * self.by), same_as_tlt),
    "branches are divided by two": (
        (Divide, "forward", lambda self, x: x / 2),
        same_as_the_large_one_of_tlt,
    ),
    "the box is not clipped": ((lv_vit, "random_box", not_clipped), boxes_are_those_of_tlt),
    "rows and columns of the box": ((lv_vit, "swap", swapped_columns), trains_as_tlt),
    "the tokens are not put back": ((LVViT, "tokens", not_put_back), trains_as_tlt),
    "labels are mixed by half": ((lv_vit, "mix_labels", label_by_half), trains_as_tlt),
    "hard labels in training": ((lv_vit, "token_labelling", hard_labels), trains_as_tlt),
    "branches are divided anyway": (
        (Divide, "forward", lambda self, x: x / 2),
        without_its_changes_it_is_a_vit,
    ),
    "not put back, its own image": (
        (LVViT, "tokens", not_put_back),
        a_token_teaches_its_own_image,
    ),
    "mixed with the next image": ((lv_vit, "swap", swapped_to_the_next), mixing_twice_is_nothing),
    "labels by half, the area": ((lv_vit, "mix_labels", label_by_half), mixing_twice_is_nothing),
    "hard labels": ((losses, "token_labelling", hard_labels), no_weight_no_teacher),
    "the teacher is sharpened": (
        (lv_vit, "labels_from", a_sharp_teacher),
        a_teacher_agrees_with_itself,
    ),
}
