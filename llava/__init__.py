"""All that knows LLaVA: prompts, tokenisation, image preprocessing with its geometry, loading."""
