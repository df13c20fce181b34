"""CIFAR-10: downloaded whole, resumed, from the next mirror; read without running anything.

A small archive in the format of the real one is served by a real server on this machine.
"""

import hashlib
import http.server
import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
import torch
import torchvision.datasets

from vitcourse.data import cifar10 as module
from vitcourse.data import load
from vitcourse.data.cifar10 import NAME, cifar10

COUNT = 20  # images in each of the six files
NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote, as the real files were: text and bytes are one kind, `str`."""

    def save_str(self, value):
        value = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, str: save_str, bytes: save_str}


def python2(value):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def contents(columns_first=False):
    """The seven pickles: their names and bytes."""
    rng = np.random.default_rng(0)
    files = {}
    for name in NAMES:
        images = rng.integers(0, 256, (COUNT, 3072), dtype=np.uint8)
        images = np.asfortranarray(images) if columns_first else images
        labels = rng.integers(0, 10, COUNT).tolist()
        files[name] = python2({"batch_label": name, "labels": labels, "data": images})
    files["batches.meta"] = python2({"num_cases_per_batch": COUNT, "label_names": CLASSES})
    return files


def pack(files):
    """A .tar.gz of the pickles."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


GOOD = pack(contents())
HALF = len(GOOD) // 2
MD5 = hashlib.md5(GOOD).hexdigest()


