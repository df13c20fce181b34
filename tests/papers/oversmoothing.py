"""The losses against over-smoothing: beside their definitions, written as loops, and identities."""

from unittest import mock

import torch
import torch.nn.functional as F

from tests.proofs import equal, images, randomise
from vitcourse import losses
from vitcourse.config import Config
from vitcourse.papers import oversmoothing
from vitcourse.papers.oversmoothing import DiverseViT
from vitcourse.probe import record_tokens
from vitcourse.train import classify
from vitcourse.train.batches import Batch
from vitcourse.vit import ViT, patchify

SIZES = Config(dim=40, depth=3, heads=5, patch=6, image=(18, 30), classes=7, mlp_ratio=2)
B, N, D = 2, 5, 8


def trained_on(seed=0):
    """A model with values of its own, so small that no loss is at its end, and a batch for it."""
    model = randomise(DiverseViT(SIZES), seed).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
    targets = images(4, 7, seed=1).softmax(dim=-1)
    batch = Batch(images(4, 3, 18, 30), targets, targets.argmax(dim=-1), torch.arange(4))
    return model, batch


def cosine_loss_is_the_mean_over_all_pairs():
    x = images(B, N, D)
    pairs = [
        F.cosine_similarity(x[b, i], x[b, j], dim=0)
        for b in range(B)
        for i in range(N)
        for j in range(N)
        if i != j
    ]
    equal(losses.cosine_loss(x, absolute=False), torch.stack(pairs).mean())
    equal(losses.cosine_loss(x), torch.stack(pairs).abs().mean())


def cosine_loss_knows_equal_opposite_and_orthogonal():
    x = images(B, 1, D)
    equal(losses.cosine_loss(x.expand(-1, N, -1)), torch.ones(()).double())
    opposite = torch.cat([x, -x], dim=1)
    equal(losses.cosine_loss(opposite), torch.ones(()).double())
    equal(losses.cosine_loss(opposite, absolute=False), -torch.ones(()).double())
    orthogonal, _ = torch.linalg.qr(images(B, D, D))
    assert losses.cosine_loss(orthogonal).abs() < 1e-12


def cosine_loss_sees_directions_only():
    """Neither order nor length counts; the sign of a token does, without the absolute value."""
    x, lengths = images(B, N, D), images(B, N, 1).exp()
    sign = torch.tensor([1.0, -1, 1, 1, -1]).double()[:, None]
    for absolute in (True, False):
        equal(losses.cosine_loss((x * lengths).flip(1), absolute), losses.cosine_loss(x, absolute))
    equal(losses.cosine_loss(x * sign), losses.cosine_loss(x))
    assert (losses.cosine_loss(x * sign, False) - losses.cosine_loss(x, False)).abs() > 0.01


def consistency_loss_is_its_definition():
    first, last = images(B, N, D), images(B, N, D, seed=1)
    terms = []
    for b in range(B):
        for i in range(N):
            others = sum(last[b, j] for j in range(N) if j != i) / (N - 1)
            own, rest = (first[b, i] @ last[b, i]).exp(), (first[b, i] @ others).exp()
            terms.append(-(own / (own + rest)).log())
    equal(losses.consistency_loss(first, last), torch.stack(terms).mean())


def consistency_loss_is_log_two_where_nothing_differs():
    """Below it where each patch is nearest to itself, above it where to the others."""
    first, last = images(B, N, D), images(B, 1, D, seed=1).expand(-1, N, -1)
    equal(losses.consistency_loss(first, last), torch.tensor(2.0).double().log())
    eye = torch.eye(N, D).double().expand(B, -1, -1)
    assert losses.consistency_loss(eye, eye) < 0.69 < 0.7 < losses.consistency_loss(eye, -eye)


def consistency_loss_never_moves_the_first_layer():
    first, last = images(B, N, D).requires_grad_(), images(B, N, D, seed=1).requires_grad_()
    losses.consistency_loss(first, last).backward()
    assert first.grad is None and last.grad.any()


def consistency_loss_stands_large_numbers():
    """Products of 768 numbers are too large for exp in float32."""
    first = 3 * images(B, N, 768, dtype=torch.float32)
    last = first.clone().requires_grad_()
    loss = losses.consistency_loss(first, -last)
    loss.backward()
    wanted = -(first * (-first + (first.sum(1, keepdim=True) - first) / (N - 1))).sum(-1)
    equal(loss, wanted.mean(), tolerance=1e-6)
    assert last.grad.isfinite().all()


