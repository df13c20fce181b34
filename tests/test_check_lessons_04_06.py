"""The checks of lessons 04-06: right answers pass, every mistake is named, no mutant survives."""

import ast
import math
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import nn

from tests.test_check_trace import OtherOrder, Own
from tests.wrong import SPOILED, compiled, mutants, spoil
from vitcourse import probe, vit
from vitcourse.check.lessons import lesson04, lesson05, lesson06
from vitcourse.check.runner import build_module, equal, judge
from vitcourse.config import Config

LESSONS = {"04": lesson04, "05": lesson05, "06": lesson06}
EXERCISES = {e.name: e for lesson in LESSONS.values() for e in lesson.EXERCISES}
CODE = [name for name, e in EXERCISES.items() if e.kind != "number"]
NUMBERS = [name for name, e in EXERCISES.items() if e.kind == "number"]
MODULES = [name for name, e in EXERCISES.items() if e.kind == "module"]
MISTAKES = [(name, m.name) for name, e in EXERCISES.items() for m in e.mistakes]


def status(name, answer):
    return judge(EXERCISES[name], answer).status


# The cards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXERCISES)
def test_a_card_is_complete(name):
    exercise = EXERCISES[name]
    assert LESSONS[exercise.lesson].EXERCISES.count(exercise) == 1
    assert exercise.minutes >= 2 and exercise.difficulty in (1, 2, 3)
    assert len(exercise.hints) >= 3 and len(exercise.mistakes) >= 3
    assert len({m.name for m in exercise.mistakes}) == len(exercise.mistakes)
    for mistake in exercise.mistakes:
        assert mistake.sentence and mistake.sentence[-1] not in ".!", mistake.name
        assert ". " not in mistake.sentence, "one sentence"
    assert "!" not in exercise.task + "".join(exercise.hints)


@pytest.mark.parametrize("name", CODE)
def test_no_two_axes_have_one_length(name):
    for case in EXERCISES[name].cases:
        assert len(set(case.sizes.values())) == len(case.sizes), case.about


def test_no_softmax_is_saturated():
    for name in ("self_attention", "multi_head", "block", "vit"):
        exercise = EXERCISES[name]
        for case in exercise.cases:
            module = build_module(exercise, exercise.reference, case)
            with probe.record_attention(module) as maps:
                module(*case.arguments())
            assert all(weights.max() < 0.999 for weights in maps)
            assert torch.cat([w.amax(-1).flatten() for w in maps]).mean() < 0.7, case.about


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_that_is_shown_solves_it(name):
    exercise = EXERCISES[name]
    names = {}
    exec(exercise.solution_source(), vars(LESSONS[exercise.lesson]).copy(), names)
    assert status(name, list(names.values())[-1]) == "right"


def test_questions_have_one_right_answer():
    questions = {}
    for lesson in LESSONS.values():
        assert not questions.keys() & lesson.QUESTIONS.keys()
        questions |= lesson.QUESTIONS
    assert len(questions) >= 8
    for question, (right, why, rules) in questions.items():
        assert right not in rules and len(rules) >= 2, question
        assert why.endswith(".") and all(rule[-1] in ".?" for rule in rules.values())


