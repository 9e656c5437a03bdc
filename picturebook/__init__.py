"""The picture-book world: drawn scenes, referring expressions about them, and the small LLaVA trained on both."""
