"""Make the environment .venv in this checkout: `python3 bootstrap.py [test]`.

The first thing that runs on a bare machine. So it uses nothing but the standard library, stays
readable for old Pythons, and turns what can go wrong into one line that says what to do.
Called again, it compares one hash and does nothing.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
LOG = os.path.join(ROOT, ".venv.log")
PROGRESS = r"Downloading .*\(\d{2,}[.\d]* [MG]B\)|Installing collected|^(Resolved|Prepared) "
OLDEST = (3, 11)
NEWER = ["python3.%d" % minor for minor in (14, 13, 12, 11)]
GIGABYTES = 8  # the environment takes 6.5, and downloads pass through the disk as well

# What pip, uv and venv say, and what to do about it. The first pattern that matches decides.
REASONS = [
    (
        "No space left on device|Errno 28",
        "the disk is full: free {gigabytes} GB and run the same command again",
    ),
    (
        "ensurepip|No module named '?venv",
        "this Python has no working venv module: install it (Debian and Ubuntu: "
        "sudo apt install python3-venv) and run the same command again",
    ),
    (
        "NewConnectionError|NameResolutionError|Name or service not known|name resolution|"
        "Network is unreachable|Connection refused|timed out|ProxyError|dns error|"
        "error sending request|Max retries exceeded|requirement setuptools.*versions: none",
        "the package index cannot be reached: connect to a network (or set PIP_INDEX_URL to a "
        "mirror) and run the same command again",
    ),
    (
        "No matching distribution|Could not find a version|No solution found|not a supported wheel",
        "a package has no build for this computer's Python {version} on {platform}: try another "
        "Python, for example make PYTHON=python3.12 lab",
    ),
]


class CannotSetUp(Exception):
    """One line that says what is wrong and what to do."""


def main(extra=""):
    """Install vitcourse, with the extra requirements `extra`, unless that is done already."""
    need_python(extra)
    if is_done(extra):
        return
    need_disk()
    print("setting up %s (some minutes, about 6 GB, once)" % os.path.relpath(VENV), flush=True)
    uv = shutil.which("uv")
    if uv:
        make = [uv, "venv", "-q", "--clear", "--python", sys.executable, VENV]
        install = [uv, "pip", "install", "--python", PYTHON]
    else:
        make = [sys.executable, "-m", "venv", "--clear", VENV]
        install = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    if not works("" if uv else "import pip"):
        run(make)
    run(install + ["-e", "%s[%s]" % (ROOT, extra) if extra else ROOT])
    for done in {extra, ""}:  # whoever can test can also learn
        with open(stamp(done), "w") as file:
            file.write(fingerprint())


def need_python(extra):
    """Go on with a newer Python where this one is too old and there is one."""
    if sys.version_info >= OLDEST:
        return
    for name in NEWER:
        if shutil.which(name):
            os.execv(shutil.which(name), [name, os.path.abspath(__file__)] + [extra] * bool(extra))
    raise CannotSetUp(
        "Python 3.11 or newer is needed, and python3 is %d.%d: install a newer one "
        "(https://www.python.org/downloads), or name it: make PYTHON=/path/to/python3.12 lab"
        % sys.version_info[:2]
    )


def need_disk():
    """Refuse to begin what cannot end."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < GIGABYTES and not os.path.exists(stamp("")):
        raise CannotSetUp(
            "%.1f GB are free in %s, and the environment needs %d: free some, or clone the course "
            "to another disk" % (free, ROOT, GIGABYTES)
        )


def run(command):
    """Run a command with its progress on the screen; say in one line why it failed, if it did."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if re.search(PROGRESS, line):
            print("  " + line.strip()[:78], flush=True)
    if process.wait():
        with open(LOG, "w") as file:
            file.writelines(said)
        raise CannotSetUp("%s (all that was said is in %s)" % (reason("".join(said)), LOG))


def reason(said):
    """What to do about the messages `said` by pip, uv or venv."""
    names = dict(gigabytes=GIGABYTES, version="%d.%d" % sys.version_info[:2], platform=sys.platform)
    for pattern, advice in REASONS:
        if re.search(pattern, said):
            return advice.format(**names)
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason given"]
    errors = [line for line in lines if line.lower().startswith("error")]
    return "the installation failed: %s" % (errors or lines)[-1]


def works(code):
    """Whether the environment's Python runs `code`: the Python that made it may be gone."""
    if not os.path.exists(PYTHON):
        return False
    return subprocess.call([PYTHON, "-c", code], stderr=subprocess.DEVNULL) == 0


def stamp(extra):
    """The file that says for which requirements the environment was made."""
    return os.path.join(VENV, "vitcourse-%s" % (extra or "lab"))


def fingerprint():
    """What the environment depends on: the requirements, this script and where it all lies."""
    digest = hashlib.sha256(ROOT.encode())
    for name in (os.path.join(ROOT, "pyproject.toml"), os.path.abspath(__file__)):
        with open(name, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_done(extra):
    """Whether the environment is complete, and for these requirements."""
    try:
        with open(stamp(extra)) as file:
            return file.read() == fingerprint() and os.path.exists(PYTHON)
    except OSError:
        return False


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except CannotSetUp as error:
        sys.exit("vitcourse: %s" % error)
    except KeyboardInterrupt:
        sys.exit("vitcourse: stopped; the same command goes on from here")
