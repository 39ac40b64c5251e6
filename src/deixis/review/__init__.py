"""Data sets under review: what people decide, kept in SQLite; the page on which they do; what to look at first."""
