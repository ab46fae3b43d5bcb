"""Which of the project's requirements this Python lacks. Imports only the standard library.

dnnlib/environment.sh runs this text with the Pythons that it finds; one that lacks nothing prints its own path:
python -c "$(<genvs/requirements.py)" pyproject.toml EXTRA...
"""

import re
import sys
from importlib import import_module, metadata
from pathlib import Path


def requirements(pyproject: Path) -> dict[str, list[str]]:
    """Requirements by extra, and as "" those without one, as they are on this platform: NAME or NAME>=VERSION.

    An installed package has no pyproject.toml: there they are read from its metadata.
    """
    if pyproject.is_file():
        project = _toml().loads(pyproject.read_text(encoding="utf-8"))["project"]
        listed = {"": project["dependencies"], **project.get("optional-dependencies", {})}
    else:
        listed = {"": []}
        for text in metadata.requires("genvs") or ():
            extra = re.search(r"extra == ['\"]([\w-]+)", text)
            listed.setdefault(extra[1] if extra else "", []).append(text)
    found: dict[str, list[str]] = {extra: [] for extra in listed}
    for extra, texts in listed.items():
        for text in texts:
            platform = re.search(r"sys_platform == ['\"](\w+)", text)
            if platform is None or platform[1] == sys.platform:
                found[extra].append(text.partition(";")[0].strip())
    return found


def lacking(wanted: list[str]) -> list[str]:
    """The requirements that are not met, each with what there is: "torch>=2.10 (there is 2.4.1)"."""
    faults = []
    for requirement in wanted:
        name, _, minimum = requirement.partition(">=")
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            faults.append(f"{requirement} (not installed)")
            continue
        if _numbers(version) < _numbers(minimum):
            faults.append(f"{requirement} (there is {version})")
    return faults


def _toml():
    for name in ("tomllib", "tomli", "pip._vendor.tomli"):  # Python 3.10 has the last two at most
        try:
            return import_module(name)
        except ImportError:
            pass
    raise ImportError("no reader of TOML")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


if __name__ == "__main__":
    by_extra = requirements(Path(sys.argv[1]))
    if missing := lacking(sum((by_extra[extra] for extra in ("", *sys.argv[2:])), [])):
        sys.exit(f"missing: {', '.join(missing)}")
    print(sys.executable)
