"""Special tokens of LLaVA prompts, and the names that files and logs share."""

from __future__ import annotations

TOOL_VERSION = "1.0.0"
"""Version of this tool, stored with every attention file."""

IMAGE_TOKEN = "<image>"
"""Marks where the image goes in a prompt."""

IMAGE_PLACEHOLDER = "<image-placeholder>"
"""Another spelling of `IMAGE_TOKEN` that LLaVA's own scripts accept inside a question."""

IM_START_TOKEN = "<im_start>"
"""Put before the image where a checkpoint says `mm_use_im_start_end`."""

IM_END_TOKEN = "<im_end>"
"""Put after the image where a checkpoint says `mm_use_im_start_end`."""

LOG_DIR = "."
"""Where log files go when nothing else says so."""
