"""From the JSON of a request to the options of a generation."""
