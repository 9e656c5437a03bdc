"""Any image-text model: loading, pictures and their grids, prompts as tokens, reading rows of attention."""
