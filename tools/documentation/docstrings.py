# SPDX-License-Identifier: MIT
"""An extension of griffe, which reads the Python sources for mkdocstrings: docstrings become Markdown with sections as griffe wants them."""
import re
import textwrap

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")
_DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)
_SECTION = re.compile(r"(?:Parameters|Attributes|Returns|Raises|Warns)\n-{4,}\n")
# The part behind the colon of "name : type"; anything else there describes.
_TYPE = re.compile(r"(?:int|float|str|bool|bytes|dict|iterable|of|or|(?:\w+\.)+\w+|[A-Z][A-Za-z]+)(?:[ ,]+(?:int|float|str|bool|bytes|dict|iterable|of|or"
                   r"|(?:\w+\.)+\w+|[A-Z][A-Za-z]+))*")


class Docstrings(griffe.Extension):
    """Roles become code, examples fenced code. Entries "name : meaning" get their meaning as description; types are in the annotations."""

    def on_object(self, *, obj, **_):
        if obj.docstring is not None:
            text = _sections(_ROLE.sub(r"`\1`", obj.docstring.value))
            obj.docstring.value = _DOCTEST.sub(
                lambda match: textwrap.indent(f"```pycon\n{textwrap.dedent(match[0])}\n```", match[1]), text)


def _sections(text: str) -> str:
    """Sections last and clean: what stands behind an entry's colon is its description, paragraphs after entries come before all sections."""
    starts = [match.start() for match in _SECTION.finditer(text)]
    if not starts:
        return text
    front, sections = [text[:starts[0]].rstrip()], []
    for begin, end in zip(starts, [*starts[1:], len(text)]):
        title, line, body = text[begin:end].split("\n", 2)
        entries = []
        for paragraph in re.split(r"\n\s*\n", body.strip("\n")):
            first = paragraph.split("\n", 1)[0]
            if not entries or re.match(r"[\w*][\w*, ]* : |\s", first) or re.fullmatch(r"\S+", first):
                entries.append(paragraph)
            else:
                front.append(paragraph)
        body = "\n".join(entries)
        sections.append("\n".join([title, line, body if title == "Returns" else _described(body)]))
    return "\n\n".join([*front, *sections])


def _described(body: str) -> str:
    lines = []
    for line in body.split("\n"):
        match = re.match(r"(\S[^:]*?) : (.*)$", line)
        if match and not _TYPE.fullmatch(match[2]):
            lines += [match[1], "    " + match[2]]
        else:
            lines.append(line if not line or not line[0].isspace() else "    " + line.strip())
    return "\n".join(lines)
