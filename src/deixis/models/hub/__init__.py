"""Models for others: what they are made from, and sending them to the Hugging Face hub."""
