"""Files on disk: their names, how they are written whole, and how they are read with suspicion."""
