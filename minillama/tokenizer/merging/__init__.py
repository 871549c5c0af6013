"""Merging of characters or bytes into tokens: byte pairs by rank, SentencePiece by score."""
