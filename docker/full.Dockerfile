# All commands, the labs and JupyterLab on port 8888, as llama.cpp's image `full` has all tools.
#   docker build -f docker/full.Dockerfile -t minillama:full .
#   docker run --rm -it -p 127.0.0.1:8888:8888 -v minillama-work:/home/minillama/minillama-labs minillama:full
#   docker run --rm minillama:full doctor
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir --prefix=/install '.[labs]'

FROM python:${PYTHON}-slim
COPY --from=build /install /usr/local
# The folder of the notebooks belongs to the user, so that a new volume does, too.
RUN useradd --create-home --uid 1000 minillama \
    && install -d -o minillama -g minillama /home/minillama/minillama-labs
USER 1000
WORKDIR /home/minillama
EXPOSE 8888
ENTRYPOINT ["minillama"]
CMD ["lab", "--ip", "0.0.0.0", "--no-browser"]
