"""A Transformer-XL that reads a text segment by segment."""
