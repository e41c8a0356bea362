"""`--model icr-api`: models behind an OpenAI-compatible address: stored answers, prices, a hard cap."""
