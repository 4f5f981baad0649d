"""One secret of each kind, as they look in the wild; none of them opens anything."""

PASSWORD = "hunter2-Tr0ub4dor"
API_KEY = "sk-planted0123456789abcdefghij"
ANTHROPIC_KEY = "sk-ant-api03-planted_0123456789-abcdef"
AWS_KEY = "AKIAPLANTED012345678"
GITHUB_TOKEN = "ghp_planted0123456789abcdefghij012345"
BEARER = "planted.0123456789~abcdef"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoidHJ1ZSJ9.c2lnbmF0dXJlLXBsYW50ZWQ"
E_MAIL = "planted.person@mail.example.org"
ENVIRONMENT_VALUE = 'planted env <value> & "quotes"'
PROMPT = "Please tell me why my invoice from March was charged twice to the old card"

DSN = f"postgresql://app:{PASSWORD}@db.internal:5432/shop"

TEXTS = {
    "DSN password": f"connecting to {DSN}",
    "API key": f"openai.AuthenticationError: wrong key {API_KEY}.",
    "Anthropic key": f"x-api-key: {ANTHROPIC_KEY}",
    "AWS key": f"aws_access_key_id = {AWS_KEY}",
    "GitHub token": f"git clone https://{GITHUB_TOKEN}@github.com/x/y",
    "bearer token": f"curl -H 'Authorization: Bearer {BEARER}'",
    "JWT": f"session {JWT} expired",
    "e-mail": f"ticket by {E_MAIL}",
    "environment value": f"settings loaded: {ENVIRONMENT_VALUE}",
}

SECRETS = (
    PASSWORD, API_KEY, ANTHROPIC_KEY, AWS_KEY, GITHUB_TOKEN, BEARER, JWT, E_MAIL, "planted env", "invoice from March",
)  # fmt: skip

ENVIRONMENT = {"SHOP_SECRET": ENVIRONMENT_VALUE, "PATH": "/usr/bin", "TERM": "xterm"}
