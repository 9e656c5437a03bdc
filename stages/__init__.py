"""What each stage does, one file a stage, over the plain functions of the flat modules."""