class Server:
    """Serves `body` and remembers each request: its path, its Range header, how much was sent.

    Paths: /good, /drop (ends after half the file), /hang (sends half and waits), /corrupt,
    /plain (ignores Range), /slow (waits before it sends), /missing.
    """

    def __init__(self):
        outer = self
        self.requests = []
        self.release = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                record = {"path": self.path, "range": self.headers["Range"], "sent": 0}
                outer.requests.append(record)
                body = GOOD
                if self.path == "/corrupt":
                    body = GOOD[:-100] + bytes(100)
                if self.path == "/missing":
                    return self.send_error(404)
                start = 0
                if record["range"] and self.path != "/plain":
                    start = int(record["range"].removeprefix("bytes=").removesuffix("-"))
                    if start >= len(body):
                        return self.send_error(416)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                if self.path == "/slow":
                    time.sleep(0.5)
                part = body[start:]
                if self.path in ("/drop", "/hang"):
                    part = part[:HALF]
                self.wfile.write(part)
                record["sent"] = len(part)
                if self.path == "/hang":
                    self.wfile.flush()
                    outer.release.wait(20)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_address[1]}/{path}"

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("VITCOURSE_CIFAR10_URL", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.close()


def get(server, tmp_path, *paths):
    return cifar10(tmp_path, [server.url(path) for path in paths], MD5)


def files(path):
    return sorted(item.name for item in path.iterdir() if not item.name.endswith(".lock"))


# Download ---------------------------------------------------------------------------------------


def test_a_whole_download_happens_once(server, tmp_path):
    data = get(server, tmp_path / "new", "good")
    assert str(data) == "cifar10: 100 images to train on, 20 to test, 3x32x32, 10 classes"
    assert files(tmp_path / "new") == [NAME]
    assert (tmp_path / "new" / NAME).read_bytes() == GOOD
    again = get(server, tmp_path / "new", "good")
    assert torch.equal(again.images, data.images)
    assert server.requests == [{"path": "/good", "range": None, "sent": len(GOOD)}]


def test_a_broken_connection_is_resumed(server, tmp_path):
    with pytest.raises(ConnectionError, match=f"ended after {HALF} of {len(GOOD)} bytes"):
        get(server, tmp_path, "drop")
    assert files(tmp_path) == [NAME + ".partial"]  # does not count as done
    get(server, tmp_path, "good")
    assert server.requests[1:] == [
        {"path": "/good", "range": f"bytes={HALF}-", "sent": len(GOOD) - HALF}
    ]
    assert files(tmp_path) == [NAME]


def test_the_next_mirror_goes_on_where_the_last_one_stopped(server, tmp_path):
    get(server, tmp_path, "missing", "drop", "good")
    assert [request["range"] for request in server.requests] == [None, None, f"bytes={HALF}-"]


def test_a_server_that_cannot_resume_starts_again(server, tmp_path):
    (tmp_path / (NAME + ".partial")).write_bytes(GOOD[:1000])
    get(server, tmp_path, "plain")
    assert server.requests == [{"path": "/plain", "range": "bytes=1000-", "sent": len(GOOD)}]
    assert (tmp_path / NAME).read_bytes() == GOOD


def test_a_partial_file_that_is_whole_or_wrong(server, tmp_path):
    partial = tmp_path / (NAME + ".partial")
    partial.write_bytes(GOOD)  # killed before it got its name
    get(server, tmp_path, "good")
    assert [request["sent"] for request in server.requests] == [0]
    (tmp_path / NAME).unlink()
    for wrong in (bytes(1000), GOOD + b"more"):
        partial.write_bytes(wrong)
        get(server, tmp_path, "good")
        assert (tmp_path / NAME).read_bytes() == GOOD
        assert server.requests[-1] == {"path": "/good", "range": None, "sent": len(GOOD)}
        (tmp_path / NAME).unlink()


def test_a_corrupt_file_is_removed_and_the_next_mirror_tried(server, tmp_path):
    with pytest.raises(ConnectionError, match="sent another file"):
        get(server, tmp_path, "corrupt")
    assert files(tmp_path) == []
    get(server, tmp_path, "corrupt", "good")
    assert server.requests[-1]["range"] is None and files(tmp_path) == [NAME]


def test_no_server_at_all(server, tmp_path):
    url = server.url("good")
    server.close()
    with pytest.raises(ConnectionError, match="is there a network?") as error:
        cifar10(tmp_path, [url, "nonsense"], MD5)
    assert "\n" not in str(error.value) and "127.0.0.1" in str(error.value)
    assert str(tmp_path) in str(error.value) and files(tmp_path) == []


def test_an_address_of_ones_own_comes_first(server, tmp_path, monkeypatch):
    monkeypatch.setenv("VITCOURSE_CIFAR10_URL", server.url("good"))
    get(server, tmp_path, "missing")
    assert [request["path"] for request in server.requests] == ["/good"]
    (tmp_path / "copy").write_bytes(GOOD)
    monkeypatch.setenv("VITCOURSE_CIFAR10_URL", (tmp_path / "copy").as_uri())
    cifar10(tmp_path / "other", [], MD5)


SCRIPT = (
    "import sys; from vitcourse.data.cifar10 import cifar10\n"
    "print(cifar10(sys.argv[1], [sys.argv[2]], sys.argv[3]))"
)


def start(root, url):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, root, url, MD5], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_download_is_resumed(server, tmp_path):
    partial = tmp_path / (NAME + ".partial")
    process = start(tmp_path, server.url("hang"))
    until = time.time() + 30
    while not (partial.exists() and partial.stat().st_size > 1 << 16):
        assert time.time() < until and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert files(tmp_path) == [NAME + ".partial"]
    have = partial.stat().st_size
    assert 1 << 16 < have < len(GOOD)
    get(server, tmp_path, "good")
    assert server.requests[-1] == {
        "path": "/good",
        "range": f"bytes={have}-",
        "sent": len(GOOD) - have,
    }


@pytest.mark.skipif(module.fcntl is None, reason="no file locks")
def test_processes_that_start_together_download_once(server, tmp_path):
    processes = [start(tmp_path, server.url("slow")) for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=60)[0].startswith("cifar10: 100 images")
    assert len(server.requests) == 1


def test_a_file_that_someone_put_there_stays(server, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(ValueError, match="is not the file that is needed .*: move it away"):
        get(server, tmp_path, "good")
    assert (tmp_path / NAME).read_bytes() == b"mine" and server.requests == []


def test_a_file_in_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / NAME).write_bytes(GOOD)
    load("cifar10", root=tmp_path, urls=[], md5=MD5)
    assert sorted(os.listdir(tmp_path)) == [NAME]  # not even a lock


