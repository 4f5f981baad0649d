"""The structure of SQL statements: tables, filters, joins, order and distance, whatever style of parameters they have."""

from perfnb.sql.parsed import parsed
from perfnb.sql.statement import Column, Distance, Filter, Join, Order, Part, Statement

__all__ = ["Column", "Distance", "Filter", "Join", "Order", "Part", "Statement", "parsed"]
