"""Debian packages of any architecture and release, downloaded and unpacked; nothing is installed.

The mirror is the one that this machine's apt uses; apt's state for it is kept in a folder apart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Debian's own words for the CPUs of `platform.machine()`.
ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CONFIGURATION = """\
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""


# Exit status of a script that ends with the error below: the machine lacks something, not edgemoe.
NO_PACKAGES_STATUS = 3


class NoPackagesError(Exception):
    """Why no package can be had here."""


def _run(command: Sequence[str], folder: Path | None = None, configuration: str = "") -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "APT_CONFIG": configuration} if configuration else None,
        check=False,
    )
    if result.returncode != 0:
        last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
        raise NoPackagesError(f"'{' '.join(command)}' failed: {''.join(last)}")
    return result.stdout


def _mirror() -> str:
    if not KEYRING.exists() or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NoPackagesError("apt-get, dpkg-deb and debian-archive-keyring are needed (Debian)")
    targets = _run(("apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"))
    mirrors = [line.split("|")[1] for line in targets.splitlines() if line.startswith("Debian|")]
    if not mirrors:
        raise NoPackagesError("apt knows no Debian mirror; run `apt-get update`")
    return mirrors[0]


class DebianPackages:
    """Packages of `release` (a code name) for `machine` ("aarch64"); state is kept in `folder`."""

    def __init__(self, folder: Path, release: str, machine: str) -> None:
        self.folder = folder.resolve() / f"{release}-{machine}"
        self.configuration = str(self.folder / "apt.conf")
        if (self.folder / "updated").exists():
            return  # unpack() brings the lists up to date when they are too old
        architecture = ARCHITECTURES[machine]
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        (self.folder / "sources.list").write_text(
            f"deb [arch={architecture} signed-by={KEYRING}] {_mirror()} {release} main\n"
        )
        user = "root" if os.geteuid() == 0 else ""
        text = CONFIGURATION.format(folder=self.folder, architecture=architecture, user=user)
        Path(self.configuration).write_text(text)
        self._apt("update")
        (self.folder / "updated").touch()

    def _apt(self, *arguments: str) -> None:
        command = ("apt-get", "--quiet", "--yes", *arguments)
        _run(command, self.folder / "cache/archives", self.configuration)

    def unpack(self, to: Path, *packages: str, alone: bool = False) -> None:
        """The packages into `to`, with all that they depend on unless `alone`."""
        print(f"-- Debian: {' '.join(packages)} into {to}", flush=True)
        archives = self.folder / "cache/archives"
        for package in archives.glob("*.deb"):
            package.unlink()  # of another call, or an older version
        command = (*(("download",) if alone else ("--download-only", "install")), *packages)
        try:
            self._apt(*command)
        except NoPackagesError:  # a mirror keeps what its lists name, not what older ones named
            self._apt("update")
            self._apt(*command)
        partial = to.with_name(to.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for package in sorted(archives.glob("*.deb")):
            _run(("dpkg-deb", "--extract", str(package), str(partial)))
        partial.rename(to)