# Read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns_first", [False, True])
def test_the_images_are_those_that_torchvision_reads(tmp_path, monkeypatch, columns_first):
    archive = pack(contents(columns_first))
    (tmp_path / NAME).write_bytes(archive)
    ours = cifar10(tmp_path, [], hashlib.md5(archive).hexdigest())
    with tarfile.open(tmp_path / NAME) as file:
        file.extractall(tmp_path, filter="data")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    for train, images, labels in (
        (True, ours.images, ours.labels),
        (False, ours.test_images, ours.test_labels),
    ):
        theirs = torchvision.datasets.CIFAR10(tmp_path, train=train)
        assert theirs.targets == labels.tolist() and tuple(theirs.classes) == ours.classes
        assert np.array_equal(theirs.data, images.permute(0, 2, 3, 1).numpy())


def test_the_published_file_is_the_one_of_torchvision():
    theirs = torchvision.datasets.CIFAR10
    assert (NAME, module.MD5) == (theirs.filename, theirs.tgz_md5)
    assert theirs.url in module.URLS
    assert module.ROOT.parts[-2:] == ("data", "cifar10")


class Hostile:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(path):
    """Pickles that would write a file, each in another way, and others that are only damaged."""
    order = f"open({str(path)!r}, 'w').close()"
    ran = Hostile(exec, order)
    good = contents()["data_batch_1"]
    load_array = Hostile(np.load, str(path))
    return {
        "builtins.exec": pickle.dumps(ran, protocol=2).replace(b"__builtin__", b"builtins"),
        "__builtin__.eval": b"c__builtin__\neval\n(V" + order.encode() + b"\ntR.",
        "posix.system": b"cposix\nsystem\n(Vtouch " + str(path).encode() + b"\ntR.",
        "inside a dict": pickle.dumps({b"labels": [1], b"data": ran}, protocol=2),
        "protocol 4": pickle.dumps(ran, protocol=4),
        "numpy": pickle.dumps(load_array, protocol=2),
        "attribute of ndarray": b"\x80\x04\x8c\x05numpy\x8c\x0eload.__globals__\x93.",
        "cut": good[: len(good) // 2],
        "empty": b"",
        "a list": pickle.dumps([1, 2], protocol=2),
        "no bytes": good.replace(
            pickle.BINSTRING + b"\2\0\0\0u1", pickle.BINSTRING + b"\2\0\0\0i1"
        ),
        "no array": pickle.dumps({b"data": b"x", b"labels": [1]}, protocol=2),
    }


@pytest.mark.parametrize("what", hostile("x"))
@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta"])
def test_a_hostile_file_is_refused_and_does_not_run(tmp_path, what, name):
    mark = tmp_path / "executed"
    archive = pack({**contents(), name: hostile(mark)[what]})
    (tmp_path / NAME).write_bytes(archive)
    with pytest.raises(ValueError, match=f"{NAME} cannot be read") as error:
        cifar10(tmp_path, [], hashlib.md5(archive).hexdigest())
    assert "\n" not in str(error.value) and not mark.exists()
    if what == "builtins.exec":
        assert "asks for builtins.exec" in str(error.value).replace("__builtin__", "builtins")


def test_what_would_have_run(tmp_path):
    """The hostile pickles are real ones: Python's own reader runs them."""
    for what in ("__builtin__.eval", "inside a dict", "protocol 4"):
        mark = tmp_path / what
        pickle.loads(hostile(mark)[what])
        assert mark.exists()


@pytest.mark.parametrize("missing", ["data_batch_3", "test_batch", "batches.meta"])
def test_an_archive_with_a_file_missing(tmp_path, missing):
    archive = pack({name: content for name, content in contents().items() if name != missing})
    (tmp_path / NAME).write_bytes(archive)
    with pytest.raises(ValueError, match="cannot be read"):
        cifar10(tmp_path, [], hashlib.md5(archive).hexdigest())


def test_noise_in_place_of_an_archive(tmp_path):
    (tmp_path / NAME).write_bytes(b"noise" * 100)
    with pytest.raises(ValueError, match="cannot be read"):
        cifar10(tmp_path, [], hashlib.md5(b"noise" * 100).hexdigest())
