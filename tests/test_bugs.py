"""Each bug changes what it says, its signals hear it, and a hidden one stays hidden."""

from functools import cache

import pytest
import torch

from benchmarks.claims import __main__ as claims
from vitcourse import check
from vitcourse.check import bugs
from vitcourse.vit import ViT

NAMES = list(bugs.BUGS)
IN_MODEL, IN_TRAINING, IN_TEST = NAMES[:11], NAMES[11:14], NAMES[14:]
TRAINED = ("learns", "gap")  # heard only after a whole training: these are recorded


@cache
def losses(name):
    """The losses on one batch."""
    return bugs.one_batch(bugs.broken(name) if name else bugs.healthy())


def speaks(signal, setup, name):
    """Whether a signal speaks, without training twice for two signals that look at one run."""
    measure, fine, _ = bugs.SIGNALS[signal]
    return not fine(losses(name) if measure is bugs.one_batch else measure(setup))


@pytest.mark.parametrize("name", IN_MODEL)
def test_a_bug_in_the_model_changes_the_logits(name):
    healthy, broken = bugs.healthy(), bugs.broken(name)
    assert isinstance(broken.model, ViT)
    weights = bugs.spread(healthy).state_dict()
    for setup in (healthy, broken):
        setup.model.load_state_dict(weights)
    images = bugs.some(8)
    assert (healthy.predict(images) - broken.predict(images)).abs().max() > 0.01
    assert torch.equal(broken.test_images(), healthy.test_images())


@pytest.mark.parametrize("name", IN_TRAINING + IN_TEST)
def test_a_bug_beside_the_model_leaves_the_model_alone(name):
    assert type(bugs.broken(name).model) is ViT
    assert bugs.departs(bugs.broken(name)) == ""


def test_bugs_in_the_training():
    healthy = bugs.healthy()
    shuffled, decay, rate = (bugs.broken(name) for name in IN_TRAINING)
    same = (shuffled.labels() == healthy.labels()).float().mean()
    assert same < 0.2 and torch.equal(shuffled.labels().sort()[0], healthy.labels().sort()[0])
    assert [g["weight_decay"] for g in healthy.groups()] == [0.05, 0]
    assert [g["weight_decay"] for g in decay.groups()] == [200 * 0.05]
    assert bugs.wrongly_decayed(healthy) == 0 and bugs.wrongly_decayed(decay) == 38
    assert healthy.rate(0, 400) < 0.02 * healthy.lr and rate.rate(0, 400) > 12 * healthy.lr


def test_bugs_in_the_test():
    healthy = bugs.healthy()
    dropout, *others = (bugs.broken(name) for name in IN_TEST)
    for setup in others:
        assert setup.test_images().shape == healthy.test_images().shape
        assert not torch.allclose(setup.test_images(), healthy.test_images(), atol=0.1)
    columns = others[-1].test_images()
    assert torch.equal(columns[..., :4, 4:], healthy.test_images()[..., 4:, :4])
    assert torch.equal(columns[..., 4:, 4:], healthy.test_images()[..., 4:, 4:])
    dropout.predict(bugs.some(2))
    assert dropout.model.training and bugs.healthy().model.drop.p > 0


@pytest.mark.parametrize("name", [None, *NAMES])
def test_the_signals_that_hear_a_bug(name):
    setup = bugs.broken(name) if name else bugs.healthy()
    listed = bugs.BUGS[name].signals if name else ()
    heard = {s for s in bugs.SIGNALS if s not in TRAINED and speaks(s, setup, name)}
    assert heard == set(listed) - set(TRAINED)
    assert bugs.departs(setup) == (bugs.BUGS[name].stage if name else "")


@pytest.mark.parametrize("name", [None, *NAMES])
def test_the_signals_that_a_whole_training_gives_are_those_recorded(name):
    means = {key: f["mean"] for key, f in claims.recorded("broken")["figures"].items()}
    values = [means[f"{name or 'healthy'}, {part}"] for part in ("train", "test")]
    heard = {signal for signal in TRAINED if not bugs.SIGNALS[signal].fine(values)}
    assert heard == set(bugs.BUGS[name].signals if name else ()) & set(TRAINED)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_signal_does_not_depend_on_the_seed(seed):
    assert not [signal for signal in bugs.FREE if bugs.speaks(signal, bugs.healthy(seed))]
    for name, bug in bugs.BUGS.items():
        heard = {signal for signal in bugs.FREE if bugs.speaks(signal, bugs.broken(name, seed))}
        assert heard == set(bug.signals) & set(bugs.FREE), name