def test_the_answers_to_the_questions_are_true():
    model = vit.make_vit("B/16")
    truth = {}
    for lesson in LESSONS.values():
        truth |= {question: right for question, (right, *_) in lesson.QUESTIONS.items()}
    table, block = model.position.table, model.blocks[0]
    fc = block.mlp.fc1.weight.numel() + block.mlp.fc2.weight.numel()
    attn = block.attn.qkv.weight.numel() + block.attn.proj.weight.numel()
    maps = [m for m in model.modules() if isinstance(m, vit.Attention)]
    computed = {
        "numbers in one attention map": table.shape[1] ** 2,
        "attention maps in one": len(maps) * block.attn.heads,
        "heads of ViT-B": table.shape[2] // 64,
        "how many times": (28 * 28) ** 2 / (14 * 14) ** 2,
        "sum of one row": 1,
        "hidden width": block.mlp.fc1.out_features,
        "means that one": 2 * table.shape[1],
        "share of a block": round(100 * fc / (fc + attn)),
        "logits that": 8 * model.head.out_features,
        "tokens that the head": model.prefix_len,
        "rows in the position": table.shape[1],
        "layer norms in": sum(isinstance(m, nn.LayerNorm) for m in model.modules()),
    }
    for question, right in truth.items():
        (key,) = [key for key in computed if question.startswith(key)]
        assert computed[key] == right, question
    assert len(computed) == len(truth)
    assert EXERCISES["block_parameters"].reference == sum(
        p.numel() for p in lesson05.PackageBlock(192, 3, 768).parameters()
    )


# Not attempted ------------------------------------------------------------------------------------


def empty_function(*arguments):
    """To be written."""
    ...


def passed(*arguments):
    pass


def dots(*arguments):
    return ...


def to_do(*arguments):
    raise NotImplementedError


class EmptyModule(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        ...

    def forward(self, x): ...


class EmptyHead(nn.Linear):
    def forward(self, x):
        """To be written."""


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_is_not_attempted(name):
    stubs = [None, ...]
    if name in MODULES:
        stubs += [EmptyModule, EmptyHead]
    elif name in CODE:
        stubs += [empty_function, passed, dots, to_do]
    for stub in stubs:
        verdict = judge(EXERCISES[name], stub)
        assert verdict.status == "not attempted" and f'check.hint("{name}")' in verdict.message


# Right answers, built in different ways -----------------------------------------------------------


def scores_by_loops(q, k):
    rows = [[[a @ b for b in keys] for a in queries] for queries, keys in zip(q, k, strict=True)]
    return torch.stack([torch.stack([torch.stack(r) for r in m]) for m in rows]) * q.size(2) ** -0.5


def scores_by_einsum(q, k):
    return einsum(q / math.sqrt(q.shape[-1]), k, "B i d, B j d -> B i j")


def weights_by_hand(scores):
    shares = torch.exp(scores - scores.amax(-1, keepdim=True))
    return shares / shares.sum(-1, keepdim=True)


def weights_by_loops(scores):
    return torch.stack([torch.stack([F.softmax(row, 0) for row in m]) for m in scores])


def weights_by_log(scores):
    return torch.exp(scores - torch.logsumexp(scores, dim=2)[..., None])


def attention_by_loops(q, k, v):
    images = []
    for b in range(len(q)):
        tokens = []
        for query in q[b]:
            share = (k[b] @ query / q.shape[2] ** 0.5).softmax(0)
            tokens.append(sum(w * value for w, value in zip(share, v[b], strict=True)))
        images.append(torch.stack(tokens))
    return torch.stack(images)


def attention_by_einsum(q, k, v):
    shares = torch.einsum("bid,bjd->bij", q, k).mul(q.shape[-1] ** -0.5).softmax(2)
    return torch.einsum("bij,bjd->bid", shares, v)


def attention_by_bmm(q, k, v):
    return torch.bmm(weights_by_hand(torch.bmm(q / q.shape[2] ** 0.5, k.mT)), v)


def split_by_einops(x, heads):
    return rearrange(x, "B T (K d) -> B K T d", K=heads)


def split_by_pieces(x, heads):
    return torch.stack(x.split(x.shape[-1] // heads, dim=-1), dim=1)


def merge_by_einops(x):
    return rearrange(x, "B K T d -> B T (K d)")


def merge_by_pieces(x):
    return torch.cat(x.unbind(1), dim=-1)


class OneHeadByTorch(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        return self.proj(F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1)))


class OneHeadByParts(OneHeadByTorch):
    def forward(self, x):
        wide = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q, k, v = (
            F.linear(x, weight[i : i + wide], bias[i : i + wide]) for i in wide * np.arange(3)
        )
        return self.proj(attention_by_loops(q, k, v))


class HeadsByTorch(nn.Module):
    """The arithmetic of nn.MultiheadAttention."""

    def __init__(self, dim, heads):
        super().__init__()
        self.number, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        x = x.transpose(0, 1)
        dim, qkv, proj = x.shape[-1], self.qkv, self.proj
        parts = (qkv.weight, qkv.bias, None, None, False, 0.0, proj.weight, proj.bias)
        x, _ = F.multi_head_attention_forward(x, x, x, dim, self.number, *parts, need_weights=False)
        return x.transpose(0, 1)


class HeadsByLoop(HeadsByTorch):
    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=2)
        d = x.shape[2] // self.number
        cuts = [slice(i * d, (i + 1) * d) for i in range(self.number)]
        heads = [attention_by_einsum(q[..., cut], k[..., cut], v[..., cut]) for cut in cuts]
        return self.proj(torch.cat(heads, dim=2))


def norm_by_hand(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred**2).mean(-1, keepdim=True) + 1e-6) * weight + bias


