"""Brings results/measured into the site, so that `../results/...` works in a clone and on the site alike."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SUFFIXES = (".md", ".png", ".svg", ".html")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    for path in sorted((root / "results" / "measured").rglob("*")):
        if path.suffix in SUFFIXES:
            files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    return markdown.replace("](../results/", "](results/")
