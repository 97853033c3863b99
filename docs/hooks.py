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
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Called with the list of files: adds the pictures, as images/NAME."""
    for path in sorted((Path(config.config_file_path).parent / PICTURES).iterdir()):
        if path.suffix in (".png", ".gif", ".webm", ".svg"):
            files.append(File.generated(config, f"images/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Called with the text of each page: links that leave `docs` are turned to where the site has their target."""
    markdown = markdown.replace(f"](../{PICTURES}/", "](images/")
    return re.sub(r"\]\(\.\./(?=[A-Z.]|examples/)", f"]({config.repo_url.rstrip('/')}/blob/main/", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Called with the HTML of each page: equations."""
    content = _BLOCK.sub(lambda found: convert(html.unescape(found[1]).strip(), display="block"), content)
    return _INLINE.sub(lambda found: convert(html.unescape(found[1]).strip()), content)
