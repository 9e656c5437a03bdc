"""Any image-text model: loading, prompts, where image tokens lie, reading rows of attention, checking a grid."""