def mixing_loss_asks_each_patch_for_its_own_image():
    """Its gradient is, patch by patch, the probabilities minus the label of the source."""
    logits = images(B, 6, 7).requires_grad_()
    one, other = images(B, 7, seed=1).softmax(-1), images(B, 7, seed=2).softmax(-1)
    box = torch.tensor([[False, True, True], [False, False, True]])
    losses.mixing_loss(logits, one, other, box).backward()
    for place, inside in enumerate([False, True, True, False, False, True]):
        wanted = logits[:, place].softmax(-1) - (other if inside else one)
        equal(logits.grad[:, place] * B * 6, wanted.detach(), f"patch {place}")


def an_empty_box_is_plain_cross_entropy():
    logits, one, other = images(B, 6, 7), images(B, 7, seed=1), images(B, 7, seed=2)
    one, other = one.softmax(-1), other.softmax(-1)
    for box, label in ((torch.zeros(2, 3), one), (torch.ones(2, 3), other)):
        wanted = torch.stack([F.cross_entropy(logits[:, i], label) for i in range(6)]).mean()
        equal(losses.mixing_loss(logits, one, other, box.bool()), wanted)


def a_patch_has_one_source():
    """The order of the patches in the box is that in which the tokenizer cuts them."""
    one, other = images(B, 3, 18, 30), images(B, 3, 18, 30, seed=1)
    for seed in range(5):
        torch.manual_seed(seed)
        box = oversmoothing.random_box((3, 5))
        mixed = patchify(oversmoothing.paste(one, other, box), 6)
        wanted = torch.where(box.flatten()[:, None], patchify(other, 6), patchify(one, 6))
        assert torch.equal(mixed, wanted)


def boxes_have_all_areas():
    """Half of the patches on average; empty and full ones are there, and no place is preferred."""
    boxes = torch.stack([oversmoothing.random_box((6, 9)) for _ in range(2000)]).double()
    assert abs(boxes.mean() - 0.5) < 0.03
    areas = boxes.mean(dim=(1, 2))
    assert areas.min() == 0 and areas.max() == 1 and (areas < 0.25).double().mean() > 0.2
    assert (boxes.mean(0) - boxes.mean(0).flip(0, 1)).abs().max() < 0.08


def without_its_losses_the_step_is_the_usual_one():
    """The same loss and gradients as a ViT has that is trained as ever."""
    model, batch = trained_on()
    plain = ViT(SIZES).double().eval()
    plain.load_state_dict({n: model.state_dict()[n] for n in plain.state_dict()})
    loss = oversmoothing.step(model, batch, cosine=0, consistency=0, mixing=None)
    wanted = classify(plain, batch)
    equal(loss, wanted)
    loss.backward(), wanted.backward()
    for name, parameter in plain.named_parameters():
        equal(model.get_parameter(name).grad, parameter.grad, name)
    assert model.patch_head.weight.grad is None


def the_step_adds_what_the_recorded_tokens_say():
    """The first block's output and the last one's, without the class token."""
    model, batch = trained_on()
    with record_tokens(model) as tokens:
        model(batch.images)
    first, last = tokens[0][:, 1:], tokens[-1][:, 1:]
    none = dict(cosine=0, consistency=0, mixing=None)
    usual = oversmoothing.step(model, batch, **none)
    for absolute in (True, False):
        more = oversmoothing.step(model, batch, **none | dict(cosine=0.5, absolute=absolute))
        equal(more - usual, 0.5 * losses.cosine_loss(last, absolute))
    more = oversmoothing.step(model, batch, **none | dict(consistency=2))
    equal(more - usual, 2 * losses.consistency_loss(first, last))


def the_step_mixes_images_and_labels_alike():
    model, batch = trained_on()
    none, other = dict(cosine=0, consistency=0), batch.targets.roll(1, 0)
    for seed in (0, 1, 3, 5):  # two boxes in between, an empty one, a full one
        torch.manual_seed(seed)
        box = oversmoothing.random_box((3, 5))
        mixed = oversmoothing.paste(batch.images, batch.images.roll(1, 0), box)
        share = box.double().mean()
        usual = F.cross_entropy(model(mixed), (1 - share) * batch.targets + share * other)
        torch.manual_seed(seed)
        equal(oversmoothing.step(model, batch, **none, mixing=0), usual)
        torch.manual_seed(seed)
        more = oversmoothing.step(model, batch, **none, mixing=0.5) - usual
        logits = model.patch_head(model.encode(mixed)[0][:, 1:])
        equal(more, 0.5 * losses.mixing_loss(logits, batch.targets, other, box))


PROOFS = [
    cosine_loss_is_the_mean_over_all_pairs,
    cosine_loss_knows_equal_opposite_and_orthogonal,
    cosine_loss_sees_directions_only,
    consistency_loss_is_its_definition,
    consistency_loss_is_log_two_where_nothing_differs,
    consistency_loss_never_moves_the_first_layer,
    consistency_loss_stands_large_numbers,
    mixing_loss_asks_each_patch_for_its_own_image,
    an_empty_box_is_plain_cross_entropy,
    a_patch_has_one_source,
    boxes_have_all_areas,
    without_its_losses_the_step_is_the_usual_one,
    the_step_adds_what_the_recorded_tokens_say,
    the_step_mixes_images_and_labels_alike,
]


