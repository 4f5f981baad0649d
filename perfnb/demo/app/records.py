"""What the app reads of its database for a question besides passages and history: one way of many, told by a setting."""

from collections.abc import Sequence

from perfnb.demo.app.store import Passage, Store

STEPS = 3
"""Places in the code that each want the customer's session: sign-in, rights, language."""
CHECKS = 60
"""Places that each look at the flags."""
LISTED = 40

SESSION = "SELECT id, created_at, preferences FROM sessions WHERE id = %s"
FLAGS = "SELECT name, is_on FROM flags"
NUMBERS = "SELECT id FROM messages WHERE session_id = %s ORDER BY id DESC LIMIT %s"
RATING = "SELECT stars FROM ratings WHERE message_id = %s"
MESSAGES = "SELECT * FROM messages WHERE session_id = %s"
WORDS = "SELECT id, session_id FROM messages WHERE content ILIKE %s ORDER BY id DESC LIMIT 5"
VOLUME = "SELECT count(*), sum(length(content)) FROM messages WHERE session_id = %s"
RANKING = "SELECT session_id, content FROM messages ORDER BY content, id OFFSET 90000 LIMIT 1"
STATISTICS = """
SELECT r.stars, count(*) FROM archive a JOIN messages m ON m.id = a.message_id JOIN ratings r ON r.message_id = m.id
WHERE a.topic = %s GROUP BY r.stars
"""


class Records:
    """Reads what ``settings.records`` says; nobody needs what comes back, as it is the reading that is shown."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, kind: str, question: str, session_id: str | None, found: Sequence[Passage]) -> int:
        """Read the records of this kind and return how many rows came back."""
        session = session_id or "customer-2"
        match kind:
            case "passages":
                return sum([await self._one_passage(passage.id) for passage in found])
            case "ratings":
                return await self._ratings(session)
            case "flags":
                return sum([len(await self._store.rows(FLAGS)) for _ in range(CHECKS)])
            case "session":
                return sum([len(await self._store.rows(SESSION, (session,))) for _ in range(STEPS)])
            case "messages":
                return len(await self._store.rows(MESSAGES, (session,)))
            case "words":
                return len(await self._store.rows(WORDS, (f"%{question[:24]}%",)))
            case "volume":
                return len(await self._store.rows(VOLUME, (session,)))
            case "ranking":
                return len(await self._store.rows(RANKING))
            case "statistics":
                return len(await self._store.rows(STATISTICS, ("install",)))
        return 0

    async def _one_passage(self, number: int) -> int:
        return 1 if await self._store.read(number) else 0

    async def _ratings(self, session: str) -> int:
        numbers = await self._store.rows(NUMBERS, (session, LISTED))
        return sum([len(await self._store.rows(RATING, (number,))) for (number,) in numbers])
