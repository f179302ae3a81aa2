"""``repotool``: what an operator types."""