def norm_by_loops(x, weight, bias):
    def one(token):
        mean = token.sum() / len(token)
        variance = ((token - mean) ** 2).sum() / len(token)
        return weight * ((token - mean) / torch.sqrt(variance + 1e-6)) + bias

    return torch.stack([torch.stack([one(token) for token in tokens]) for tokens in x])


def norm_by_torch(x, weight, bias):
    return torch.layer_norm(x, [x.shape[-1]], weight, bias, eps=1e-6)


def gelu_by_normal(x):
    return x * torch.distributions.Normal(0.0, 1.0).cdf(x)


def gelu_by_erfc(x):
    return x * torch.erfc(-x * 0.5**0.5) / 2


class MlpByLayers(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x):
        for layer in (self.fc1, self.act, self.fc2):
            x = layer(x)
        return x


class MlpByHand(MlpByLayers):
    def forward(self, x):
        hidden = gelu_by_erfc(x @ self.fc1.weight.T + self.fc1.bias)
        return torch.einsum("btm,dm->btd", hidden, self.fc2.weight) + self.fc2.bias


class BlockFromLessons(nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = HeadsByLoop(dim, heads), MlpByLayers(dim, hidden)

    def forward(self, x):
        for norm, branch in ((self.norm1, self.attn), (self.norm2, self.mlp)):
            x = x + branch(norm(x))
        return x


class BlockByHand(BlockFromLessons):
    def forward(self, x):
        y = norm_by_hand(x, self.norm1.weight, self.norm1.bias)
        middle = torch.add(x, self.attn(y))
        y = norm_by_hand(middle, self.norm2.weight, self.norm2.bias)
        return torch.stack([middle, self.mlp(y)]).sum(0)


def drop_by_where(x, rate, noise):
    return torch.where(noise[:, None, None] < rate, 0.0, x / (1 - rate))


def drop_by_loop(x, rate, noise):
    kept = [b if n >= rate else torch.zeros_like(b) for b, n in zip(x, noise, strict=True)]
    return torch.stack(kept) / (1 - rate)


def drop_by_index(x, rate, noise):
    result = torch.zeros_like(x)
    result[noise >= rate] = x[noise >= rate] / (1 - rate)
    return result


class HeadOfParameters(nn.Module):
    def __init__(self, dim, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, dim))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x):
        return torch.einsum("bd,cd->bc", x.select(1, 0), self.weight) + self.bias


class HeadOnAll(HeadOfParameters):
    def forward(self, x):
        return F.linear(x, self.weight, self.bias)[:, 0]


