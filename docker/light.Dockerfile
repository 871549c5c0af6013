# The command minillama with the built-in model, without the server's port and without Jupyter.
#   docker build -f docker/light.Dockerfile -t minillama:light .
#   docker run --rm minillama:light run -p "Once upon a time" -n 64
#   docker run --rm -v "$PWD/models:/models" minillama:light run -m /models/model.gguf -p "Hello"
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
ENTRYPOINT ["minillama"]
CMD ["--help"]
