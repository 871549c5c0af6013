"""A given text, evaluated once: its logits, embeddings and activations."""
