"""A third app, written another way: threads, SQLAlchemy's ORM, pgvector by hand, no OpenTelemetry.

``DATABASE_URL=… OPENAI_BASE_URL=… python shop_app.py`` prints the address it listens at. ``POST /ask`` takes
``{"text": …, "visitor": …}``, looks at the visitor's orders and the nearest books, and answers as lines of JSON.
``HABIT`` names the mistakes it makes, separated by commas; with none it is well-behaved.
"""

import json
import os
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any

import openai
from sqlalchemy import ForeignKey, create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.pool import NullPool

HABITS = {
    "no-connection-pool", "pool-exhausted", "connection-held-during-model-call", "n-plus-one", "per-id-queries",
    "over-fetching", "frequent-statement", "slow-statement", "sort-spill", "missing-results", "single-inserts",
    "pool-too-large",
}  # fmt: skip
HABIT = {name for name in os.environ.get("HABIT", "").split(",") if name in HABITS}
DIMENSIONS = 64
SHELF = 30


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list["Order"]] = relationship(order_by="Order.id.desc()")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    placed_at: Mapped[datetime]
    state: Mapped[str]
    items: Mapped[list["Item"]] = relationship()


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id"))
    quantity: Mapped[int]


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    blurb: Mapped[str]


class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int]
    asked: Mapped[str]
    words: Mapped[int]
    at: Mapped[datetime]


def does(name: str) -> bool:
    return name in HABIT


def engine() -> Any:
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    if does("no-connection-pool"):
        return create_engine(url, poolclass=NullPool)
    if does("pool-exhausted"):
        return create_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)
    return create_engine(url, pool_size=52 if does("pool-too-large") else 5)


def vector_of(words: str) -> str:
    """Return a bag of hashed words as pgvector reads it."""
    counts = [0.0] * DIMENSIONS
    for word in words.lower().split():
        counts[zlib.crc32(word.encode()) % DIMENSIONS] += 1
    return json.dumps(counts)


class Shop:
    """Answers what visitors ask."""

    def __init__(self) -> None:
        self.engine = engine()
        self.model = openai.OpenAI()
        if does("pool-too-large"):
            held = [self.engine.connect() for _ in range(52)]
            for connection in held:
                connection.close()

    def answer(self, asked: str, visitor: str) -> Iterator[str]:
        number = zlib.crc32(visitor.encode()) % 400 + 1
        session = Session(self.engine, expire_on_commit=False)
        try:
            customer = self.customer(session, number)
            books = self.nearest(session, asked)
            self.mistakes(session, number, asked)
            prompt = self.prompt(customer, books, asked)
            if not does("connection-held-during-model-call"):
                session.close()
            said = 0
            for piece in self.said(prompt):
                said += 1
                yield piece
            self.remember(session, number, asked, said)
        finally:
            session.close()

    def customer(self, session: Session, number: int) -> Customer:
        wanted = select(Customer).where(Customer.id == number)
        if not does("n-plus-one"):
            wanted = wanted.options(selectinload(Customer.orders).selectinload(Order.items))
        found = session.scalars(wanted).one()
        self.bought = sum(item.quantity for order in found.orders for item in order.items)
        return found

    def nearest(self, session: Session, asked: str) -> list[Any]:
        limit = 90 if does("missing-results") else SHELF if does("per-id-queries") else 5
        found = session.execute(
            text("SELECT id, title, blurb FROM books ORDER BY vector <-> CAST(:v AS vector) LIMIT :n"),
            {"v": vector_of(asked), "n": limit},
        ).all()
        if does("per-id-queries"):
            return [session.execute(select(Book.title, Book.blurb).where(Book.id == row.id)).one() for row in found][:5]
        return list(found[:5])

    def mistakes(self, session: Session, number: int, asked: str) -> None:
        if does("over-fetching"):
            session.scalars(select(Order).where(Order.customer_id.between(1, 100))).all()
        if does("frequent-statement"):
            for _ in range(60):
                session.execute(text("SELECT count(*) FROM pricing")).scalar()
        if does("slow-statement") or does("pool-exhausted"):
            word = max(asked.split(), key=len)
            session.scalars(select(Visit.id).where(Visit.asked.icontains(word)).limit(3)).all()
        if does("sort-spill"):
            session.execute(
                select(Visit.asked).order_by(func.md5(Visit.asked), Visit.id).offset(200_000).limit(1)
            ).all()

    def prompt(self, customer: Customer, books: list[Any], asked: str) -> list[dict[str, str]]:
        shelf = "\n".join(f"{number}. {row.title}: {row.blurb}" for number, row in enumerate(books, 1))
        orders = f"{customer.name} has {len(customer.orders)} orders."
        system = f"You sell books. Recommend from this shelf, in forty words.\n{shelf}\n{orders}"
        return [{"role": "system", "content": system}, {"role": "user", "content": asked}]

    def said(self, prompt: list[dict[str, str]]) -> Iterator[str]:
        stream = self.model.chat.completions.create(
            model="sim-balanced", messages=prompt, max_tokens=120, stream=True, stream_options={"include_usage": True}
        )
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    def remember(self, session: Session, number: int, asked: str, said: int) -> None:
        now = datetime.now(UTC)
        count = 25 if does("single-inserts") else 1
        for _ in range(count):
            session.add(Visit(customer_id=number, asked=asked, words=said, at=now))
            if does("single-inserts"):
                session.commit()
        session.commit()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shop: Shop

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._whole(200, {"up": True})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pieces = self.shop.answer(asked["text"], asked.get("visitor") or asked["text"])
        try:
            first = next(pieces, "")
        except Exception as error:  # whatever goes wrong, the visitor is told in one way
            self._whole(500, {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"})
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in chain([first], pieces):
            self._chunk(json.dumps({"text": piece}).encode() + b"\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _whole(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    Handler.shop = Shop()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
