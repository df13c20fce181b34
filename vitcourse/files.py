"""Write files that are whole or not there."""

import os
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
