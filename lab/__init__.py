"""What the stages hand each other: records, config schema, files on disk, the picture-book world."""
