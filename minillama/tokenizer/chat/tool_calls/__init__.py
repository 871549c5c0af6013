"""Tool calls in answers: the model's text becomes the `tool_calls` of OpenAI's API."""
