"""Image Transformer: beside local-attention and PyTorch's encoder layer, and by its definition."""

import itertools

import torch
import torch.nn.functional as F
from local_attention import LocalAttention as TheirLocalAttention
from torch import nn

from tests.proofs import equal, images, randomise
from vitcourse.papers import image_transformer
from vitcourse.papers.igpt import CausalAttention
from vitcourse.papers.image_transformer import (
    ImageTransformer,
    LocalAttention,
    Neighbours,
    PostNormBlock,
    ReluMlp,
    Sizes,
)

COLOUR = Sizes(24, 2, 3, 40, image=(5, 3), channels=3, levels=7, block=(2, 4), reach=(1, 2))
ROW = Sizes(24, 2, 3, 40, image=(5, 3), channels=2, levels=7, block=4, reach=6)
FULL = Sizes(24, 2, 3, 40, image=(5, 4), channels=1, levels=7)


def values(sizes, count, seed=0):
    """Random images of whole numbers: int64 (B, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(sizes.levels, (count, sizes.channels, *sizes.image), generator=generator)


MODELS = {
    "2-D": lambda: (ImageTransformer(COLOUR), values(COLOUR, 2)),
    "1-D": lambda: (ImageTransformer(ROW), values(ROW, 2)),
    "full": lambda: (ImageTransformer(FULL), values(FULL, 2)),
}
COUNTS = {}


# Who sees whom ------------------------------------------------------------------------------------


def by_definition(grid, block, reach):
    """The order of drawing, and who sees whom by place: bool (T, T), one pair after another."""
    places = list(itertools.product(range(grid[0]), range(grid[1])))

    def drawn(place):
        (y, x), (rows, columns) = place, block
        return y // rows, x // columns, y, x

    def in_memory(query, key):
        top, left = query[0] // block[0] * block[0], query[1] // block[1] * block[1]
        near = left - reach[1] <= key[1] < left + block[1] + reach[1]
        return near and top - reach[0] <= key[0] < top + block[0]

    sees = [[drawn(k) <= drawn(q) and in_memory(q, k) for k in places] for q in places]
    order = sorted(range(len(places)), key=lambda i: drawn(places[i]))
    return torch.tensor(order), torch.tensor(sees)


LAYOUTS = [((5, 9), (2, 4), (1, 2)), ((4, 6), (3, 2), (2, 1)), ((1, 23), (1, 4), (0, 6))]
LAYOUTS += [((6, 4), (2, 4), (3, 0))]


def it_is_full_attention_with_a_mask():
    """Blocks at the border are cut off; what is not in the memory has the weight zero."""
    for layout in LAYOUTS:
        order, sees = by_definition(*layout)
        neighbours = Neighbours(*layout)
        assert torch.equal(neighbours.order, order)
        layer = LocalAttention(24, 3, neighbours).double()
        q, k, v = (images(2, 3, len(order), 8, seed=seed).requires_grad_() for seed in range(3))
        wanted = F.scaled_dot_product_attention(q, k, v, sees[order][:, order])
        found = layer.attend(q, k, v)
        equal(found, wanted)
        direction = images(*wanted.shape, seed=3)
        for mine, theirs in zip(
            torch.autograd.grad((found * direction).sum(), (q, k, v)),
            torch.autograd.grad((wanted * direction).sum(), (q, k, v)),
            strict=True,
        ):
            equal(mine, theirs)


def same_as_local_attention():
    """1-D, where the memory reaches one block back, and where it reaches two."""
    for length, back in ((19, 1), (24, 2)):
        theirs = TheirLocalAttention(
            window_size=4,
            causal=True,
            look_backward=back,
            look_forward=0,
            autopad=True,
            use_rotary_pos_emb=False,
        )
        layer = LocalAttention(24, 3, Neighbours((1, length), (1, 4), (0, 4 * back))).double()
        q, k, v = (images(2, 3, length, 8, seed=seed) for seed in range(3))
        equal(layer.attend(q, k, v), theirs(q, k, v))


def one_block_is_causal_attention():
    local = randomise(LocalAttention(24, 3, FULL.neighbours)).double()
    plain = CausalAttention(24, 3).double()
    plain.load_state_dict(local.state_dict())
    x = images(2, 20, 24)
    equal(local(x), plain(x))


# The model ----------------------------------------------------------------------------------------


def the_block_is_pytorchs():
    """Its encoder layer, with the norm behind and a causal mask."""
    block = randomise(PostNormBlock(24, LocalAttention(24, 3, FULL.neighbours), ReluMlp(24, 40), 0))
    theirs = nn.TransformerEncoderLayer(24, 3, 40, 0.0, layer_norm_eps=1e-6, batch_first=True)
    names = {"attn.qkv.": "self_attn.in_proj_", "attn.proj.": "self_attn.out_proj."}
    names |= {"mlp.fc1.": "linear1.", "mlp.fc2.": "linear2."}
    state = block.state_dict()
    for ours, name in names.items():
        state = {key.replace(ours, name): tensor for key, tensor in state.items()}
    theirs.load_state_dict(state)
    x = images(2, 20, 24)
    mask = nn.Transformer.generate_square_subsequent_mask(20, dtype=torch.float64)
    equal(block.double()(x), theirs.double()(x, src_mask=mask))


def values_depend_on_what_they_see():
    """With one block, a value changes those logits alone that see the place drawn after it."""
    for sizes, layout in (
        (COLOUR, ((5, 9), (2, 4), (1, 2))),
        (ROW, ((1, 30), (1, 4), (0, 6))),
        (FULL, ((5, 4), (5, 4), (0, 0))),
    ):
        order, sees = by_definition(*layout)
        model, given = randomise(ImageTransformer(sizes)).double(), values(sizes, 1)
        model.blocks = model.blocks[:1]
        C, before = sizes.channels, model(given)
        for time in (0, 3, 7, 12, 18):
            place, after = order[time].item(), order[time + 1]
            other = given.clone()
            pixel = 0, place % C, place // C // sizes.image[1], place // C % sizes.image[1]
            other[pixel] = (other[pixel] + 1) % 7
            changed = (model(other) - before).abs().amax(dim=-1) > 1e-9
            assert torch.equal(changed[0].permute(1, 2, 0).flatten(), sees[:, after])


def all_images_together_have_probability_one():
    """All 64 images of 2 x 3 pixels that are black or white, drawn in blocks of a row and two."""
    sizes = Sizes(12, 2, 2, 20, (2, 3), channels=1, levels=2, block=(2, 2), reach=(1, 1))
    model = randomise(ImageTransformer(sizes)).double()
    everything = torch.tensor(list(itertools.product(range(2), repeat=6))).view(-1, 1, 2, 3)
    likelihoods = torch.stack([(-6 * model.loss(one[None])).exp() for one in everything])
    equal(likelihoods.sum(), torch.ones((), dtype=torch.float64))


def half_of_a_place_tells_the_row():
    """Half is the same in all of a row; half is the same for one column and channel."""
    model = ImageTransformer(COLOUR)
    table = model.position[0].unflatten(0, (5, 9))  # (h, w*C, D)
    column, row = table.chunk(2, dim=-1)
    assert torch.equal(row, row[:, :1].expand_as(row))
    assert torch.equal(column, column[:1].expand_as(column))
    assert torch.equal(column[0, :, 0], torch.arange(9.0).sin())
    assert torch.equal(row[:, 0, 0], torch.arange(5.0).sin())
    # and each value gets that of its own place, whatever the order
    randomise(model).double()
    nn.init.zeros_(model.embed.weight), nn.init.zeros_(model.prefix)
    model.blocks, model.head = nn.ModuleList(), nn.Identity()
    found = model(values(COLOUR, 1))[0]  # (C, H, W, D)
    equal(found.permute(1, 2, 0, 3).flatten(1, 2), table.double(), "places")


def completions_are_drawn_in_order():
    """What is not drawn yet may hold anything; what is known stays."""
    model, given = randomise(ImageTransformer(COLOUR)).double(), values(COLOUR, 2)
    known = torch.zeros(5, 3, dtype=torch.bool)
    known[:2] = True
    found = image_transformer.complete(model, given, known, torch.Generator().manual_seed(4), 0.6)
    assert torch.equal(found[:, :, :2], given[:, :, :2])
    order, _ = by_definition((5, 9), (2, 4), (1, 2))
    generator, drawn = torch.Generator().manual_seed(4), values(COLOUR, 2, seed=9)
    drawn[:, :, :2] = given[:, :, :2]
    row = drawn.permute(0, 2, 3, 1).flatten(1)
    for place in order.tolist():
        if place >= 2 * 9:
            now = row.view(2, 5, 3, 3).permute(0, 3, 1, 2)
            logits = model(now).permute(0, 2, 3, 1, 4).flatten(1, 3)[:, place] / 0.6
            row[:, place] = torch.multinomial(
                logits.softmax(dim=-1), 1, generator=generator
            ).flatten()
    assert torch.equal(found.permute(0, 2, 3, 1).flatten(1), row)


PROOFS = [
    it_is_full_attention_with_a_mask,
    same_as_local_attention,
    one_block_is_causal_attention,
    the_block_is_pytorchs,
    values_depend_on_what_they_see,
    all_images_together_have_probability_one,
    half_of_a_place_tells_the_row,
    completions_are_drawn_in_order,
]


# Errors of one line -------------------------------------------------------------------------------

MAKE = Neighbours.__init__


def without_border(self, grid, block, reach):
    MAKE(self, grid, block, (0, 0))


def looks_ahead(self, grid, block, reach):
    MAKE(self, grid, block, reach)
    self.visible = (self.memory >= 0)[:, None].expand_as(self.visible)


def in_raster_order(self, grid, block, reach):
    MAKE(self, grid, block, reach)
    self.order = self.order.sort().values


def not_itself(self, grid, block, reach):
    MAKE(self, grid, block, reach)
    self.visible = self.visible & (self.memory[:, None] != self.queries[..., None])


def norm_before(self, x, grid=None):
    x = x + self.drop(self.attn(self.norm1(x), grid))
    return x + self.drop(self.mlp(self.norm2(x), grid))


def with_gelu(self, x, grid=None):
    return self.fc2(F.gelu(self.fc1(x)))


def in_sum(self, images):
    return F.cross_entropy(self(images).flatten(0, 3), images.flatten(), reduction="sum")


def rows_first(dim, grid):
    return image_transformer_sincos(dim, grid).roll(dim // 2, dims=-1)


image_transformer_sincos = image_transformer.sincos


def all_at_once(model, images, known, generator=None, temperature=1.0):
    logits = model(images).flatten(0, 3) / temperature
    drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).view_as(images)
    return torch.where(known, images, drawn)


PLANTED = {
    "the memory is the block": (
        (Neighbours, "__init__", without_border),
        it_is_full_attention_with_a_mask,
    ),
    "the memory of 1-D is the block": (
        (Neighbours, "__init__", without_border),
        same_as_local_attention,
    ),
    "later values are seen": (
        (Neighbours, "__init__", looks_ahead),
        all_images_together_have_probability_one,
    ),
    "later values are seen in one block": (
        (Neighbours, "__init__", looks_ahead),
        one_block_is_causal_attention,
    ),
    "drawn in the order of a raster": (
        (Neighbours, "__init__", in_raster_order),
        values_depend_on_what_they_see,
    ),
    "a place does not see itself": (
        (Neighbours, "__init__", not_itself),
        it_is_full_attention_with_a_mask,
    ),
    "the norm comes before the branch": (
        (PostNormBlock, "forward", norm_before),
        the_block_is_pytorchs,
    ),
    "GELU for ReLU": ((ReluMlp, "forward", with_gelu), the_block_is_pytorchs),
    "the loss is a sum": (
        (ImageTransformer, "loss", in_sum),
        all_images_together_have_probability_one,
    ),
    "rows for columns": (
        (image_transformer, "sincos", rows_first),
        half_of_a_place_tells_the_row,
    ),
    "all values are drawn at once": (
        (image_transformer, "complete", all_at_once),
        completions_are_drawn_in_order,
    ),
}
