"""What MkDocs does besides: equations become MathML when the site is built, so that no script is fetched to draw them;
pictures of `Resources/Screenshots` come in, and links to other files of the repository lead to their page there."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

PICTURES = "Resources/Screenshots"
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "release-notes.md"}
"""Files beside the README that are pages of the site."""
_IN_MODULE = re.compile(r"\]\(\.\./D3M\w+/(d3m\w*(?:/\w+)+)\.py#([\w.]+)\)")
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Called with the list of files: adds the pictures, as images/NAME, and `PAGES`."""
    root = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(root / name)))
    for path in sorted((root / PICTURES).iterdir()):
        if path.suffix in (".png", ".gif", ".webm", ".svg"):
            files.append(File.generated(config, f"images/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Called with the text of each page: links that leave `docs` are turned to where the site has their target.

    A link to a thing in a module, `../D3MSynthesis/d3m/x/y.py#Thing`, leads to the sources on GitHub and, on the site,
    to the reference.
    """
    markdown = _IN_MODULE.sub(lambda found: f"][{found[1].replace('/', '.')}.{found[2]}]", markdown)
    markdown = markdown.replace(f"](../{PICTURES}/", "](images/")
    for name, page in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    return re.sub(r"\]\(\.\./(?=[A-Z.]|examples/)", f"]({config.repo_url.rstrip('/')}/blob/main/", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Called with the HTML of each page: equations."""
    content = _BLOCK.sub(lambda found: convert(html.unescape(found[1]).strip(), display="block"), content)
    return _INLINE.sub(lambda found: convert(html.unescape(found[1]).strip()), content)
