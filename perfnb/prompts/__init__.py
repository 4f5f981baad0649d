"""What is kept of prompts and answers: digests, token counts, sketches, recognised passages."""
