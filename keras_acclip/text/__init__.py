"""Text to train on: the corpus that every machine has, text files, and WordPiece vocabularies."""
