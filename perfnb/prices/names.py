"""What providers and models are called: in traces, by hosts, by routers and clouds, and in the price list."""

import re
from collections.abc import Iterator

PROVIDERS = {
    "az.ai.openai": "azure",
    "az.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure_openai": "azure",
    "azure-openai": "azure",
    "azure_ai": "azure",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "vertex_ai": "google",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "moonshot_ai": "moonshotai",
    "mistral_ai": "mistral",
    "aws_bedrock": "aws",
}
"""Names of gen_ai.provider.name, gen_ai.system and litellm to those of genai-prices; its own rules find the others
(but take azure.ai.openai for openai, since that contains it)."""

SPEAKS_FOR_OTHERS = ("openai", "azure", "aws", "google", "litellm", "unknown")
"""Providers named for models that are not theirs: clouds that resell, and clients of OpenAI's protocol at another's
address. Any other named provider sets its own prices, and a model missing there has none."""

_MAKERS = {"text-embedding-": "openai", "chatgpt-": "openai", "embed-": "cohere"}
_BEDROCK = re.compile(r"(?:[a-z-]+\.)?(?P<maker>[a-z0-9]+)\.(?P<name>[a-z0-9.-]+?)(?:-v\d+)?(?::\d+)?$")
_BEDROCK_REGION = re.compile(r"^(?:us|us-gov|eu|apac|jp|au|ca|global)\.(?=[a-z0-9]+\.)")
_OLLAMA_TAG = re.compile(r"^(?!ft:)(?!.*-v\d+:\d+$)[^:]+:[^:]+$")


def provider_name(provider: str | None) -> str | None:
    """Return ``provider`` as the price list has it, where we know better than the list's own rules."""
    if not provider:
        return None
    name = provider.strip().lower()
    return "azure" if name.startswith("azure") else PROVIDERS.get(name, name)


def spellings(model: str) -> Iterator[str]:
    """Yield ``model`` as it came, then without what a cloud puts before it: a path, a resource name, a region."""
    yield model
    name = model.rsplit("/", 1)[-1] if model.startswith(("models/", "publishers/", "projects/", "arn:")) else model
    for spelled in (name, _BEDROCK_REGION.sub("", name)):
        if spelled != model:
            yield spelled


def without_cloud(model: str) -> str | None:
    """Return the maker's name of a Bedrock model: ``us.anthropic.claude-x-v1:0`` is ``claude-x``."""
    found = _BEDROCK.match(model.rsplit("/", 1)[-1].lower())
    return (
        found["name"] if found and found["maker"] in ("anthropic", "mistral", "cohere", "deepseek", "openai") else None
    )


def without_router(model: str) -> tuple[str, str] | None:
    """Return provider and model of a router's name: ``openai/gpt-5`` or litellm's ``azure/gpt-5``."""
    provider, slash, name = model.partition("/")
    return (PROVIDERS.get(provider.lower(), provider.lower()), name) if slash and name else None


def maker_of(model: str) -> str | None:
    """Return who makes ``model`` where the list's own rules don't know."""
    return next((maker for start, maker in _MAKERS.items() if model.lower().startswith(start)), None)


def is_local(model: str) -> bool:
    """Tell whether the name is an Ollama tag (``llama3:8b``): weights that run on a machine of one's own."""
    return bool(_OLLAMA_TAG.match(model))
