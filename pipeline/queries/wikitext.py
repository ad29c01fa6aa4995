"""Running text from wikitext.

A small, honest stripper for counting words, not a parser: it drops templates, tables, references, files, categories,
headings and bare addresses, keeps the visible words of links, and expands nothing. Words that only templates would print
(dates of infoboxes, converted units) are lost. Every step takes time proportional to the page, whatever somebody wrote there.
"""

from __future__ import annotations

import html
import re

DROPPED_NAMESPACES = frozenset(
    {"file", "image", "category", "media", "wikipedia", "template", "help", "portal", "special"}
)
MAX_DEPTH = 40  # of brackets within brackets; MediaWiki stops at 40 templates too

_BRACKET = re.compile(r"\{\{|\}\}|\{\||\|\}(?!\})|\[\[|\]\]")
_PARTNER = {"}}": "{{", "|}": "{|", "]]": "[["}
# Elements whose content is no running text.
_ELEMENT = re.compile(
    r"<(/?)(ref|math|chem|gallery|timeline|syntaxhighlight|source|score|imagemap|templatedata|code|pre|style)\b([^<>]{0,2000})>",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,2000}>")
_EXTERNAL_LINK = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\[\]]*([^\[\]\n]*)\]")
_ADDRESS = re.compile(r"(?:https?|ftp)://\S+")
_QUOTES = re.compile(r"'{2,5}")
_MAGIC_WORD = re.compile(r"__[A-Z]{3,20}__")
_LINE_MARKS = "*#:; \t"


def strip_wikitext(text: str) -> list[str]:
    """The lines of running text of a page, without markup, each with some letter in it."""
    text = _without_comments(text)
    text = _without_elements(text)
    text = _without_brackets(text)
    text = _EXTERNAL_LINK.sub(r"\1", text)
    text = _ADDRESS.sub(" ", text)
    text = _MAGIC_WORD.sub("", _QUOTES.sub("", _TAG.sub(" ", text)))
    return [line for raw in html.unescape(text).splitlines() if (line := _line(raw))]


def _line(raw: str) -> str:
    line = raw.strip()
    if line.startswith(("=", "|", "!", "{|")):  # headings; what is left of a broken table
        return ""
    line = " ".join(line.lstrip(_LINE_MARKS).split())
    return line if any(character.isalpha() for character in line) else ""


def _without_comments(text: str) -> str:
    kept, start = [], 0
    while (begin := text.find("<!--", start)) >= 0:
        kept.append(text[start:begin])
        end = text.find("-->", begin + 4)
        if end < 0:
            return "".join(kept)
        start = end + 3
    return "".join([*kept, text[start:]])


def _without_elements(text: str) -> str:
    """The text outside references and the like; a tag that is never closed is dropped alone."""
    tags = list(_ELEMENT.finditer(text))
    last_close = {tag[2].lower(): tag.start() for tag in tags if tag[1]}
    kept, start, inside = [], 0, ""
    for tag in tags:
        name = tag[2].lower()
        if inside:
            if tag[1] and name == inside:
                start, inside = tag.end(), ""
            continue
        kept.append(text[start : tag.start()])
        start = tag.end()
        opens = not tag[1] and not tag[3].endswith("/")
        if opens and last_close.get(name, -1) > tag.start():
            inside = name
    return " ".join([*kept, text[start:]])


def _without_brackets(text: str) -> str:
    """Links as their visible words; templates and tables, and what is within them, not at all."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    start = 0
    for match in _BRACKET.finditer(text):
        mark = match[0]
        stack[-1][1].append(text[start : match.start()])
        start = match.end()
        if mark not in _PARTNER:
            if len(stack) <= MAX_DEPTH:
                stack.append((mark, []))
        elif stack[-1][0] == _PARTNER[mark]:
            _, content = stack.pop()
            stack[-1][1].append(_visible("".join(content)) if mark == "]]" else " ")
    stack[-1][1].append(text[start:])
    return "".join(piece for _, pieces in stack for piece in pieces)


def _visible(link: str) -> str:
    target, bar, label = link.partition("|")
    namespace, colon, _ = target.partition(":")
    if colon and namespace.strip().lower() in DROPPED_NAMESPACES:
        return " "
    if bar:
        return label.rpartition("|")[2]
    return target.removeprefix(":").partition("#")[0]
