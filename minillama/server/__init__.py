"""An HTTP server with llama-server's interface and OpenAI's, on a batch engine.

`app.build_app` makes the application from the tables of `endpoints`. `requests` reads bodies, `answers` writes JSON and
server-sent events, `model_host` holds the model and its engine. The command imports this room; nothing else needs it.
"""
