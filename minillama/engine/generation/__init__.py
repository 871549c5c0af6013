"""Parts of generation: text output, stop strings, drafts, context shift, defaults of the file."""
