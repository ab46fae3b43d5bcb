"""Says whether this Python has what the project needs: exit code 0, and its own path on stdout, if it does.

`python dnnlib/environment.py [EXTRA...]` compares the distributions installed with the `dependencies` of
`pyproject.toml`, and with those of the extras named. Only the standard library and no import of torch: the scripts run
this every time they start, before anything may be installed.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from pathlib import Path


def required(pyproject: str, group: str) -> list[str]:
    """The requirements in `group` ("dependencies" or an extra) of a pyproject file's text.

    Python 3.10 has no TOML reader; but a TOML array of strings, comments included, is a Python list too.
    Raises KeyError where there is no such group.
    """
    array = re.search(rf"^{re.escape(group)} = (\[.*?\])$", pyproject, flags=re.MULTILINE | re.DOTALL)
    if array is None:
        raise KeyError(group)
    return ast.literal_eval(array[1])


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: "2.13.0+cpu" -> (2, 13, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", version)[0]))


def fits(requirement: str) -> bool:
    """Whether a `NAME` or `NAME>=VERSION` is installed; or need not be, by `; sys_platform == 'PLATFORM'` after it."""
    requirement, _, platform = requirement.partition("; sys_platform == ")
    if platform and ast.literal_eval(platform) != sys.platform:
        return True
    name, _, minimum = requirement.partition(">=")
    try:
        return release(importlib.metadata.version(name)) >= release(minimum)
    except importlib.metadata.PackageNotFoundError:
        return False


def main(extras: list[str]) -> int:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    groups = [required(pyproject, group) for group in ["dependencies", *extras]]
    if sys.version_info < (3, 10) or not all(fits(requirement) for group in groups for requirement in group):
        return 1
    print(sys.executable)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
