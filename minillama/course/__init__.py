"""The instructor's kit: copies of the labs, marks of submissions, packs without a network."""
