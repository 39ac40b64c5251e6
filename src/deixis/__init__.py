"""Fine-tune models that tie language to pixels, on your own data."""
