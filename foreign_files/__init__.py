"""Reading what others made, and quoting it: nothing that a file names is ever looked up or run."""
