"""Text of YAML or JSON files to plain values, with errors that name file, document and line.

JSON is YAML, and a hundred times faster to read; so JSON is tried first, and ``yaml`` is imported
only for what is not JSON.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec

from kproxy.errors import InvalidObject

MOST_NODES = 1_000_000
"""Keys and values in one document, aliases written out: a hundred times the largest of us."""


class Document(NamedTuple):
    """One document of a file."""

    where: str
    """``shop.yaml, document 2``, for messages."""
    value: Any


def parse(text: str, where: str) -> tuple[list[Document], list[InvalidObject]]:
    """Return the documents of a text, without empty ones.

    A document that is broken ends the reading, for what follows cannot be told from it; the
    documents before it are returned, with one problem that names the line.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [Document(where, msgspec.json.decode(text))], []
        except (msgspec.DecodeError, RecursionError):
            pass  # flow-style YAML, or several JSON documents: YAML reads both
    return _parse_yaml(text, where)


def parse_one(text: str, where: str) -> dict[str, Any]:
    """Return the only document of a text, a mapping. Raises :class:`InvalidObject`."""
    documents, problems = parse(text, where)
    if problems:
        raise problems[0]
    if len(documents) != 1:
        problem = f"holds {len(documents)} documents, not one"
        raise InvalidObject(where, "", problem, remedy="keep one document in it")
    value = documents[0].value
    if not isinstance(value, dict):
        raise InvalidObject(where, "", "is not a mapping", remedy="write key: value")
    return value


def _parse_yaml(text: str, where: str) -> tuple[list[Document], list[InvalidObject]]:
    import yaml

    documents: list[Document] = []
    number = 0
    loader = _loader()(text)
    try:
        while loader.check_data():
            number += 1
            node = loader.get_node()
            if "*" in text:  # or it cannot have an alias
                _check_aliases(node)
            value = loader.construct_document(node)
            if value is not None:
                documents.append(Document(f"{where}, document {number}", value))
    except yaml.YAMLError as error:
        number = max(number, 1 + text.count("\n---", 0, _offset(text, error)))
        return documents, [_broken(error, where, number)]
    except (RecursionError, ValueError) as error:
        # Numbers with thousands of digits, tags that promise what is not there, endless nesting.
        label = f"{where}, document {number}"
        return documents, [InvalidObject(label, "", f"cannot be read: {error}")]
    finally:
        loader.dispose()
    return documents, []


def _check_aliases(root: Any) -> None:
    """Raise ValueError if a document says more than MOST_NODES when its aliases are written out.

    Nine lines of nine aliases each say half a billion words.
    """
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        known = sizes.get(id(node))
        if known is None:
            sizes[id(node)] = MOST_NODES + 1  # counts if the node is within itself
            known = 1
            if isinstance(node.value, list):
                known += sum(map(size, _below(node.value)))
            sizes[id(node)] = known
        if known > MOST_NODES:
            raise ValueError(f"its aliases stand for more than {MOST_NODES} values, or itself")
        return known

    size(root)


def _below(values: list[Any]) -> Iterator[Any]:
    for one in values:
        if isinstance(one, tuple):  # an entry of a mapping
            yield from one
        else:
            yield one


def _mark(error: Exception) -> Any:
    return getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)


def _offset(text: str, error: Exception) -> int:
    """Return where in the text an error is."""
    mark = _mark(error)
    lines = text.splitlines(keepends=True)[: mark.line] if mark else []
    return sum(len(line) for line in lines)


def _broken(error: Exception, where: str, number: int) -> InvalidObject:
    mark = _mark(error)
    field = f"line {mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    told = f"broken YAML: {problem}" + (f" {context}" if context else "")
    label = f"{where}, document {number}"
    return InvalidObject(label, field, told, remedy="correct the syntax at that line")


@cache
def _loader() -> Any:
    """Return a YAML loader that reads manifests as Kubernetes does.

    Times stay text (an unquoted creationTimestamp is a string for Kubernetes), and a key that is
    there twice is an error.
    """
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]  # the base is chosen at run time
        yaml_implicit_resolvers = {  # noqa: RUF012  the name is yaml's
            first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"]
            for first, rules in base.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key.value, str):
                    continue  # no name at all: the rest is told by what reads on
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    return Loader