def test_the_gradients_would_be_heard():
    """No bug here is heard by the shape, the first loss or the gradients: other faults are."""
    fine = {name: signal.fine for name, signal in bugs.SIGNALS.items()}
    assert not fine["gradients"]([0.007, 0.1, 1.0]) and not fine["gradients"]([59.0, 1.0])
    assert not fine["first loss"](4.6) and not fine["shape"]((8, 5, 10))


def test_training_a_set_up():
    setup = bugs.healthy()
    state = torch.random.get_rng_state()
    found = bugs.train(setup, steps=30)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(found) == 30 and found[-1] < found[0] < 2.4
    again = setup.fresh()
    assert bugs.train(again, steps=30) == found
    one, other = (dict(s.model.named_parameters()) for s in (setup, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_hidden_bug_is_hidden(number):
    setup, name = bugs.hidden(number), bugs.answer(number)
    healthy = bugs.healthy()
    assert repr(setup) == repr(healthy) and repr(setup.model) == repr(healthy.model)
    assert repr(type(setup)) == repr(bugs.Setup)
    pairs = zip(setup.model.modules(), healthy.model.modules(), strict=True)
    assert all(repr(type(a)) == repr(type(b)) for a, b in pairs)
    for slot in ("Attention", "Block", "Mlp", "Head", "Position", "Tokenizer"):
        assert getattr(setup.model, slot) is getattr(ViT, slot)
    assert vars(setup).keys() == vars(healthy).keys()
    told = repr(vars(setup)) + repr(vars(setup.model)) + str(type(setup)) + str(setup.Model)
    words = {type(m).__name__ for m in bugs.broken(name).model.modules()}
    words |= {type(bugs.broken(name)).__name__, type(bugs.broken(name).model).__name__}
    words -= {type(m).__name__ for m in healthy.model.modules()} | {"Setup"}
    assert not [word for word in words | {name} if word in told]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_hidden_bug_is_the_one_that_it_is(number):
    setup, known = bugs.hidden(number), bugs.broken(bugs.answer(number))
    for signal in bugs.FREE:
        assert bugs.speaks(signal, setup) == bugs.speaks(signal, known)
    assert bugs.departs(setup) == bugs.departs(known)
    assert bugs.one_batch(setup, 3) == bugs.one_batch(known, 3)


def test_what_speaks_against_a_guess_is_so():
    """Each sentence for a wrong diagnosis names a signal that differs, or the trace."""
    for number in (1, 2, 3):
        exercise = check.EXERCISES[f"diagnose_{number}"]
        right = bugs.BUGS[bugs.answer(number)]
        assert {m.name for m in exercise.mistakes} == set(NAMES) - {bugs.answer(number)}
        for mistake in exercise.mistakes:
            bug = bugs.BUGS[mistake.name]
            if "the trace" in mistake.sentence:
                assert bug.stage != right.stage and bug.signals == right.signals
                continue
            (signal,) = [s for s in bugs.SIGNALS if f"the signal {s!r}" in mistake.sentence]
            assert (signal in bug.signals) != (signal in right.signals), mistake.sentence
            assert ("and here it speaks" in mistake.sentence) == (signal in right.signals)


NOT_NAMES = {
    "none of the names: GELU": "no heads",
    "as text in quotes": 3,
    "of type Setup": bugs.healthy,
}


@pytest.mark.parametrize("words", NOT_NAMES)
def test_an_answer_that_is_no_name(words):
    answer = NOT_NAMES[words]
    verdict = check.run("diagnose_1", answer() if callable(answer) else answer)
    assert verdict.status == "wrong" and words in verdict.message and verdict.mistake is None


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="there is no bug 'none'"):
        bugs.broken("none")
    with pytest.raises(ValueError, match="choose 1, 2 or 3"):
        bugs.hidden(4)
