"""MAE: beside transformers (forward, loss, tables), and what is hidden from whom."""

import torch
from torch import nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers.models.vit_mae import modeling_vit_mae as theirs

from tests.proofs import equal, images, randomise, same_as
from vitcourse import papers
from vitcourse.config import Config
from vitcourse.data import Data
from vitcourse.papers import mae
from vitcourse.papers.mae import MAE, Decoder, Waves
from vitcourse.parts import MeanHead
from vitcourse.train.batches import Batch
from vitcourse.vit import ViT, patchify

SIZES = Config(dim=40, depth=2, heads=5, patch=6, image=(12, 48), classes=7, mlp_ratio=2)
NOISE = torch.rand(2, 16, generator=torch.Generator().manual_seed(0))
GAPS = NOISE.argsort(dim=1).argsort(dim=1) >= 6  # which patches are hidden


class Small(Decoder):
    """A decoder for tests."""

    dim, depth, heads = 24, 2, 3


Model = MAE.variant(Head=Small, masked=0.6)  # of 16 patches, 6 are seen


class Drawn(Model):
    """The noise is always the same, one row for each image or one for all."""

    noise = NOISE[:1]

    def forward(self, images, noise=None):
        h, w = (side // self.cfg.patch for side in images.shape[-2:])
        return super().forward(images, self.noise[:, : h * w].expand(len(images), -1).to(images))


MODELS = {"drawn": lambda: (Drawn(SIZES), torch.randn(2, 3, 12, 48))}
OTHER_SIZES = {"drawn": (24, 12)}
COUNTS = {"mae_b_16": 111_655_680}  # learned; the tables of fixed waves hold 252,160 more


def of_transformers(cfg, **options):
    """The MAE of transformers with the same sizes."""
    return ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=cfg.image,
            patch_size=cfg.patch,
            hidden_size=cfg.dim,
            num_hidden_layers=cfg.depth,
            num_attention_heads=cfg.heads,
            intermediate_size=cfg.hidden,
            decoder_hidden_size=24,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=3,
            decoder_intermediate_size=48,
            mask_ratio=0.6,
            layer_norm_eps=1e-6,
            **options,
        )
    )


def same_as_transformers():
    """Its `forward` refuses images that are not square; encoder and decoder take them."""
    oracle, ours = of_transformers(SIZES), Drawn.variant(noise=NOISE)(SIZES)

    def run(given):
        seen = oracle.vit(given, noise=NOISE)
        return oracle.decoder(seen.last_hidden_state, seen.ids_restore).logits

    mine = [*ours.blocks, ours.norm, *ours.head.blocks, ours.head.norm]
    layers, decoder = oracle.vit.layers, oracle.decoder
    other = [*layers, oracle.vit.layernorm, *decoder.decoder_layers, decoder.decoder_norm]
    same_as(oracle, ours, images(2, 3, 12, 48), (mine, other), run)


def the_loss_is_transformers():
    """With pixels as they are, and with each patch normalised by itself."""
    square = Config(dim=40, depth=2, heads=5, patch=6, image=18, classes=7, mlp_ratio=2)
    noise, given = NOISE[:, :9], images(2, 3, 18, 18)
    for normalised in (False, True):
        oracle = randomise(of_transformers(square, norm_pix_loss=normalised)).double()
        ours = Model.variant(normalised=normalised)(square).double().eval()
        ours.load_state_dict(mae.of_transformers(oracle.state_dict(), ours))
        equal(mae.loss(ours, given, noise), oracle(given, noise=noise).loss)


def the_tables_are_transformers():
    """Its table of rows and columns, whose halves it exchanges for the published weights."""
    table = theirs.build_2d_sinusoidal_position_embedding(2, 8, 40, cls_token=True)
    rows, columns = table.chunk(2, dim=1)
    wanted = torch.cat([columns, rows], dim=1)[None]
    model = MAE.variant(Head=Small)(SIZES)
    equal(model.position.table, wanted, tolerance=1e-7)
    assert torch.equal(model.position(torch.zeros(1, 17, 40), (2, 8)), model.position.table)
    other = Waves(40, (4, 2), prefix_len=1)(torch.zeros(1, 17, 40), (2, 8))
    equal(other, wanted, tolerance=1e-7)


def what_is_hidden_cannot_be_read():
    """No pixel of a hidden patch has an influence on any answer, and every one of a seen has."""
    model = randomise(Model(SIZES)).double()
    given = images(2, 3, 12, 48).requires_grad_()
    model(given, NOISE).square().sum().backward()
    touched = patchify(given.grad, 6).abs().amin(dim=-1) > 0
    assert not patchify(given.grad, 6)[GAPS].any()
    assert torch.equal(touched, ~GAPS) and touched.sum(dim=1).tolist() == [6, 6]


