"""Plans that real servers made; the number is the version, ``psql`` tells that its frame is around the plan."""

from pathlib import Path

from perfnb.plans import Node, Plan, read_plan

FOLDER = Path(__file__).parent / "real"
FILES = sorted(FOLDER.iterdir())


def real(name: str) -> Plan:
    return read_plan((FOLDER / name).read_text())


def named(plan: Plan, name: str) -> Node:
    return next(node for node in plan.nodes() if node.name.startswith(name))
