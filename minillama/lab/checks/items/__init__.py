"""Parts of the checks that are long enough for a file of their own."""
