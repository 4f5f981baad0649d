"""What belongs to each row comes with the rows, in one statement more, and forgetting it is an error.

Mends: n-plus-one
Needs: sqlalchemy
Source: C58; SQLAlchemy manual (relationship loading techniques: selectinload, raiseload)
Unlike the guides: joinedload repeats the parent in every row it joins, which is dear where the parent holds a long text;
    selectinload reads the children by their parents' ids.
Costs: one statement more for each relationship named. The children come even where nobody looks at them.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session, raiseload, selectinload

T = TypeVar("T")


def with_children(parents: Select[Any], *relationships: InstrumentedAttribute[Any]) -> Select[Any]:
    """Return ``parents`` such that ``relationships`` are read with them; any other raises an error when it is used."""
    return parents.options(*(selectinload(each) for each in relationships), raiseload("*"))


def newest(
    session: Session, model: type[T], by: Any, *relationships: InstrumentedAttribute[Any], limit: int = 20
) -> Sequence[T]:
    """Return the ``limit`` newest rows of ``model`` with their ``relationships``."""
    parents = select(model).order_by(by.desc()).limit(limit)
    return session.scalars(with_children(parents, *relationships)).all()
