"""The configuration: its schema, its checks and how its errors are told."""
