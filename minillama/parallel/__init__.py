"""Several machines as one: processes that find, trust and follow one another."""
