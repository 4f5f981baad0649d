import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.errors import WrongUse
from perfnb.knobs.postgres.definition import IndexDefinition, from_using, without_values


@pytest.mark.parametrize(
    ("text", "name", "table", "rest", "method"),
    [
        ("CREATE INDEX a ON t (x)", "a", "t", "(x)", "btree"),
        ("create index concurrently if not exists A on only S.T using HNSW (e vector_l2_ops) with (m=8);", "a", "S.T",
         "using HNSW (e vector_l2_ops) with (m=8)", "hnsw"),
        ('CREATE INDEX "Odd ""one""" ON "My Schema"."My Table" ("Column")', 'Odd "one"', '"My Schema"."My Table"', '("Column")', "btree"),
        ("CREATE INDEX i ON t (lower(x)) INCLUDE (y) WHERE z > 5", "i", "t", "(lower(x)) INCLUDE (y) WHERE z > 5", "btree"),
        ("CREATE INDEX\n  on_hold\nON t(x DESC NULLS LAST)", "on_hold", "t", "(x DESC NULLS LAST)", "btree"),
    ],
)  # fmt: skip
def test_a_definition_is_read(text: str, name: str, table: str, rest: str, method: str) -> None:
    assert IndexDefinition.parse(text) == IndexDefinition(name, table, rest, method)


@pytest.mark.parametrize(
    "text", ["", "SELECT 1", "CREATE INDEX ON t", "CREATE TABLE t (x)", "CREATE UNIQUE INDEX ON t (x)", "DROP INDEX a"]
)
def test_what_is_no_index_is_refused(text: str) -> None:
    with pytest.raises(WrongUse) as refused:
        IndexDefinition.parse(text)
    assert refused.value.hint


def test_an_index_without_a_name_gets_one_of_its_own() -> None:
    first, second = (IndexDefinition.parse("CREATE INDEX ON public.orders (customer, at)").name for _ in range(2))
    assert first.startswith("orders_customer_at_")
    assert first != second
    assert len(IndexDefinition.parse(f"CREATE INDEX ON {'t' * 70} ({'c' * 70})").name) <= 63


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for whole in (text, f"CREATE INDEX {text}", f"CREATE INDEX ON t ({text})"):
        try:
            made = IndexDefinition.parse(whole)
        except WrongUse:
            continue
        assert len(made.name) <= 63 or made.name in whole.replace('""', '"').lower() + whole


@pytest.mark.parametrize(
    ("definition", "kept"),
    [
        ("CREATE INDEX a ON public.t USING btree (x)", "USING btree (x)"),
        ("CREATE INDEX a ON t USING hnsw (e vector_l2_ops) WITH (m='8', ef_construction='64')",
         "USING hnsw (e vector_l2_ops) WITH (m='8', ef_construction='64')"),
        ("CREATE INDEX a ON t USING btree (x) WITH (fillfactor='70') WHERE (state = 'secret'::text)",
         "USING btree (x) WITH (fillfactor='70') WHERE (state = ?::text)"),
        ("CREATE INDEX a ON t USING btree (((data ->> 'secret'::text)))", "USING btree (((data ->> ?::text)))"),
    ],
)  # fmt: skip
def test_what_is_written_down_holds_options_and_no_values(definition: str, kept: str) -> None:
    assert from_using(definition) == kept
    assert without_values(kept) == kept
