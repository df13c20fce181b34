"""Packages of npm: fetched once, verified, unpacked whole or not at all. No network is used."""

import base64
import hashlib
import io
import tarfile

import pytest

from vitcourse.lab import web


def archive(names):
    """A package as npm packs it: files by name."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        for name, text in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            file.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def integrity(content):
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry in a folder, with one package in it; and where packages go."""
    content = archive({"package/dist/a.js": "let a;", "package/package.json": "{}"})
    (tmp_path / "npm" / "tiny" / "-").mkdir(parents=True)
    (tmp_path / "npm" / "tiny" / "-" / "tiny-1.0.0.tgz").write_bytes(content)
    monkeypatch.setattr(web, "ROOT", tmp_path)
    monkeypatch.setattr(web, "PACKAGES", {"tiny": ("1.0.0", integrity(content))})
    monkeypatch.setenv("npm_config_registry", (tmp_path / "npm").as_uri() + "/")
    return tmp_path


def left(folder):
    return [path.name for path in (folder / ".vitcourse").glob("*")]


def test_a_package_is_fetched_once(registry, monkeypatch):
    folder = web.package("tiny")
    assert (folder / "dist" / "a.js").read_text() == "let a;"
    monkeypatch.setattr(web, "fetch", None)  # would fail if it were called
    assert web.package("tiny") == folder == registry / ".vitcourse" / "tiny-1.0.0"
    assert left(registry) == ["tiny-1.0.0"]


def test_a_wrong_package_is_not_kept(registry, monkeypatch):
    monkeypatch.setattr(web, "PACKAGES", {"tiny": ("1.0.0", integrity(b"another"))})
    with pytest.raises(OSError, match="tiny is not what was pinned"):
        web.package("tiny")
    assert not left(registry)


@pytest.mark.parametrize("name", ["package/../../out.js", "package/a/../../../out.js", "x//../out"])
def test_a_package_stays_in_its_folder(tmp_path, name):
    with pytest.raises(OSError, match="would lie outside"):
        web.unpack(archive({"package/fine.js": "", name: "bad"}), tmp_path / "a" / "tiny")
    assert not list(tmp_path.rglob("*.js")) and not list((tmp_path / "a").iterdir())


def test_links_are_left_out(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        member = tarfile.TarInfo("package/link.js")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hosts"
        file.addfile(member)
    web.unpack(content.getvalue(), tmp_path / "tiny")
    assert not list((tmp_path / "tiny").iterdir())


@pytest.mark.parametrize("address", ["file:///nowhere", "http://127.0.0.1:9", "no address"])
def test_without_a_network_one_line_says_what_to_do(registry, monkeypatch, address):
    monkeypatch.setenv("npm_config_registry", address)
    with pytest.raises(OSError, match="tiny 1.0.0 is needed once .* npm_config_registry") as error:
        web.package("tiny")
    assert "\n" not in str(error.value) and not (registry / ".vitcourse").exists()


def test_what_is_pinned_is_a_hash_of_sha512():
    for version, pinned in web.PACKAGES.values():
        kind, _, digest = pinned.partition("-")
        assert kind == "sha512" and len(base64.b64decode(digest)) == 64 and version[0].isdigit()