def the_order_of_the_seen_does_not_matter():
    """Nor that of the hidden: who is seen decides, and each token knows its place."""
    model = randomise(Model(SIZES)).double()
    other = NOISE.clone()
    for row in other:
        first, second = row.sort().values[:6], row.sort().values[6:]
        numbers = row.argsort()
        row[numbers[:6]], row[numbers[6:]] = first.flip(0), second.flip(0)
    assert not torch.equal(other.argsort(dim=1), NOISE.argsort(dim=1))
    given = images(2, 3, 12, 48)
    equal(model(given, other), model(given, NOISE))


def an_encoder_that_sees_all_is_a_vit():
    """With the same weights, and the waves as its positions; with any order of the patches."""
    model = randomise(Model.variant(masked=0.0)(SIZES)).double()
    vit = mae.as_vit(model, classes=4).double()
    assert vit.position.table.requires_grad and vit.head.out_features == 4
    given = images(2, 3, 12, 48)
    wanted, _ = vit.encode(given)
    equal(model.encode(given)[0], wanted)
    order, seen = model.choose(given, NOISE)
    x, _ = model.encode(given, seen)
    equal(x[:, :1], wanted[:, :1])
    equal(x[:, 1:], mae.take(wanted[:, 1:], order))
    equal(model(given), model(given, NOISE))
    mean = mae.as_vit(model, 4, ViT.variant(Head=MeanHead, registers=1)).double()
    equal(mean.encode(given)[0], wanted)


class Says(Model):
    """Answers what it was told to."""

    def forward(self, images, noise=None):
        return self.answer


def the_loss_ignores_what_is_seen():
    """Each hidden pixel pulls by its own error; no seen one does."""
    model, given = Says(SIZES), images(2, 3, 12, 48)
    model.answer = images(2, 16, 108, seed=1).requires_grad_()
    mae.loss(model, given, NOISE).backward()
    target = mae.normalise(patchify(given, 6))[0]
    error = (model.answer - target) * GAPS[..., None]
    equal(model.answer.grad, 2 * error / (20 * 108))  # 20 hidden patches of 108 pixels


def a_gap_knows_its_place_by_position_alone():
    """Without positions in the decoder, all gaps of an image get the same answer."""
    model = randomise(Model(SIZES)).double()
    model.head.position.table.zero_()
    answer = model(images(2, 3, 12, 48), NOISE)
    for one, here in zip(answer, GAPS, strict=True):
        equal(one[here], one[here][:1].expand(10, -1))
        assert (one[~here] - one[here][0]).abs().max() > 0.1


def the_count_has_two_tables():
    """What other libraries count as parameters: those that are learned, and the waves."""
    with torch.device("meta"):
        model = papers.build("mae_b_16")
    tables = {name: tensor.numel() for name, tensor in model.named_buffers()}
    assert tables == {"position.table": 197 * 768, "head.position.table": 197 * 512}
    assert sum(p.numel() for p in model.parameters()) + sum(tables.values()) == 111_907_840


def pictures_fill_the_gaps():
    """What is seen stays to the bit, what is hidden is 0; the right answer gives the image."""
    given = images(2, 3, 12, 48)
    for normalised in (False, True):
        model = Says.variant(normalised=normalised)(SIZES)
        true = patchify(given, 6)
        model.answer = mae.normalise(true)[0] if normalised else true
        seen, filled = mae.pictures(model, given, NOISE)
        assert torch.equal(patchify(seen, 6)[~GAPS], true[~GAPS])
        assert not patchify(seen, 6)[GAPS].any()
        equal(filled, given)


def the_authors_files_fit():
    """Their names for the same tensors."""
    model = randomise(Model(SIZES))
    names = {"prefix": "cls_token", "position.table": "pos_embed", "head.mask_token": "mask_token"}
    names |= {"head.position.table": "decoder_pos_embed"}
    parts = {"embed": "embed", "blocks": "blocks", "norm": "norm", "pixels": "pred"}
    state = {}
    for name, tensor in model.state_dict().items():
        for mine, other in parts.items():
            name = name.replace(f"head.{mine}.", f"decoder_{other}.")
        state[names.get(name, name)] = tensor
    assert len(state) == len(model.state_dict()) and "decoder_blocks.1.attn.qkv.bias" in state
    fitted = mae.official(state, model)
    assert fitted.keys() == model.state_dict().keys()
    assert all(torch.equal(fitted[name], t) for name, t in model.state_dict().items())


