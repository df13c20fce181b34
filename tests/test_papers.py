"""Every system: counts, proofs, the errors that they notice, and what all models must do."""

import copy
import importlib
import pkgutil
import re
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
import torch

import tests.papers
from benchmarks import tables
from tests.proofs import batch_norms, randomise
from tests.shapes import ShapeComments
from vitcourse import papers
from vitcourse.papers import compare
from vitcourse.parts import MeanHead
from vitcourse.probe import record_attention
from vitcourse.vit import Attention, ViT

FILES = [module.name for module in pkgutil.iter_modules(tests.papers.__path__)]
EVIDENCE = {name: importlib.import_module(f"tests.papers.{name}") for name in FILES}
PACKAGE = Path(papers.__file__).parent


def gathered(kind):
    """What all files hold under a name: {"deepvit: its key": its value}."""
    found = {}
    for file, evidence in EVIDENCE.items():
        values = getattr(evidence, kind, {})
        if kind == "PROOFS":
            values = {proof.__name__: proof for proof in values}
        found |= {f"{file}: {key}": value for key, value in values.items()}
    return found


MODELS, PROOFS, PLANTED = gathered("MODELS"), gathered("PROOFS"), gathered("PLANTED")
OTHER_SIZES, GRAPH_BREAKS = gathered("OTHER_SIZES"), gathered("GRAPH_BREAKS")
COUNTS = {name: n for e in EVIDENCE.values() for name, n in getattr(e, "COUNTS", {}).items()}


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def test_each_system_has_its_evidence():
    assert set(papers.papers()) == set(EVIDENCE)
    for name, paper in papers.papers().items():
        assert len(EVIDENCE[name].PROOFS) >= 3, name
        assert not paper.models or EVIDENCE[name].MODELS, name
    assert len(GRAPH_BREAKS) <= 3


@pytest.mark.parametrize("file", FILES)
def test_it_says_what_it_is(file):
    lines = (PACKAGE / f"{file}.py").read_text().splitlines()
    paper = papers.papers()[file]
    assert re.search(r"\b(faithful|minimal)\b", lines[0])
    assert any(paper.link in line for line in lines[:6])
    assert paper.year >= 2018 and bool(paper.arxiv) != bool(paper.url)
    if paper.arxiv:
        assert re.fullmatch(r"\d{4}\.\d{5}", paper.arxiv)
        assert paper.arxiv[:2] in (str(paper.year)[2:], str(paper.year - 1)[2:])


# Counts -----------------------------------------------------------------------------------------


def test_every_configuration_is_counted():
    assert set(COUNTS) == set(papers.names())


@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name):
    assert compare.parameters(name) == COUNTS[name]


@pytest.mark.parametrize("name", compare.reported())
def test_the_reported_number_is_near(name):
    """Within the rounding of the paper's own figure, where its evidence states no reason."""
    text = compare.reported()[name]
    number = float(text.removesuffix("M").removesuffix("B")) * (1000 if text.endswith("B") else 1)
    digits = len(text.partition(".")[2]) - 1 if "." in text else 0
    if name not in gathered_exceptions():
        mine = compare.parameters(name) / 1e6
        assert abs(mine - number) <= 0.5 * 10**-digits + number * 0.01, (mine, text)


def gathered_exceptions():
    """Configurations whose reported number is known to be another: {name: why}."""
    return {k: v for e in EVIDENCE.values() for k, v in getattr(e, "MISREPORTED", {}).items()}


# Proofs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROOFS)
def test_proof(name):
    PROOFS[name]()


@pytest.mark.parametrize("name", PLANTED)
def test_an_error_is_noticed(name):
    patch, proof = PLANTED[name]
    with mock.patch.object(*patch), pytest.raises(AssertionError):
        proof()


def test_every_proof_can_fail():
    able = {id(proof) for _, proof in PLANTED.values()}
    assert not [name for name, proof in PROOFS.items() if id(proof) not in able]


# Shape comments ---------------------------------------------------------------------------------


def exercise(file):
    """Run everything that the evidence of a file runs."""
    for make in getattr(EVIDENCE[file], "MODELS", {}).values():
        model, images = make()
        randomise(model)(images)
        with record_attention(model) if has_attention(model) else nullcontext():
            model(images)
        model.train()(images)
    for proof in EVIDENCE[file].PROOFS:
        proof()


def has_attention(model):
    return any(isinstance(module, Attention) for module in model.modules())


@pytest.mark.parametrize("file", FILES)
def test_shape_comments(file):
    comments = ShapeComments(importlib.import_module(f"vitcourse.papers.{file}"))
    with comments.tracing(each_call=True):
        exercise(file)
    assert not comments.errors, "\n".join(comments.errors)
    assert not comments.unseen, f"never executed: lines {sorted(comments.unseen)}"


# What every model must do -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name):
    model, images = MODELS[name]()
    randomise(model).train()
    sum(part.square().sum() for part in parts(model(images))).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.numel():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, key


