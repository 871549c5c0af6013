"""The instructor's kit: copies, marks and packs of the labs."""
