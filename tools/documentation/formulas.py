# SPDX-License-Identifier: MIT
"""A hook of MkDocs: formulas as MathML, which browsers draw without scripts, from anywhere and offline."""
import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

# What pymdownx.arithmatex makes of $...$ and $$...$$.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
# A function's name and its argument need a space, unless parentheses follow.
_FUNCTION = re.compile(r"<mi>(ln|log|sin|cos|exp|det)</mi>(?!<mo|</)")


def on_page_content(content: str, *, page, **_) -> str:
    """MkDocs calls this with the HTML of each page."""
    def formula(display):
        def replace(match):
            tex = html.unescape(match[1]).strip()
            try:
                return _FUNCTION.sub(r'<mi>\1</mi><mspace width="0.17em"/>', convert(tex, display=display))
            except Exception as error:
                raise PluginError(f"{page.file.src_path}: the formula {tex!r} cannot be rendered: {error!r}") from error
        return replace

    return _INLINE.sub(formula("inline"), _BLOCK.sub(formula("block"), content))
