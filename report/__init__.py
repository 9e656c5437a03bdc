"""A run as one HTML file that works without network: gallery, head explorer, data set, comparison of two runs."""
