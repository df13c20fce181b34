"""The browser of the browser tests: `python -m tests.browser.chromium` installs it if need be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
    "no browser for the tests in tests/browser: install chromium (Debian and Ubuntu: "
    "sudo apt install chromium), or run make browser"
)


def installed(playwright):
    """The program of this computer, or else playwright's own; None where there is neither."""
    own = playwright.chromium.executable_path
    return next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)


def find():
    """The same, for whoever runs no playwright yet."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return installed(playwright)


def install():
    """Install chromium with the system's packages where this user may, or else playwright's."""
    root = os.geteuid() == 0
    if root and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], env=quiet)
        options = ["-q", "-y", "--no-install-recommends"]
        subprocess.run(["apt-get", "install", *options, "chromium"], env=quiet)
    if not find():  # no root, or no Debian (Ubuntu's is a snap, which no container can install)
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
        subprocess.run(command + ["--with-deps"] * root)


def main():
    """Install a browser if there is none; without one, a line that says what to do."""
    if not find():
        install()
    sys.exit(0 if find() else f"vitcourse: {MISSING}")


if __name__ == "__main__":
    main()
