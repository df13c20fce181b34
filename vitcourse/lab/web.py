"""Packages of npm that slides, book and browser tests need, fetched once and verified.

They are no part of the course: they lie in .vitcourse/, which git does not see.
"""

import base64
import hashlib
import io
import os
import tarfile
import urllib.request
from pathlib import Path, PurePosixPath

from vitcourse.files import whole_folder

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {  # name: (version, integrity as npm states it)
    "reveal.js": (
        "6.0.2",
        "sha512-JYIg5D9aoxoaLeb84O+OvAwsKWdIavVgEDScxtYEXFCT6t6TQrhNtSgogcjdCpdLsWglhJn3zyE3fUOwiH5KEg==",
    ),
    "katex": (
        "0.19.1",
        "sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA==",
    ),
    "axe-core": (
        "4.14.1",
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    ),
}
SECONDS = 60  # to wait for the registry


def package(name):
    """The folder of an npm package in the pinned version; fetched if it is not there yet."""
    version, integrity = PACKAGES[name]
    folder = ROOT / ".vitcourse" / f"{name}-{version}"
    if not folder.is_dir():
        unpack(verified(fetch(name, version), name, integrity), folder)
    return folder


def fetch(name, version):
    """The bytes of a package, from the registry that npm_config_registry names, or npm's own."""
    registry = os.environ.get("npm_config_registry") or "https://registry.npmjs.org"
    address = f"{registry.rstrip('/')}/{name}/-/{name}-{version}.tgz"
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            return answer.read()
    except (OSError, ValueError) as error:
        raise OSError(
            f"{name} {version} is needed once and {address} does not give it "
            f"({getattr(error, 'reason', error)}): run this again with a network, or name a mirror "
            "in the variable npm_config_registry"
        ) from None


def verified(content, name, integrity):
    """The bytes, if they are those that were pinned."""
    kind, expected = integrity.split("-", 1)
    found = base64.b64encode(hashlib.new(kind, content).digest()).decode()
    if found != expected:
        raise OSError(f"what the registry gives for {name} is not what was pinned: nothing is kept")
    return content


def unpack(content, folder):
    """Unpack the files of a package into a folder, which appears whole or not at all."""
    try:
        with (
            whole_folder(folder) as new,
            tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive,
        ):
            for member in archive:
                path = PurePosixPath(*PurePosixPath(member.name).parts[1:])  # without "package/"
                if path.is_absolute() or ".." in path.parts:
                    raise OSError(f"{member.name} would lie outside {folder}: nothing is kept")
                if member.isfile():
                    (new / path).parent.mkdir(parents=True, exist_ok=True)
                    (new / path).write_bytes(archive.extractfile(member).read())
    except OSError:
        if not folder.is_dir():  # or else someone was faster
            raise
