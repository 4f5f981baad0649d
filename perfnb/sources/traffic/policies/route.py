"""Send calls to another model by the one asked for and the size of the prompt.

Source: A8, B25 (routing by complexity); the size of the prompt is the only measure of it that needs no guess
"""

from fnmatch import fnmatchcase

from perfnb.sources.traffic.policies.body import Body
from perfnb.sources.traffic.policies.settings import Route


def route(body: Body, settings: Route) -> None:
    """Ask the model of the first rule that fits; a model that stands in the path (Azure) stays."""
    model = body.values.get("model")
    if not isinstance(model, str):
        return
    tokens = body.input_tokens if any(rule.get("max_input_tokens") for rule in settings.rules) else 0
    for rule in settings.rules:
        limit = rule.get("max_input_tokens")
        if fnmatchcase(model, rule.get("from", "*")) and (limit is None or tokens <= limit):
            body.set("model", rule["to"])
            return
