"""Simple questions go to a small model, all others to a capable one; models are named in one place, by what they are for.

Mends: oversized-model, slow-model
Needs: openai
Source: A8, B25; OpenAI API reference (models, shutdown_date)
Unlike the guides: the models they name are or will be shut down, so names stand in the app's settings; length and a
    question mark alone send "Why?" to the small model and every command to the large one. These rules are a start: see
    with split() what they do to your own questions, and change them.
Costs: answers of the small model are worse where the rules are wrong: compare them in a trial before you keep it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from openai import AsyncOpenAI

HARD = re.compile(
    r"\b(why|compare|differences?|explain|prove|design|debug|plan|trade-?offs?|step by step|best)\b|```|\n",
    re.IGNORECASE,
)


def tier(question: str) -> str:
    """Return "simple" or "capable"."""
    is_short = len(question.split()) < 20 and question.count("?") <= 1
    return "simple" if is_short and not HARD.search(question) else "capable"


def split(questions: Iterable[str]) -> Counter[str]:
    """Return how many of your questions each tier would get."""
    return Counter(map(tier, questions))


async def ask(client: AsyncOpenAI, models: Mapping[str, str], question: str) -> str:
    """Return the answer of the model that ``models`` (tier to name) has for this question."""
    model = models[tier(question)]
    reply = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    return reply.choices[0].message.content or ""
