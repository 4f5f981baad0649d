"""Plans from whatever EXPLAIN prints or people paste: text, JSON, YAML or XML, told apart by what is in it."""

import re
from collections.abc import Mapping
from textwrap import dedent
from typing import Any
from xml.etree import ElementTree

import orjson

from perfnb.errors import WrongUse
from perfnb.plans.building import plan_of
from perfnb.plans.pasted import plan_lines
from perfnb.plans.plan import Plan
from perfnb.plans.properties import plain
from perfnb.plans.text import documents, looks_like_text

LONGEST = 64 * 2**20
_HINT = "EXPLAIN's text, JSON, YAML and XML are read"
_YAML = re.compile(r"^\s*-?\s*Plan:\s*$", re.MULTILINE)
_DASHED = ("Full sort Groups", "Pre sorted Groups", "I O")


def read_plan(text: str) -> Plan:
    """Return the plan in ``text``; raises WrongUse where there is none or it can't be read, telling the reason."""
    return read_plans(text)[0]


def read_plans(text: str) -> list[Plan]:
    """Return every plan in ``text``, one at least; raises WrongUse as :func:`read_plan` does."""
    if len(text) > LONGEST:
        raise WrongUse(f"a plan of {len(text):,} characters", hint=f"at most {LONGEST:,}")
    try:
        return [plan_of(each) for each in _documents(text)]
    except RecursionError:
        raise WrongUse("the plan is nested too deeply", hint="it can't be shown") from None


def looks_like_plan(text: str) -> bool:
    """Tell whether ``text`` holds a plan in one of the formats, without reading all of it."""
    body = _body(text)
    if body[:1] in "[{" and body:
        return '"Node Type"' in body or '"Plan"' in body
    return body.startswith("<explain") or bool(_YAML.search(body) and "Node Type:" in body) or looks_like_text(text)


def _body(text: str) -> str:
    return dedent("\n".join(plan_lines(text))).strip()


def _documents(text: str) -> list[Any]:
    body = _body(text)
    if body[:1] in ("[", "{"):
        return _json(body)
    if body.startswith("<"):
        return _xml(body)
    if _YAML.search(body) and "Node Type:" in body:
        return _yaml(body)
    return list(documents(text))


def _json(body: str) -> list[Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WrongUse(f"the plan is no JSON: {error}", hint=_HINT) from None
    return _list(found)


def _list(found: Any) -> list[Any]:
    """Return the documents of what EXPLAIN gives: a list of one, or auto_explain's single object."""
    many = found if isinstance(found, list) else [found]
    while len(many) == 1 and isinstance(many[0], list):  # a row of a table with the column QUERY PLAN
        many = many[0]
    many = [each["QUERY PLAN"] if isinstance(each, Mapping) and "QUERY PLAN" in each else each for each in many]
    flat = [one for each in many for one in (each if isinstance(each, list) else [each])]
    if not flat:
        raise WrongUse("no plan in this list", hint=_HINT)
    return flat


def _yaml(body: str) -> list[Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses aliases: a few lines of them can stand for a tree without end."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has aliases")
            return super().compose_node(parent, index)

    try:
        return _list(yaml.load(body, Loader))
    except (yaml.YAMLError, ValueError) as error:
        raise WrongUse(f"the plan is no YAML: {' '.join(str(error).split())[:120]}", hint=_HINT) from None


def _xml(body: str) -> list[Any]:
    if "<!" in body:
        raise WrongUse("the plan's XML declares entities", hint="paste the output of EXPLAIN (FORMAT XML) unchanged")
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise WrongUse(f"the plan is no XML: {error}", hint=_HINT) from None
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
    return _list([_of_element(each) for each in root.iter("Query")])


def _of_element(element: ElementTree.Element) -> Any:
    """Return an element as JSON has it: items as lists, other children as fields, the rest as text or number."""
    if not len(element):
        return plain((element.text or "").strip())
    if all(child.tag in ("Item", "Plan", "Worker", "Trigger", "Group") for child in element) and element.tag != "Query":
        return [_of_element(child) for child in element]
    found: dict[str, Any] = {}
    for child in element:
        name, value = _name(child.tag), _of_element(child)
        found[name] = value if name not in found else [found[name], value]  # Incremental-Sort-Groups stand there twice
    return found


def _name(tag: str) -> str:
    """Return ``Node Type`` for ``Node-Type``; two names have a dash and one a slash of their own."""
    name = tag.replace("-", " ")
    for each in _DASHED:
        name = name.replace(each, each.replace(" ", "/" if each == "I O" else "-", 1))
    return name