def parts(output):
    """The tensors that a model returns: one, or several."""
    output = output if isinstance(output, (tuple, list)) else [output]
    return [part for part in output if isinstance(part, torch.Tensor)]


def double(given):
    """What a model is given, as float64; the numbers of colours stay whole."""
    return given.double() if given.is_floating_point() else given


@pytest.mark.parametrize("name", MODELS)
def test_images_do_not_disturb_each_other(name):
    model, images = MODELS[name]()
    randomise(model).double()
    images = double(images)
    alone = zip(*(parts(model(image[None])) for image in images), strict=True)
    for part, found in zip(parts(model(images)), map(torch.cat, alone), strict=True):
        torch.testing.assert_close(part, found, rtol=1e-9, atol=1e-9)
        assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_attention_is_recorded(name):
    model, images = MODELS[name]()
    if not has_attention(model):
        pytest.skip("this system has no attention layer")
    layers = [m for m in randomise(model).modules() if isinstance(m, Attention)]
    wanted = model.double()(double(images))
    with record_attention(model) as maps:
        torch.testing.assert_close(model(double(images)), wanted, rtol=1e-9, atol=1e-9)
    assert len(maps) == len(layers)
    assert all(weights.ndim >= 4 and len(weights) % len(images) == 0 for weights in maps)


@pytest.mark.parametrize("name", MODELS)
def test_it_compiles(name):
    model, images = MODELS[name]()
    randomise(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=name not in GRAPH_BREAKS, backend="aot_eager")
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OTHER_SIZES)
def test_other_sizes(name):
    model, images = MODELS[name]()
    other = torch.randn(2, images.shape[1], *OTHER_SIZES[name])
    assert all(part.isfinite().all() for part in parts(randomise(model)(other)))


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_has_the_same_weights(name):
    model, images = MODELS[name]()
    randomise(model)
    other = MODELS[name]()[0].eval()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert all(map(torch.equal, parts(other(images)), parts(model(images))))


@pytest.mark.parametrize("name", MODELS)
def test_it_begins_well(name):
    """New models give small, finite logits, and no two layers of one shape begin alike."""
    model, images = MODELS[name]()
    if not batch_norms(model):
        assert all(part.abs().max() < 10 for part in parts(model.train()(images)))
    seen = []
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1 and parameter.unique().numel() > 2:
            for other in seen:
                assert other.shape != parameter.shape or not torch.equal(other, parameter), key
            seen.append(parameter)


# Differences from the core ------------------------------------------------------------------------


class Louder(ViT.Attention):
    def project(self, x, grid):
        q, k, v = super().project(x, grid)
        return 2 * q, k, v


class Deaf(ViT.Attention):
    def bias(self, grid):
        return -100


class OneSlot(ViT):
    """A docstring is no difference."""

    Attention = Louder


class OneMethod(ViT):
    def forward(self, images):
        x, grid = self.encode(images)
        return self.head(x, grid) * 2


def test_delta():
    assert papers.delta(ViT) == {}
    assert papers.delta(OneSlot) == {"Attention": Louder}
    assert papers.delta(OneMethod) == {}
    assert papers.delta(OneSlot.variant(Attention=Deaf, Head=MeanHead)) == {
        "Attention": Deaf,
        "Head": MeanHead,
    }
    assert papers.delta(torch.nn.Linear) == {}


def test_diff():
    lines = papers.diff(OneMethod).splitlines()
    assert "-    return self.head(x, grid)  # (B, classes)" in lines
    assert "+    return self.head(x, grid) * 2" in lines
    text = papers.diff(OneSlot)
    assert text.startswith("Attention: Attention -> Louder\n+def project")
    assert "docstring" not in text
    assert "-    return None" in papers.diff(OneSlot.variant(Attention=Deaf))
    with pytest.raises(ValueError, match="Linear has a structure of its own"):
        papers.diff(torch.nn.Linear)


def test_lines_of_code(tmp_path):
    (tmp_path / "a.py").write_text('"""One.\n\nTwo."""\n\n# three\nx = (\n    1\n)\n')
    assert compare.lines_of_code(tmp_path / "a.py") == 3


# Side by side -----------------------------------------------------------------------------------


def test_the_table_is_in_the_readme():
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    assert tables.fill(readme) == readme, "run python benchmarks/tables.py"
    for paper in papers.papers().values():
        assert paper.link in readme


def test_bad_arguments():
    with pytest.raises(ValueError, match="choose from deepvit_16"):
        papers.build("deepvit_61")
    with pytest.raises(TypeError, match="'img' is not an option: choose from dim"):
        papers.build("deepvit_16", img=32)


# On a GPU ---------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_on_cuda(name, dtype, tolerance):
    model, images = MODELS[name]()
    everything = parts(randomise(model).double()(double(images)))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    images = images.to("cuda", dtype) if images.is_floating_point() else images.cuda()
    for got, wanted in zip(parts(model.to("cuda", dtype)(images)), everything, strict=True):
        assert (got.double().cpu() - wanted).norm() / wanted.norm() < tolerance
