"""Many rough clients on one server: `python -m tests.soak --minutes 30 --clients 64`.

Clients read answers and streams to the end, leave in the middle, reset the connection, read slowly through small
buffers, send bodies byte by byte, nonsense, huge bodies and values for hostile templates. Each whole answer must be
that of the same request alone, each part the beginning of it, and no cut answer may look whole. Every refusal must be
an error of llama-server's form. Between: no slot busy, no thread, descriptor or child more, and memory flat. At the
end the server is ended (SIGTERM) and killed (SIGKILL) in the middle of streams.
"""
