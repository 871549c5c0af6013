# The HTTP server on port 8080, as llama.cpp's image `server`.
#   docker build -f docker/server.Dockerfile -t minillama:server .
#   docker run --rm -p 127.0.0.1:8080:8080 minillama:server
#   docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD/models:/models" minillama:server -m /models/model.gguf
# A port that other machines reach needs a key: -e LLAMA_API_KEY=...
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir --prefix=/install .

FROM python:${PYTHON}-slim
COPY --from=build /install /usr/local
RUN useradd --create-home --uid 1000 minillama
USER 1000
WORKDIR /home/minillama
ENV LLAMA_ARG_HOST=0.0.0.0 LLAMA_ARG_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["minillama", "serve"]