def cosine_with_itself(tokens, absolute=True):
    x = F.normalize(tokens, dim=-1)
    cosines = x @ x.transpose(1, 2)
    return (cosines.abs() if absolute else cosines).mean()


def products(tokens, absolute=True):
    cosines = tokens @ tokens.transpose(1, 2)
    cosines = cosines.abs() if absolute else cosines
    own = cosines.diagonal(dim1=1, dim2=2).sum()
    return (cosines.sum() - own) / (B * N * (N - 1))


def always_absolute(tokens, absolute=True, right=losses.cosine_loss):
    return right(tokens, absolute=True)


def mean_of_all(first, last):
    others = last.mean(dim=1, keepdim=True)
    return F.softplus((first.detach() * (others - last)).sum(dim=-1)).mean()


def wrong_sign(first, last, right=losses.consistency_loss):
    return right(first, -last)


def no_detach(first, last):
    others = (last.sum(dim=1, keepdim=True) - last) / (last.shape[1] - 1)
    return F.softplus((first * (others - last)).sum(dim=-1)).mean()


def plain_exp(first, last):
    others = (last.sum(dim=1, keepdim=True) - last) / (last.shape[1] - 1)
    own, rest = (first * last).sum(-1).exp(), (first * others).sum(-1).exp()
    return -(own / (own + rest)).log().mean()


def mixed_for_all(token_logits, target, other, box):
    share = torch.lerp(target, other, box.to(target).mean())  # (B, classes)
    labels = share[:, None].expand(-1, box.numel(), -1)
    return F.cross_entropy(token_logits.flatten(0, 1), labels.flatten(0, 1))


def outside(token_logits, target, other, box, right=losses.mixing_loss):
    return right(token_logits, other, target, box)


def tiled(images, others, box):
    h, w = box.shape
    return torch.where(box.repeat(images.shape[2] // h, images.shape[3] // w), others, images)


def square_root_forgotten(grid, right=oversmoothing.random_box):
    with mock.patch.object(torch.Tensor, "sqrt", lambda self: self):
        return right(grid)


def embedding_and_last(self, images, right=DiverseViT.tokens):
    _, last, grid = right(self, images)
    return self.position(F.pad(self.patch_embed(images)[0], (0, 0, 1, 0)), grid), last, grid


def twice(self, images, right=DiverseViT.tokens):
    first, last, grid = right(self, images)
    return first, self.blocks[-1](last, grid), grid


PLANTED = {
    "each patch is compared with itself, too": (
        (losses, "cosine_loss", cosine_with_itself),
        cosine_loss_is_the_mean_over_all_pairs,
    ),
    "always the absolute value": (
        (losses, "cosine_loss", always_absolute),
        cosine_loss_knows_equal_opposite_and_orthogonal,
    ),
    "products, not cosines": (
        (losses, "cosine_loss", products),
        cosine_loss_sees_directions_only,
    ),
    "the others' mean holds the patch itself": (
        (losses, "consistency_loss", mean_of_all),
        consistency_loss_is_its_definition,
    ),
    "the wrong sign": (
        (losses, "consistency_loss", wrong_sign),
        consistency_loss_is_log_two_where_nothing_differs,
    ),
    "the first layer learns, too": (
        (losses, "consistency_loss", no_detach),
        consistency_loss_never_moves_the_first_layer,
    ),
    "exp of large numbers": (
        (losses, "consistency_loss", plain_exp),
        consistency_loss_stands_large_numbers,
    ),
    "all patches get the label of the mixture": (
        (losses, "mixing_loss", mixed_for_all),
        mixing_loss_asks_each_patch_for_its_own_image,
    ),
    "inside and outside are exchanged": (
        (losses, "mixing_loss", outside),
        an_empty_box_is_plain_cross_entropy,
    ),
    "the box is tiled, not enlarged": ((oversmoothing, "paste", tiled), a_patch_has_one_source),
    "small boxes are more likely": (
        (oversmoothing, "random_box", square_root_forgotten),
        boxes_have_all_areas,
    ),
    "the last block runs twice": (
        (DiverseViT, "tokens", twice),
        without_its_losses_the_step_is_the_usual_one,
    ),
    "the embedding for the first block's output": (
        (DiverseViT, "tokens", embedding_and_last),
        the_step_adds_what_the_recorded_tokens_say,
    ),
    "labels are mixed the other way round": (
        (torch, "lerp", lambda one, other, share: share * one + (1 - share) * other),
        the_step_mixes_images_and_labels_alike,
    ),
}