def what_fit_is_given():
    """A step draws noise anew, the score draws the same each time; both are the loss."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, 3, 12, 48), generator=generator).byte()
    data = Data("noise", pixels[:2], torch.zeros(2).long(), pixels, torch.zeros(4).long(), "a")
    model, given = randomise(Model(SIZES)), data.normalise(pixels)
    batch = Batch(given, None, None, None)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(mae.step(model, batch).item())
    assert losses[0] == losses[1] != losses[2]
    noise = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    assert losses[0] == mae.loss(model, given, noise) == mae.score(model, data)["error"]


def it_begins_as_the_authors_do():
    """Every matrix within Xavier's bounds, and filling them; biases at zero."""
    model = MAE.variant(Head=Small)(SIZES)
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            bound = (6 / sum(layer.weight.flatten(1).shape)) ** 0.5
            assert 0.95 * bound < layer.weight.abs().max() <= bound and not layer.bias.any()


PROOFS = [
    same_as_transformers,
    the_loss_is_transformers,
    the_tables_are_transformers,
    what_is_hidden_cannot_be_read,
    the_order_of_the_seen_does_not_matter,
    an_encoder_that_sees_all_is_a_vit,
    the_loss_ignores_what_is_seen,
    a_gap_knows_its_place_by_position_alone,
    the_count_has_two_tables,
    pictures_fill_the_gaps,
    the_authors_files_fit,
    what_fit_is_given,
    it_begins_as_the_authors_do,
]

right = {"waves": mae.waves, "decode": Decoder.forward, "hidden": mae.hidden}


def biased(patches):
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True, correction=0)
    deviation = (variance + 1e-6).sqrt()
    return (patches - mean) / deviation, mean, deviation


def rows_first(dim, grid, prefix_len=0):
    columns, rows = right["waves"](dim, grid, prefix_len).chunk(2, dim=-1)
    return torch.cat([rows, columns], dim=-1)


def hides_at_the_end(self, images, seen=None):
    x, grid = ViT.encode(self, images)
    return (x if seen is None else torch.cat([x[:, :1], mae.take(x[:, 1:], seen)], dim=1)), grid


def places_in_the_order_seen(self, images, seen=None):
    x, grid = self.patch_embed(images)
    x = mae.take(x, seen)
    x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)
    x = x + self.position.table[:, : x.shape[1]]
    for block in self.blocks:
        x = block(x, grid)
    return self.norm(x), grid


def gaps_that_differ(self, x, grid, order):
    gaps = torch.randn(1, order.shape[1] - x.shape[1] + 1, 24).to(x)
    with_others = type("Others", (), {"expand": lambda self, *a: gaps.expand(*a)})()
    kept, self._parameters["mask_token"] = self.mask_token, with_others
    try:
        return right["decode"](self, x, grid, order)
    finally:
        self._parameters["mask_token"] = kept


PLANTED = {
    "the order is not turned back": (
        (
            Decoder,
            "forward",
            lambda self, x, grid, order: right["decode"](self, x, grid, order.argsort(1)),
        ),
        same_as_transformers,
    ),
    "the biased variance": ((mae, "normalise", biased), the_loss_is_transformers),
    "rows before columns": ((mae, "waves", rows_first), the_tables_are_transformers),
    "hidden after the encoder": ((MAE, "encode", hides_at_the_end), what_is_hidden_cannot_be_read),
    "places as they come": (
        (MAE, "encode", places_in_the_order_seen),
        the_order_of_the_seen_does_not_matter,
    ),
    "no positions": (
        (Waves, "forward", lambda self, x, grid: x),
        an_encoder_that_sees_all_is_a_vit,
    ),
    "the loss of all patches": (
        (mae, "hidden", lambda *given: torch.ones_like(right["hidden"](*given))),
        the_loss_ignores_what_is_seen,
    ),
    "gaps that differ": (
        (Decoder, "forward", gaps_that_differ),
        a_gap_knows_its_place_by_position_alone,
    ),
    "a block less": ((Decoder, "depth", 7), the_count_has_two_tables),
    "the seen are filled": (
        (mae, "hidden", lambda *given: ~right["hidden"](*given)),
        pictures_fill_the_gaps,
    ),
    "the class token of the file is left out": (
        (mae, "from_timm", lambda state, model: state),
        the_authors_files_fit,
    ),
    "the same noise for all images": (
        (mae, "draw", lambda model, images, generator=None: NOISE[:1].expand(len(images), -1)),
        what_fit_is_given,
    ),
    "it begins as a ViT does": (
        (mae, "authors_start", lambda module: None),
        it_begins_as_the_authors_do,
    ),
}
