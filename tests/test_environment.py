"""environment.yml and pyproject.toml ask for the same."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from rattler import MatchSpec

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def ranges(requirements):
    """name -> range, for requirements like "torch>=2.11"."""
    split = [re.fullmatch(r"([\w-]+)(.*)", text.replace(" ", "")).groups() for text in requirements]
    assert len(dict(split)) == len(split), "a package is named twice"
    return dict(split)


def differences(environment):
    """What environment.yml, as text, has otherwise than pyproject.toml."""
    packages = yaml.safe_load(environment)["dependencies"]
    conda = ranges(name for name in packages if isinstance(name, str) and name != "pip")
    wanted = {CONDA_NAMES.get(name, name): r for name, r in ranges(PROJECT["dependencies"]).items()}
    wanted["python"] = PROJECT["requires-python"]
    return {name for name in conda.keys() | wanted.keys() if conda.get(name) != wanted.get(name)}


def test_same_ranges():
    assert not differences((ROOT / "environment.yml").read_text())


@pytest.mark.parametrize("old, new", [("einops>=0.8", "einops>=0.7"), ("  - pytest>=8.3\n", "")])
def test_a_difference_is_noticed(old, new):
    text = (ROOT / "environment.yml").read_text()
    assert old in text and differences(text.replace(old, new))


def test_conda_understands_it():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}
    for package in environment["dependencies"][:-1]:
        name, wanted = re.fullmatch(r"([\w-]+)(.*)", package).groups()
        spec = MatchSpec(package)
        assert spec.name.normalized == name
        assert (spec.version is None) == (wanted == "")


def test_test_tools_are_pinned():
    for name, wanted in ranges(PROJECT["optional-dependencies"]["test"]).items():
        if name in ("timm", "transformers", "vit-pytorch", "tlt", "local-attention"):
            assert re.fullmatch(r"==\d+\.\d+\.\*", wanted), f"{name} moves, pin its minor version"
