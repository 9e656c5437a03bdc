"""The formats in which referring expressions are handed about, one file each."""
