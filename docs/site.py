"""What mkdocs.yml cannot say: which files of the repository are pages, and how its docstrings become pages.

Pages keep their folders, so that the same relative links work on the site and on a code host.
"""

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN = """
    README.md CHANGELOG.md CONTRIBUTING.md LICENSE CITATION.cff
    benchmarks/*.md benchmarks/results/* docs/* examples/* experiments/*.md models/*.md
""".split()
HIDDEN = {".pkl", ".pyc"}  # suffixes of other files there

# Pages of the API reference: the names on each; a module stands for all public names in it.
API = {
    "The package": [
        *(f"genvs.{name}" for name in ("load_snapshot", "from_pretrained", "sample_views", "save_snapshot", "GeNVS")),
        "genvs.errors.InputError",
    ],
    "Settings": ["genvs.config"],
    "Drawing views": [
        *(f"genvs.sampling.{name}" for name in ("views.given_views", "synthesis.synthesize_views")),
        *("genvs.Viewer", "genvs.diffusion.samplers"),
    ],
    "Cameras": [f"genvs.geometry.{name}" for name in ("cameras", "rays", "trajectories", "distortion", "projections")],
    "Data": [
        *(f"genvs.data.scenes.{name}" for name in ("SceneDataset", "Scene", "Splits")),
        *("genvs.data.types", "genvs.data.framing", "genvs.modalities"),
    ],
    "Networks": [f"genvs.models.{name}" for name in ("backbone", "encoder", "renderer", "denoiser", "view_weighting")],
    "Noise and preconditioning": ["genvs.diffusion.noise", "genvs.diffusion.preconditioning", "genvs.random"],
    "Operations": ["genvs.ops.reference_only", "genvs.ops.reference"],
    "Metrics": [f"genvs.metrics.{name}" for name in ("pixels", "consistency", "perceptual", "distributions")],
    "Files": ["genvs.snapshot", "genvs.hub", "genvs.hub_model", "genvs.export", "genvs.compat.reader"],
}


def _api_path(title: str) -> str:
    return f"api/{title.lower().replace(' ', '-')}.md"


def on_config(config: MkDocsConfig) -> None:
    """Fills the entries of the navigation whose pages are not listed there."""
    results = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/results/*.md")]
    _fill(config.nav, "Measured speed", sorted(results, reverse=True))
    _fill(config.nav, "API", [{title: _api_path(title)} for title in API])


def _fill(nav: Any, title: str, pages: list) -> None:
    for entry in nav:
        for name, inside in entry.items() if isinstance(entry, dict) else ():
            if name == title:
                inside[:] = pages
            elif isinstance(inside, list):
                _fill(inside, title, pages)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, the repository's, and a page for each group of the API."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix not in HIDDEN:
                uri = path.relative_to(ROOT).as_posix()
                kept.append(File.generated(config, uri, abs_src_path=str(path)))
    for title, names in API.items():
        content = "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)])
        kept.append(File.generated(config, _api_path(title), content=content))
    return Files(kept)


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    """Links to a folder lead to its README.md, which code hosts show there."""
    here = ROOT / Path(page.file.src_uri).parent

    def to_page(link: re.Match) -> str:
        return f"]({link[1]}/README.md)" if (here / link[1]).is_dir() else link[0]

    return re.sub(r"\]\(([^):#]+)\)", to_page, markdown)


class Parts(griffe.Extension):
    """Makes lists of what docstrings say of parameters and fields ("near, far: depth planes, world units.")."""

    def on_function(self, *, func: griffe.Function, **_) -> None:
        _list_parts(func, [parameter.name for parameter in func.parameters])

    def on_class(self, *, cls: griffe.Class, **_) -> None:
        own = cls.members.get("__init__")
        parameters = [parameter.name for parameter in own.parameters] if isinstance(own, griffe.Function) else []
        _list_parts(cls, [*parameters, *(name for name, member in cls.members.items() if member.is_attribute)])


def _list_parts(documented: griffe.Object, names: list[str]) -> None:
    if documented.docstring is None or not names:
        return
    name = "|".join(map(re.escape, names))
    part = re.compile(rf"(?:^|(?<=[.;] ))((?:{name})(?:, (?:{name}))*): ", re.MULTILINE)
    paragraphs = []
    for paragraph in documented.docstring.value.split("\n\n"):
        if paragraph.startswith(">>> "):
            paragraphs.append(f"```pycon\n{paragraph}\n```")
            continue
        before, *parts = part.split(paragraph)
        rest = ""
        if parts:
            parts[-1], *ends = re.split(
                r"(?:^|(?<=\. ))(?=Returns |Yields |Raises )", parts[-1], maxsplit=1, flags=re.MULTILINE
            )
            rest = "".join(ends)
        items = [f"* **{names}**: {text.strip()}" for names, text in zip(parts[::2], parts[1::2], strict=True)]
        paragraphs += filter(None, [before.strip(), "\n".join(items), rest])
    documented.docstring.value = "\n\n".join(paragraphs)
