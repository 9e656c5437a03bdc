"""What each stage does, over the plain functions of the flat modules."""
