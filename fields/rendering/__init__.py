"""Rendering: from rays to samples of a field, and back to colours."""
