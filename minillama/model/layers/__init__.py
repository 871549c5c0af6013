"""The parts of a layer: mixers of tokens and feed-forward networks."""
