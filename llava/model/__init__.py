"""Loading of LLaVA checkpoints."""
