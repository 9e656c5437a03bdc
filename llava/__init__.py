"""What only LLaVA has: published prompts, its tokenisation, both of its checkpoint formats."""
