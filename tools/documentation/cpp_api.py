# SPDX-License-Identifier: MIT
"""A hook of MkDocs: declarations of C++ headers, read by libclang, as Markdown.

A line ``::: cpp HEADER NAME ...`` of a page, HEADER relative to the repository, becomes what the header declares under these names in namespace OpenMMFlow,
or outside of any: comments, and for classes all public members. What a comment says of a parameter that does not exist is an error, and so is a header that
does not compile.
"""
import importlib.util
import re
import subprocess
import textwrap
from functools import cache
from pathlib import Path

from clang.cindex import AccessSpecifier, CursorKind, Diagnostic, Index, TranslationUnit
from mkdocs.exceptions import PluginError

_DIRECTIVE = re.compile(r"^::: cpp (\S+)((?: \w+)+)$", re.MULTILINE)
_INCLUDE = ("flow", "openmmapi/include")
_CLASSES = (CursorKind.CLASS_DECL, CursorKind.STRUCT_DECL)
_FUNCTIONS = (CursorKind.FUNCTION_DECL, CursorKind.CXX_METHOD, CursorKind.CONSTRUCTOR)
_MEMBERS = (*_CLASSES, *_FUNCTIONS, CursorKind.FIELD_DECL, CursorKind.ENUM_DECL, CursorKind.TYPE_ALIAS_DECL)


def on_page_markdown(markdown: str, *, config, **_) -> str:
    """MkDocs calls this with the text of each page."""
    root = Path(config.config_file_path).parent

    def declarations(match):
        found = _declared(root, match[1])
        missing = [name for name in match[2].split() if name not in found]
        if missing:
            raise PluginError(f"{match[1]} does not declare {', '.join(missing)}")
        return "\n\n".join(_described(cursor, 3) for name in match[2].split() for cursor in found[name])

    return _DIRECTIVE.sub(declarations, markdown)


def on_post_build(**_):
    """MkDocs calls this at its end. What libclang has made must not outlive its library at exit."""
    _declared.cache_clear()


@cache
def _declared(root: Path, header: str) -> dict:
    """Declarations of a header by name."""
    compiler = subprocess.run(["g++", "-print-file-name=include"], check=True, capture_output=True, text=True).stdout.strip()
    openmm = Path(importlib.util.find_spec("openmm").origin).parents[1] / "OpenMM.libs" / "include"
    options = ["-x", "c++", "-std=c++17", *(f"-I{root / folder}" for folder in _INCLUDE), f"-I{openmm}", "-isystem", compiler]
    unit = Index.create().parse(str(root / header), options, options=TranslationUnit.PARSE_SKIP_FUNCTION_BODIES)
    errors = [str(message) for message in unit.diagnostics if message.severity >= Diagnostic.Error]
    if errors:
        raise PluginError(f"{header} does not compile: {errors[0]}")
    found, queue = {}, [unit.cursor]
    while queue:
        for cursor in queue.pop().get_children():
            if cursor.kind in (CursorKind.NAMESPACE, CursorKind.LINKAGE_SPEC, CursorKind.UNEXPOSED_DECL):
                queue.append(cursor)
            elif cursor.location.file and cursor.location.file.name == str(root / header) and cursor.kind in _MEMBERS:
                found.setdefault(cursor.spelling, []).append(cursor)
    return found


def _described(cursor, level: int) -> str:
    """A heading for a type or a free function, its declaration and its comment; then the public members of a type."""
    parts = [f"{'#' * level} {cursor.spelling}"] if level < 5 else []
    is_class = cursor.kind in _CLASSES
    parts += [_code(_head(cursor) if is_class else _declaration(cursor)), _comment(cursor)]
    if is_class:
        members = [member for member in cursor.get_children()
                   if member.kind in _MEMBERS and member.access_specifier == AccessSpecifier.PUBLIC]
        names = [member.spelling for member in members if member.kind in _FUNCTIONS]
        previous = None
        for member in members:
            if member.kind in _CLASSES:
                if member.is_definition():
                    parts.append(_described(member, 5))
                continue
            # Overloads share a heading.
            if member.kind in _FUNCTIONS and member.spelling != previous:
                title = "Constructors" if member.kind == CursorKind.CONSTRUCTOR and names.count(member.spelling) > 1 else member.spelling
                parts.append(f"{'#' * (level + 1)} {title}" if level < 5 else f"**{title}**")
            previous = member.spelling
            parts += [_code(_declaration(member)), _comment(member)]
    return "\n\n".join(filter(None, parts))


def _code(text: str) -> str:
    return f"```cpp\n{text}\n```"


def _source(cursor, end: int) -> str:
    with open(cursor.extent.start.file.name, "rb") as file:
        content = file.read()
    start = cursor.extent.start
    text = content[start.offset:end].decode()
    return textwrap.dedent(" " * (start.column - 1) + text).strip()


def _head(cursor) -> str:
    """Of a class: what stands before its body."""
    text = _source(cursor, cursor.extent.end.offset)
    return text[:text.index("{")].strip()


def _declaration(cursor) -> str:
    """As the header has it, without the body of a function."""
    body = next((child for child in cursor.get_children() if child.kind == CursorKind.COMPOUND_STMT), None)
    return _source(cursor, body.extent.start.offset if body else cursor.extent.end.offset).rstrip("; ") + ";"


def _comment(cursor) -> str:
    """The comment of a declaration: its text, its parameters, what it returns."""
    if cursor.raw_comment is None:
        return ""
    lines = re.sub(r"^/\*\*|\*/$", "", cursor.raw_comment).split("\n")
    text = textwrap.dedent("\n".join(re.sub(r"^\s*\* ?", "", line) if number else line.strip() for number, line in enumerate(lines))).strip()
    text, *entries = re.split(r"^@", text, flags=re.MULTILINE)
    rows = []
    for entry in entries:
        kind, _, rest = entry.partition(" ")
        if kind == "param":
            name, _, meaning = rest.partition(" ")
            if name not in [argument.spelling for argument in cursor.get_arguments()]:
                raise PluginError(f"{cursor.location.file.name}:{cursor.location.line}: {cursor.spelling} has no parameter {name!r}")
            rows.append((f"`{name}`", meaning))
        elif kind == "return":
            rows.append(("returns", rest))
        else:
            raise PluginError(f"{cursor.location.file.name}:{cursor.location.line}: @{kind} is not known here")
    table = [f"| {name} | {_text(' '.join(meaning.split())).replace('|', chr(92) + '|')} |" for name, meaning in rows]
    return "\n\n".join(filter(None, [_text(text.strip()), "\n".join(["| | |", "|---|---|", *table]) if table else ""]))


def _text(text: str) -> str:
    """Prose as Markdown that shows it as it is; names of functions as code. Indented lines are formulas."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            paragraphs.append(paragraph)
            continue
        pieces = re.split(r"(`[^`]*`|\b\w+\(\))", paragraph)
        paragraphs.append("".join(f"`{piece.strip('`')}`" if index % 2 else re.sub(r"([\\*_\[\]<>])", r"\\\1", piece)
                                  for index, piece in enumerate(pieces)))
    return "\n\n".join(paragraphs)
