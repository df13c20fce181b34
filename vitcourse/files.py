"""Write files and folders that are whole or not there."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


def write_whole(path, content, partial=None):
    """Write bytes to a file so that it appears whole or not at all, even if the power goes.

    They go to the file `partial` first, by default beside it, which must be on the same disk.
    """
    path = Path(path)
    partial = partial or path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name, too, must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


@contextmanager
def whole_folder(path, replaces=False):
    """Give a new folder to fill, which then becomes `path`, or leaves nothing behind.

    It is filled beside `path`, on the same disk. A folder that is at `path` and holds anything
    makes this fail, unless the new one `replaces` it: then it stays until the new one is whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".partial", dir=path.parent))
    new, old = beside / "new", beside / "old"
    try:
        new.mkdir()  # `beside` is its owner's alone
        yield new
        if replaces and path.exists():
            os.rename(path, old)
        try:
            os.rename(new, path)
        except BaseException:
            if old.exists():
                os.rename(old, path)
            raise
    finally:
        shutil.rmtree(beside)