RIGHT = {
    "scores": [scores_by_loops, scores_by_einsum, lambda a, b: (b / b.shape[2] ** 0.5 @ a.mT).mT],
    "weights": [weights_by_hand, weights_by_loops, weights_by_log, nn.Softmax(dim=2)],
    "attention": [attention_by_loops, attention_by_einsum, attention_by_bmm],
    "head_width": [768 // 12, 768 / 12, np.int64(64), torch.tensor(64)],
    "split_heads": [split_by_einops, split_by_pieces],
    "merge_heads": [merge_by_einops, merge_by_pieces],
    "self_attention": [OneHeadByTorch, OneHeadByParts],
    "multi_head": [HeadsByTorch, HeadsByLoop],
    "layer_norm": [norm_by_hand, norm_by_loops, norm_by_torch],
    "gelu": [gelu_by_normal, gelu_by_erfc, nn.GELU(), lambda x: x * torch.special.ndtr(x)],
    "mlp": [MlpByLayers, MlpByHand],
    "block": [BlockFromLessons, BlockByHand],
    "drop_path": [drop_by_where, drop_by_loop, drop_by_index],
    "class_head": [HeadOfParameters, HeadOnAll],
    "vit": [Own, OtherOrder],
    "first_loss": [
        6.9078,
        6.91,
        math.log(1000),
        F.cross_entropy(torch.zeros(1, 1000), torch.tensor([3])),
    ],
    "block_parameters": [
        444864,
        sum(p.numel() for p in vit.ViT(Config(192, 1, 3)).blocks.parameters()),
    ],
}


@pytest.mark.parametrize("name", EXERCISES)
def test_right_answers_are_right_however_they_are_built(name):
    exercise = EXERCISES[name]
    answers = [exercise.reference, *RIGHT[name]]
    assert len(answers) >= 3
    for answer in answers:
        verdict = judge(exercise, answer)
        assert verdict.status == "right", (answer, verdict.message)
        assert all(case.about in verdict.message for case in exercise.cases)


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_mistake_is_refused_and_named(name, mistake):
    (known,) = [m for m in EXERCISES[name].mistakes if m.name == mistake]
    verdict = judge(EXERCISES[name], known.implementation)
    assert (verdict.status, verdict.mistake) == ("wrong", mistake), verdict.message
    assert known.sentence in verdict.message


# Wrong answers that no catalogue holds ------------------------------------------------------------


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("name", CODE)
def test_other_wrong_answers_are_refused_in_the_right_words(name, kind):
    options, words = SPOILED[kind]
    verdict = judge(EXERCISES[name], spoil(EXERCISES[name], **options))
    assert (verdict.status, verdict.mistake) == ("wrong", None), verdict.message
    assert words in verdict.message


@pytest.mark.parametrize("name", MODULES)
def test_a_module_needs_the_names_of_the_parameters(name):
    exercise = EXERCISES[name]
    solution = exercise.solution
    wanted = [n for n, _ in solution(*exercise.cases[0].build).named_parameters()]

    class Renamed(solution):
        def named_parameters(self, *arguments, **options):
            for n, p in super().named_parameters(*arguments, **options):
                yield n.replace(wanted[-1], "other"), p

    class TooMany(solution):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.extra = nn.Parameter(torch.ones(3))

    class TooWide(solution):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            first = dict(self.named_parameters())[wanted[0]]
            first.data = torch.cat([first.data, first.data])

    verdict = judge(exercise, Renamed)
    assert verdict.status == "wrong"
    assert f"no parameter {wanted[-1]}" in verdict.message
    assert "is it your other?" in verdict.message
    assert "a parameter extra too many" in judge(exercise, TooMany).message
    assert f"the parameter {wanted[0]} has the shape" in judge(exercise, TooWide).message
    made = solution(*exercise.cases[0].build)
    assert "give the class itself" in judge(exercise, made).message
    assert status(name, lambda *sizes: made) == status(name, made.forward) == "wrong"


@pytest.mark.parametrize("name", [name for name in CODE if name not in MODULES])
def test_a_function_is_given_without_being_called(name):
    exercise = EXERCISES[name]
    value = exercise.reference(*exercise.cases[0].arguments())
    assert "without calling it" in judge(exercise, value).message


@pytest.mark.parametrize("name", NUMBERS)
def test_other_numbers_are_refused(name):
    right = EXERCISES[name].reference
    for answer in (right + 1, right - 1, 2 * right, right / 2, -right - 1, right * 1.01):
        assert status(name, answer) == "wrong", answer
    assert "too large" in judge(EXERCISES[name], right * 5).message
    for answer in ("64", [right], True, torch.ones(2)):
        assert "the answer is a number" in judge(EXERCISES[name], answer).message


# Mutants: one small change anywhere in a plain solution -------------------------------------------

SOURCES = {
    "scores": """
        def answer(q, k):
            d = q.shape[-1]
            products = torch.matmul(q, k.permute(0, 2, 1))
            return products / d ** 0.5
        """,
    "weights": """
        def answer(scores):
            scores = scores - scores.amax(2, keepdim=True)
            shares = scores.exp()
            return shares / shares.sum(2, keepdim=True)
        """,
    "attention": """
        def answer(q, k, v):
            d = q.shape[2]
            scores = torch.matmul(q, k.permute(0, 2, 1)) / d ** 0.5
            weights = torch.softmax(scores, 2)
            return torch.matmul(weights, v)
        """,
    "split_heads": """
        def answer(x, heads):
            B, T, D = x.shape
            x = x.reshape(B, T, heads, D // heads)
            return x.permute(0, 2, 1, 3)
        """,
    "merge_heads": """
        def answer(x):
            B, K, T, d = x.shape
            x = x.permute(0, 2, 1, 3)
            return x.reshape(B, T, K * d)
        """,
    "self_attention": """
        class answer(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

            def forward(self, x):
                D = x.shape[2]
                qkv = self.qkv(x)
                q, k, v = qkv[..., :D], qkv[..., D : 2 * D], qkv[..., 2 * D :]
                scores = torch.matmul(q, k.permute(0, 2, 1)) / D ** 0.5
                x = torch.matmul(scores.softmax(2), v)
                return self.proj(x)
        """,
    "multi_head": """
        class answer(nn.Module):
            def __init__(self, dim, heads):
                super().__init__()
                self.heads = heads
                self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

            def forward(self, x):
                B, T, D = x.shape
                d = D // self.heads
                qkv = self.qkv(x).reshape(B, T, 3, self.heads, d)
                q, k, v = qkv.permute(2, 0, 3, 1, 4)
                scores = torch.matmul(q, k.permute(0, 1, 3, 2)) / d ** 0.5
                weights = torch.softmax(scores, 3)
                x = torch.matmul(weights, v)
                x = x.permute(0, 2, 1, 3)
                x = x.reshape(B, T, D)
                return self.proj(x)
        """,
    "layer_norm": """
        def answer(x, weight, bias):
            x = x - x.mean(2, keepdim=True)
            variance = (x * x).mean(2, keepdim=True)
            x = x / torch.sqrt(variance + 1e-6)
            x = x * weight
            return x + bias
        """,
    "gelu": """
        def answer(x):
            root = 2 ** 0.5
            share = (1 + torch.erf(x / root)) / 2
            return torch.mul(x, share)
        """,
    "mlp": """
        class answer(nn.Module):
            def __init__(self, dim, hidden):
                super().__init__()
                self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

            def forward(self, x):
                x = torch.matmul(x, self.fc1.weight.T) + self.fc1.bias
                x = x * (1 + torch.erf(x / 2 ** 0.5)) / 2
                return torch.matmul(x, self.fc2.weight.T) + self.fc2.bias
        """,
    "block": """
        class answer(nn.Module):
            def __init__(self, dim, heads, hidden):
                super().__init__()
                self.norm1, self.attn = nn.LayerNorm(dim, 1e-6), vit.Attention(dim, heads)
                self.norm2, self.mlp = nn.LayerNorm(dim, 1e-6), vit.Mlp(dim, hidden)

            def forward(self, x):
                branch = self.norm1(x)
                branch = self.attn(branch)
                x = x + branch
                branch = self.norm2(x)
                branch = self.mlp(branch)
                x = x + branch
                return x
        """,
    "drop_path": """
        def answer(x, rate, noise):
            keep = torch.ge(noise, rate)
            keep = keep.to(x.dtype)
            keep = keep.reshape(len(x), 1, 1)
            x = x * keep
            return x / (1 - rate)
        """,
    "class_head": """
        class answer(nn.Linear):
            def forward(self, x):
                x = x[:, 0]
                return torch.matmul(x, self.weight.T) + self.bias
        """,
    "vit": """
        class answer(nn.Module):
            def __init__(self, image, patch, channels, dim, depth, heads, classes):
                super().__init__()
                grid = image[0] // patch, image[1] // patch
                self.patch_embed = vit.PatchEmbed(channels, dim, patch)
                self.prefix = nn.Parameter(torch.zeros(1, 1, dim))
                self.position = vit.LearnedPosition(dim, grid, 1)
                self.blocks = nn.ModuleList(
                    vit.Block(dim, vit.Attention(dim, heads), vit.Mlp(dim, 4 * dim))
                    for _ in range(depth)
                )
                self.norm = vit.LayerNorm(dim)
                self.head = nn.Linear(dim, classes)

            def forward(self, images):
                x = self.patch_embed.proj(images)
                x = x.flatten(2)
                x = x.permute(0, 2, 1)
                token = self.prefix.repeat(len(x), 1, 1)
                x = torch.cat([token, x], 1)
                x = x + self.position.table
                for block in self.blocks:
                    x = block(x)
                x = self.norm(x)
                x = x[:, 0]
                return self.head(x)
        """,
}
# What a mutant may change without changing the result: the reason, which 200 inputs confirm
EQUIVALENT = {
    (
        "weights",
        "scores = scores - scores.amax(2, keepdim=True) -> "
        "scores = scores + scores.amax(2, keepdim=True)",
    ): "softmax does not change when one number is added to a whole row, whatever its sign",
    (
        "weights",
        "scores = scores - scores.amax(2, keepdim=True) -> pass",
    ): "subtracting the largest score only guards against overflow, and no case overflows",
    (
        "gelu",
        "return torch.mul(x, share) -> return torch.mul(share, x)",
    ): "the factors of a product commute",
    ("drop_path", "keep = keep.to(x.dtype) -> pass"): "True and False multiply as 1 and 0",
}


@pytest.mark.parametrize("name", CODE)
def test_no_mutant_of_a_solution_is_accepted(name):
    assert status(name, compiled(ast.unparse(ast.parse(textwrap.dedent(SOURCES[name]))))) == "right"
    accepted, count = [], 0
    for line, text in mutants(SOURCES[name]):
        count += 1
        if status(name, compiled(text)) == "right":
            accepted.append(line)
    assert count >= 7
    print(f"{name}: {count} mutants, {len(accepted)} accepted")
    assert set(accepted) == {line for other, line in EQUIVALENT if other == name}


@pytest.mark.parametrize(("name", "line"), EQUIVALENT)
def test_an_accepted_mutant_gives_the_same_for_any_input(name, line):
    exercise = EXERCISES[name]
    assert len(EQUIVALENT[name, line]) > 20
    (text,) = {text for changed, text in mutants(SOURCES[name]) if changed == line}
    mutant, right = compiled(text), exercise.reference
    case = exercise.cases[0]
    if exercise.kind == "module":
        mutant, right = (build_module(exercise, kind, case) for kind in (mutant, right))
    for seed in range(200):
        inputs = case.inputs(torch.Generator().manual_seed(1000 + seed))
        assert equal(mutant(*inputs), right(*inputs), exercise.tolerance)


def test_every_code_exercise_has_a_source_to_mutate():
    assert set(SOURCES) == set(CODE) and set(RIGHT) == set(EXERCISES)
