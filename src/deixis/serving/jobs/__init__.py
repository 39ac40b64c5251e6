"""Work on folders and films that takes longer than a request: its queue, its files, and what it runs."""
