"""Models behind HTTP: requests gathered into batches, answers as JSON, masks and drawn pictures."""
