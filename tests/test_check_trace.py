"""`check.trace`: errors planted at every depth of a whole ViT are found at the right stage."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitcourse import vit
from vitcourse.check.walk import trace
from vitcourse.config import Config

SIZES = dict(image=(12, 24), patch=6, channels=3, dim=20, depth=3, heads=5, classes=7)


# A whole ViT as a learner would write it, with a place for each error ----------------------------


class Patches(nn.Module):
    def __init__(self, channels, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, images):
        x = self.proj(images)
        if self.wrong == "patches column by column":
            x = x.transpose(2, 3)
        if self.wrong == "patches reshaped":
            return x.reshape(len(x), -1, x.shape[1])
        return x.flatten(2).transpose(1, 2)


class Table(nn.Module):
    def __init__(self, count, dim):
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(1, count, dim))

    def forward(self, x):
        return x + self.table


class Attend(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, T, D = x.shape
        K, d, wrong = self.heads, D // self.heads, self.wrong
        qkv = self.qkv(x)
        if wrong == "heads cut in the wrong order":
            q, k, v = qkv.reshape(B, T, 3, d, K).permute(2, 0, 4, 1, 3)
        elif wrong == "heads cut by a reshape":
            q, k, v = (part.reshape(B, K, T, d) for part in qkv.chunk(3, dim=-1))
        else:
            q, k, v = qkv.reshape(B, T, 3, K, d).permute(2, 0, 3, 1, 4)
        if wrong == "queries and keys exchanged":
            q, k = k, q
        if wrong == "q, k, v in another order":
            q, v = v, q
        factor = {"no scale": 1, "divided by d": 1 / d, "scale by the whole width": D**-0.5}
        scores = torch.einsum("bkid,bkjd->bkij", q, k) * factor.get(wrong, d**-0.5)
        over = {"softmax over the queries": 2, "softmax over the heads": 1}
        weights = scores if wrong == "no softmax" else scores.softmax(over.get(wrong, 3))
        x = weights @ (k if wrong == "keys for values" else v)
        if wrong != "heads merged without a transpose":
            x = x.transpose(1, 2)
        x = x.reshape(B, T, D)
        return x if wrong == "no projection" else self.proj(x)


class Widen(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        x = self.fc1(x)
        if self.wrong == "relu":
            x = x.relu()
        elif self.wrong == "tanh in place of erf in GELU":
            x = F.gelu(x, approximate="tanh")
        elif self.wrong != "no activation":
            x = F.gelu(x)
        return self.fc2(x)


class Encoder(nn.Module):
    def __init__(self, dim, heads, eps):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps), Attend(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps), Widen(dim, 4 * dim)

    def forward(self, x):
        wrong = self.wrong
        if wrong == "norm after instead of before":
            x = self.norm1(x + self.attn(x))
            return self.norm2(x + self.mlp(x))
        if wrong == "in parallel":
            return x + self.attn(self.norm1(x)) + self.mlp(self.norm2(x))
        if wrong == "norms exchanged":
            x = x + self.attn(self.norm2(x))
            return x + self.mlp(self.norm1(x))
        branch = self.attn(self.norm1(x))
        x = branch if wrong == "no first residual" else x + branch
        branch = self.mlp(self.norm1(x) if wrong == "the first norm used twice" else self.norm2(x))
        return branch if wrong == "no second residual" else x + branch


class Own(nn.Module):
    """`wrong` names the error, `where` the block that has it; without `where`, all of them."""

    def __init__(self, image, patch, channels, dim, depth, heads, classes, wrong="", where=None):
        super().__init__()
        eps = 1e-5 if wrong == "eps of 1e-5" else 1e-6
        self.patch_embed = Patches(channels, dim, patch)
        self.prefix = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.position = Table(1 + image[0] // patch * (image[1] // patch), dim)
        self.blocks = nn.ModuleList(Encoder(dim, heads, eps) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps)
        self.head = nn.Linear(dim, classes)
        for module in self.modules():
            module.wrong = wrong if where is None else ""
        if where is not None:
            for module in self.blocks[where - 1].modules():
                module.wrong = wrong

    def forward(self, images):
        x, wrong = self.patch_embed(images), self.wrong
        token = self.prefix.repeat(len(x), 1, 1)
        if wrong == "positions only for patches":
            x = torch.cat([token, x + self.position.table[:, 1:]], dim=1)
        elif wrong == "no positions":
            x = torch.cat([token, x], dim=1)
        else:
            both = [x, token] if wrong == "class token behind" else [token, x]
            x = self.position(torch.cat(both, dim=1))
        blocks = self.blocks[:-1] if wrong == "last block left out" else self.blocks
        blocks = self.blocks[1:] if wrong == "first block left out" else blocks
        blocks = reversed(list(blocks)) if wrong == "blocks in reverse" else blocks
        x = self.norm(x) if wrong == "norm before the blocks" else x
        begun = x
        for block in blocks:
            x = block(begun if wrong == "blocks side by side" else x)
        x = x if wrong in ("no final norm", "norm before the blocks") else self.norm(x)
        x = x.mean(1) if wrong == "mean of all" else x[:, 0]
        return self.head(x).softmax(-1) if wrong == "softmax at the end" else self.head(x)


IN_BLOCK = {
    "heads cut in the wrong order": "heads",
    "heads cut by a reshape": "heads",
    "q, k, v in another order": "heads",
    "queries and keys exchanged": "scores",
    "no scale": "scores",
    "divided by d": "scores",
    "scale by the whole width": "scores",
    "softmax over the queries": "weights",
    "softmax over the heads": "weights",
    "no softmax": "weights",
    "keys for values": "values",
    "heads merged without a transpose": "merge",
    "no projection": "projection",
    "norm after instead of before": "norm 1",
    "norms exchanged": "norm 1",
    "no first residual": "+ attention",
    "in parallel": "+ attention",
    "the first norm used twice": "norm 2",
    "relu": "hidden",
    "no activation": "hidden",
    "tanh in place of erf in GELU": "hidden",
    "no second residual": "+ MLP",
}
ELSEWHERE = {
    "patches column by column": "patches",
    "patches reshaped": "patches",
    "class token behind": "+ class",
    "no positions": "+ position",
    "positions only for patches": "+ position",
    "eps of 1e-5": "block 1, norm 1",
    "norm before the blocks": "block 1, norm 1",
    "first block left out": "block 1, norm 1",
    "blocks in reverse": "block 1, norm 1",
    "blocks side by side": "block 2, norm 1",
    "last block left out": "block 3, norm 1",
    "no final norm": "norm",
    "mean of all": "logits",
    "softmax at the end": "logits",
}
PLANTED = [(name, where) for name in IN_BLOCK for where in (None, 1, 2, 3)]
PLANTED += [(name, None) for name in ELSEWHERE]


def images(count=2):
    return torch.randn(count, 3, 12, 24, generator=torch.Generator().manual_seed(4))


def own(wrong="", where=None, trained=False):
    torch.manual_seed(2)
    model = Own(**SIZES, wrong=wrong, where=where)
    if trained:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    else:
        nn.init.zeros_(model.head.weight)  # as a new model starts
    return model


@pytest.mark.parametrize("trained", [False, True], ids=["new", "trained"])
@pytest.mark.parametrize(("wrong", "where"), PLANTED)
def test_a_planted_error_is_found_where_it_is(wrong, where, trained, capsys):
    found = trace(own(wrong, where, trained), images())
    stage = ELSEWHERE.get(wrong) or f"block {where or 1}, {IN_BLOCK[wrong]}"
    assert (found.stage, found.mistake, found.ok) == (stage, wrong, False)
    assert found.lines[-1].startswith(f"✗ {stage}: ")
    assert all(line.startswith("✓ ") for line in found.lines[:-1])
    assert capsys.readouterr().out.splitlines() == found.lines


@pytest.mark.parametrize("trained", [False, True])
def test_a_right_model_agrees_at_every_stage(trained):
    found = trace(own(trained=trained), images())
    assert found.ok and (found.stage, found.mistake) == ("", None)
    assert sum(line.startswith("✓ block") for line in found.lines) == 3
    assert found.lines[-1].startswith("every stage")


def test_every_known_error_names_its_own_stage_once():
    from vitcourse.check.walk import AFTER, BEFORE, BLOCK, ERRORS

    known = {*BEFORE, *BLOCK, *AFTER}
    for error in ERRORS:
        assert error.stage.split(", ")[-1] in known, error.name
        assert error.sentence and not error.sentence.endswith("."), error.name
    assert set(IN_BLOCK) | set(ELSEWHERE) <= {error.name for error in ERRORS}


# Models built in other ways, which are right ------------------------------------------------------


class Functional(Own):
    """Nothing but functions of the parameters: no submodule is ever called."""

    def forward(self, images):
        p = dict(self.named_parameters())
        x = F.conv2d(images, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=6)
        x = torch.cat([p["prefix"].expand(len(x), -1, -1), x.flatten(2).mT], 1)
        x = x + p["position.table"]

        def norm(name, x):
            return F.layer_norm(x, (20,), p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)

        def linear(name, x):
            return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

        for i in range(3):
            qkv = linear(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", x))
            q, k, v = qkv.unflatten(-1, (3, 5, 4)).permute(2, 0, 3, 1, 4)
            scale = 1.0 if self.wrong == "no scale" else None
            y = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)
            x = x + linear(f"blocks.{i}.attn.proj", y)
            y = F.gelu(linear(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", x)))
            x = x + linear(f"blocks.{i}.mlp.fc2", y)
        return linear("head", norm("norm", x)[:, 0])


def test_a_model_without_visible_stages_is_compared_by_its_logits():
    torch.manual_seed(2)
    found = trace(Functional(**SIZES), images())
    assert found.ok and "could be seen" in found.lines[-1]
    found = trace(Functional(**SIZES, wrong="no scale"), images())
    assert (found.stage, found.mistake) == ("block 1, scores", "no scale")


class OtherOrder(Own):
    """Positions added before the tokens are joined; the norm for the class token alone."""

    def forward(self, images):
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        table = self.position.table
        x = torch.cat([(self.prefix + table[:, :1]).expand(len(x), -1, -1), x + table[:, 1:]], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


class OneByOne(Own):
    """The position module called in a way of its own, before the joining."""

    def forward(self, images):
        x = F.pad(self.patch_embed(images), (0, 0, 1, 0))
        x = self.position(x) + F.pad(self.prefix, (0, 0, 0, x.shape[1] - 1))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class KeepsMaps(Own):
    """Keeps a result, which makes a plain deepcopy fail."""

    def forward(self, images):
        self.kept = super().forward(images)
        return self.kept


class OnlySingle(Own):
    """Makes numbers of single precision on the way."""

    def forward(self, images):
        return super().forward(images) @ torch.eye(7)


@pytest.mark.parametrize("kind", [OtherOrder, OneByOne, KeepsMaps, OnlySingle])
def test_another_way_to_build_it_is_no_error(kind):
    torch.manual_seed(2)
    model = kind(**SIZES)
    model(images())
    found = trace(model, images())
    assert found.ok, found.lines
    # and an error in it is still found where it is
    model.blocks[1].attn.wrong = "no scale"
    found = trace(model, images())
    assert (found.stage, found.mistake) == ("block 2, scores", "no scale")


def test_the_packages_own_models_agree():
    cfg = Config(dim=20, depth=2, heads=5, patch=6, image=(12, 24), classes=7, mlp_ratio=1.45)
    assert trace(vit.ViT(cfg), images()).ok
    assert trace(vit.ViT.variant(registers=2)(cfg), images()[0]).ok


# What cannot be compared becomes a sentence -------------------------------------------------------


def test_an_unknown_error_is_still_located():
    model = own()
    model.blocks[1].attn.register_forward_hook(lambda m, x, y: y * 1.01)
    found = trace(model, images())
    assert (found.stage, found.mistake) == ("block 2, projection", None)
    model = own()
    model.blocks[2].mlp.fc2 = nn.Sequential(model.blocks[2].mlp.fc2)
    found = trace(model, images())
    assert not found.ok and "mlp.fc2.weight" in found.lines[-1]


class Strange(Attend):
    def forward(self, x):
        return self.proj(self.qkv(x)[..., :20].cos())


def test_what_happens_unseen_is_said():
    model = own()
    model.blocks[1].attn.__class__ = Strange
    found = trace(model, images())
    assert found.stage == "block 2, merge" and found.mistake is None
    assert "heads, scores, weights, values cannot be seen" in found.lines[-1]


def change(make):
    model = own()
    return make(model) or model


def rename(model):
    model.norm3 = model.norm
    del model.norm


def stop(model):
    model.blocks[1].mlp.forward = lambda x: x @ x


def nan(model):
    nn.init.constant_(model.blocks[0].mlp.fc1.bias, float("nan"))


def unknown_heads(model):
    for block in model.blocks:
        del block.attn.heads


def wider(model):
    model.blocks[1].norm2 = nn.LayerNorm(21)


def too_many(model):
    model.scale = nn.Parameter(torch.ones(1))


def no_logits(model):
    model.forward = lambda images: None


class WidthFirst(Patches):
    def forward(self, images):
        return self.proj(images).flatten(2)


def other_shape(model):
    model.patch_embed.__class__ = WidthFirst


def infinite(model):
    model.blocks[1].mlp.forward = lambda x: x / 0


SENTENCES = {
    rename: "no parameter norm.weight",
    stop: "block 2, hidden: the model stops with RuntimeError",
    nan: "blocks.0.mlp.fc1.bias holds NaN",
    unknown_heads: "heads=...",
    wider: "blocks.1.norm2.weight has the shape (21,), it must be (20,)",
    too_many: "scale too many",
    no_logits: "logits",
    other_shape: "patches: the model stops with RuntimeError",
    infinite: "NaN or infinity",
}


@pytest.mark.parametrize("make", SENTENCES, ids=lambda make: make.__name__)
def test_it_never_raises(make, capsys):
    found = trace(change(make), images())
    assert not found.ok and found.mistake is None
    assert SENTENCES[make] in found.lines[-1]
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "image", "part"),
    [
        (None, images(), "not NoneType"),
        (Own, images(), "an object of your class"),
        (own(), "cat.jpg", "must be a tensor"),
        (own(), images()[:, :1], "has 1 channels"),
        (own(), images()[..., :-1], "does not divide"),
        (own(), images()[..., :-6], "position.table has 9 rows"),
        (nn.Linear(3, 3), images(), "no parameter prefix"),
    ],
)
def test_wrong_arguments_become_one_sentence(model, image, part):
    found = trace(model, image)
    assert not found.ok and part in found.lines[-1]


def test_another_number_of_heads_is_noticed():
    found = trace(own(), images(), heads=4)
    assert (found.stage, found.mistake) == ("block 1, heads", "another number of heads")
    assert "cut into 5 heads" in found.lines[-1]


def test_heads_can_be_told():
    model = change(unknown_heads)
    for block in model.blocks:
        block.attn.forward = lambda x: x  # what does not matter here
    assert "heads=" not in trace(model, images(), heads=5).lines[-1]
    assert "choose a multiple" in trace(model, images(), heads=3).lines[-1]


def test_nothing_of_the_learners_is_changed():
    model = own("no scale").train()
    before = copy.deepcopy(model.state_dict())
    pictures, state = images(), torch.get_rng_state()
    trace(model, pictures)
    assert model.training and not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.head.weight.dtype == torch.float32 and torch.equal(pictures, images())
    assert torch.equal(torch.get_rng_state(), state)
