"""Endpoints in the form of other services: Anthropic, OpenAI's responses, Google Vertex AI."""
