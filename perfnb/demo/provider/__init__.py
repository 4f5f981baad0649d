"""A simulated model provider that speaks the OpenAI protocol over real HTTP. What it answers and how long it takes is made up."""
