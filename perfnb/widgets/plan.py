"""A plan as a tree for people: each step with the time it took by itself, rows that came and were expected, warnings.

Everything is said in words and by position as well as by colour; there is no script, and every text is escaped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from markupsafe import Markup

from perfnb.plans import Comparison, Node, Plan, misestimates, warnings
from perfnb.widgets import wording
from perfnb.widgets.html import Piece, render

MOST_STEPS = 300
MOST_CONDITION = 240


@dataclass(frozen=True)
class Step:
    """One line of the tree: ``share`` is the part of all steps' own time (or cost), 0 to 1."""

    tree: str
    below: str
    name: str
    subplan: str
    share: float
    amount: str
    rows: str
    expected: str
    off: str
    blocks: str
    details: tuple[str, ...]
    warnings: tuple[str, ...]
    is_never_executed: bool


class PlanView(Piece):
    """``plan`` under ``title``: the tree with bars in a page, the same facts as lines of text."""

    def __init__(self, plan: Plan, title: str = "Plan") -> None:
        self.plan = plan
        super().__init__(plan_html(plan, title), plan_text(plan, title))


class ComparedPlans(Piece):
    """Two plans side by side under what changed between them."""

    def __init__(self, compared: Comparison, titles: tuple[str, str] = ("Before", "After")) -> None:
        self.compared = compared
        sides = ((compared.before, titles[0]), (compared.after, titles[1]))
        trees = [plan_html(plan, title) for plan, title in sides]
        texts = [plan_text(plan, title) for plan, title in sides]
        told = [f"- {change}" for change in compared.changes]
        html = render("plans_compared", changes=compared.changes, trees=trees)
        super().__init__(html, "\n".join(["What changed:", *told, "", *texts]))


def plan_html(plan: Plan, title: str) -> Markup:
    """Return the tree of ``plan`` as HTML."""
    shown = steps(plan)
    return render(
        "plan",
        title=title,
        facts=facts(plan),
        measure=_measure(plan),
        executed=plan.is_executed,
        with_blocks=any(step.blocks for step in shown),
        steps=shown[:MOST_STEPS],
        more=max(0, len(shown) - MOST_STEPS),
    )


def plan_text(plan: Plan, title: str) -> str:
    """Return the tree of ``plan`` as lines of text: the same facts."""
    shown = steps(plan)
    lines = [f"{title}: {', '.join(facts(plan))}", f"{_measure(plan):>20}  {'rows':>14}  {'expected':>14}  step"]
    for step in shown[:MOST_STEPS]:
        amount = f"{step.amount} {wording.percent(step.share):>9}" if step.amount else ""
        lines.append(f"{amount:>20}  {step.rows:>14}  {step.expected:>14}  {step.tree}{_headed(step)}")
        lines += [f"{'':>54}{step.below}▲ {words}" for words in step.warnings]
    if len(shown) > MOST_STEPS:
        lines.append(f"… {wording.counted(len(shown) - MOST_STEPS, 'more step')} not shown")
    return "\n".join(lines) + "\n"


def steps(plan: Plan) -> list[Step]:
    """Return every step of ``plan``, as printed, with its share of the own time (or cost) of all."""
    own = _own(plan)
    everything = sum(own.values())
    told, blamed = warnings(plan), {each.node.number for each in misestimates(plan)}
    made = []
    for node, tree, below in _drawn(plan.root):
        share = own[node.number] / everything if everything else 0.0
        step = _step(node, tree, below, share, _amount(plan, own[node.number]), told.get(node.number, ()))
        made.append(replace(step, off=_off(node)) if node.number in blamed else step)
    return made


def facts(plan: Plan) -> list[str]:
    """Return what is known of the plan as a whole, a few words each."""
    told = []
    if plan.execution_ms is not None:
        told.append(f"executed in {wording.duration(plan.execution_ms)}")
    elif plan.total_ms is not None:
        told.append(f"ran {wording.duration(plan.total_ms)}")
    elif not plan.is_executed:
        told.append(f"not executed; cost {wording.number(round(plan.root.cost or 0))} as the planner reckons")
    if plan.planning_ms is not None:
        told.append(f"planned in {wording.duration(plan.planning_ms)}")
    if plan.jit_ms:
        told.append(f"compiled (JIT) in {wording.duration(plan.jit_ms)}")
    told += [
        f"trigger {each.name} {wording.duration(each.total_ms)}"
        for each in plan.triggers
        if each.total_ms is not None and each.total_ms >= 0.01 * (plan.total_ms or 0)
    ]
    return told + [f"{name} = {value}" for name, value in plan.settings.items()]


def _drawn(root: Node) -> Iterator[tuple[Node, str, str]]:
    """Yield each node with the branch drawn before it, and what is drawn before lines below its name."""
    waiting = [(root, "", "")]
    while waiting:
        node, tree, stem = waiting.pop()
        yield node, tree, stem
        last = len(node.children) - 1
        below = [
            (child, stem + ("└─ " if at == last else "├─ "), stem + ("   " if at == last else "│  "))
            for at, child in enumerate(node.children)
        ]
        waiting.extend(reversed(below))


def _step(node: Node, tree: str, below: str, share: float, amount: str, told: tuple[str, ...]) -> Step:
    conditions = [f"{name}: {_cut(text)}" for name, text in node.conditions]
    removed = [f"rows removed: {wording.number(round(node.rows_removed))}"] if node.rows_removed else []
    each = node.rows_each if node.rows_each is not None else node.rows_actual
    return Step(
        tree=tree,
        below=below,
        name=node.name,
        subplan=node.subplan,
        share=share,
        amount=amount,
        rows="" if each is None else _rows(each, node.executions),
        expected="" if node.rows_estimated is None else wording.number(round(node.rows_estimated)),
        off="",
        blocks=wording.number(node.own_blocks.touched) if node.own_blocks.touched else "",
        details=(*conditions, *removed),
        warnings=told,
        is_never_executed=node.was_executed is False,
    )


def _rows(each: float, executions: float | None) -> str:
    rows = wording.number(round(each) if each >= 10 else round(each, 2))
    return rows if executions is None or executions <= 1 else f"{rows} × {wording.number(round(executions))}"


def _off(node: Node) -> str:
    """Return by how much the estimate of a node that is to blame is off."""
    factor = node.factor or 1.0
    return f"{factor:,.0f}× more" if factor > 1 else f"{1 / factor:,.0f}× fewer"


def _own(plan: Plan) -> dict[int, float]:
    if plan.root.exclusive_ms is not None:
        return {node.number: node.exclusive_ms or 0.0 for node in plan.nodes()}
    return {
        node.number: max(0.0, (node.cost or 0.0) - sum(child.cost or 0.0 for child in node.children))
        for node in plan.nodes()
    }


def _measure(plan: Plan) -> str:
    return "cost alone" if plan.root.exclusive_ms is None else "time alone"


def _amount(plan: Plan, own: float) -> str:
    return wording.number(round(own)) if plan.root.exclusive_ms is None else wording.duration(own)


def _headed(step: Step) -> str:
    never = " (never executed)" if step.is_never_executed else ""
    return (f"{step.subplan}: " if step.subplan else "") + step.name + never


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return (
        flat
        if len(flat) <= MOST_CONDITION
        else f"{flat[:MOST_CONDITION].rpartition(' ')[0] or flat[:MOST_CONDITION]} …"
    )
