"""What a measurement was made with: hardware, versions, commit."""

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import madtp

PACKAGE = Path(madtp.__file__).parent


def settings() -> dict[str, Any]:
    """Hardware, versions and commit, for a report. Never raises: what cannot be found out is None.

    Returns:
        ``{"hardware": {"cpu", "cores", "memory_gb", "gpu"}, "versions": {"madtp", "torch", "transformers", "python"},
        "commit"}``. Cores are those this process may use; memory is the machine's, in GB (1e9 bytes); the commit is
        that of the package's own checkout, with ``-dirty`` where tracked files were changed, None where it is none.
    """
    return {
        "hardware": {"cpu": _cpu(), "cores": _cores(), "memory_gb": _memory_gb(), "gpu": _gpu()},
        "versions": {
            "madtp": madtp.__version__,
            "torch": _version("torch"),
            "transformers": _version("transformers"),
            "python": platform.python_version(),
        },
        "commit": _commit(),
    }


def _cpu() -> str | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or None


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_gb() -> float | None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return None


def _gpu() -> str | None:
    with contextlib.suppress(Exception):  # a broken driver must not cost the user the report
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    return None


def _version(package: str) -> str | None:
    with contextlib.suppress(Exception):  # not installed, or its metadata cannot be read
        return metadata.version(package)
    return None


def _commit(package: Path = PACKAGE) -> str | None:
    # Only where git tracks this very file: an installed copy may lie inside another project's checkout.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command; None if it fails or there is no git.

    It takes no lock: a process that is killed meanwhile would leave it, and the user could commit nothing.
    """
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
