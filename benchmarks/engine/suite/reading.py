"""YAML as suites are written in: version 1.2, each key once, every value with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.data.errors import as_one_line


class SuiteError(ValueError):
    """A suite that cannot be read: one line with file, line and the nearest valid names."""


LARGEST = 2**63
MOST = 100_000  # values that a file may stand for: aliases of aliases of aliases would fill the memory


class _Refused(yaml.MarkedYAMLError):
    """What YAML allows and a suite does not."""


class _Loader(yaml.SafeLoader):
    """Scalars as YAML 1.2's core schema reads them: `1e-3` is a number, `on` is a text, there are no dates."""


_Loader.yaml_implicit_resolvers = {}
_NUMBER = list("-+.0123456789")
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+(_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+", _NUMBER),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        _NUMBER,
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    value = int(text, 0) if text[:2] in ("0o", "0x") else int(text) if len(text) < 99 else LARGEST
    if abs(value) >= LARGEST:
        raise _Refused(problem="an integer must be below 2**63", problem_mark=node.start_mark)
    return value


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def _refuse(node: Any, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases written out; `known`: those of nodes, 0 of one that is not finished.

    Raises: _Refused at the second of two equal keys, of which plain YAML would let the last one win, at keys
        that are no words or numbers, an alias of what it stands in, and more values than there may be.
    """
    if node is None:
        return 0
    if known.get(id(node)) == 0:
        raise _Refused(problem="an alias of what it stands in", problem_mark=node.start_mark)
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 0
    count = 1
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused(problem="a key must be a word or number", problem_mark=key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge" and key.value in first:
                told = f"key {key.value!r} stands here twice (first in line {first[key.value]})"
                raise _Refused(problem=told, problem_mark=key.start_mark)
            first[str(key.value)] = key.start_mark.line + 1
            count += 1 + _refuse(value, known)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_refuse(item, known) for item in node.value)
    if count > MOST:
        told = f"stands for {count:,} values, aliases written out; {MOST:,} are allowed"
        raise _Refused(problem=told, problem_mark=node.start_mark)
    known[id(node)] = count
    return count


def read_value(text: str) -> Any:
    """A value as a suite would read it.

    Raises: ValueError with YAML's own words.

    Example: `read_value("1e-3") == 0.001`
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        _refuse(node, {})
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not YAML: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return as_one_line(getattr(error, "problem", None) or error, 500)


@dataclass
class Document:
    """A suite file: its values, and where they stand, those that `--set` has changed included.

    Args:
        path: the file. raw: its values. node: as composed by YAML, with lines.
        settings: place of a value -> the `--set` that gave it.
    """

    path: Path
    raw: dict[str, Any]
    node: Any
    settings: dict[tuple, str] = field(default_factory=dict)

    def place(self, where: Iterable[Any]) -> str:
        """`file:line` of the deepest part of `where` that the file has, or the setting that the value is from.

        Example: `document.place(("tasks", 0, "recipe", "lr"))` is `mine.yaml:7`
        """
        where = tuple(where)
        for end in range(len(where), 0, -1):
            if where[:end] in self.settings:
                return f"--set {self.settings[where[:end]]!r}"
        deeper = next((text for place, text in self.settings.items() if where and place[: len(where)] == where), None)
        if deeper:
            return f"--set {deeper!r}"
        node, line = self.node, self.node.start_mark.line + 1
        for key in where:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == str(key)), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                break
        return f"{self.path}:{line}"

    def error(self, where: Iterable[Any], message: object) -> SuiteError:
        """One line: the place and what is the matter there."""
        return SuiteError(f"{self.place(where)}: {as_one_line(message)}")


def read_document(path: Path) -> Document:
    """A suite file.

    Raises: SuiteError for what is no YAML mapping of unique keys, with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=_Loader)
        _refuse(node, {})
        raw = yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        wrong = "" if isinstance(error, _Refused) else "not YAML: "
        raise SuiteError(f"{path}{line}: {wrong}{_reason(error)}") from None
    if not isinstance(raw, Mapping):
        raise SuiteError(f"{path}:1: a suite is a mapping with name, backbones and tasks")
    return Document(path, dict(raw), node)


def near(name: object, known: Iterable[str]) -> str:
    """`nearest: a, b`, or all that there are where none is like it."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, 3, 0.4)
    return f"nearest: {', '.join(close)}" if close else f"there are: {', '.join(sorted(names))}"
