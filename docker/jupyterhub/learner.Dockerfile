# A learner's container: JupyterLab with the labs. Models and a filled compile cache come from the host, read-only.
#   docker build -t minillama-learner -f docker/jupyterhub/learner.Dockerfile .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir --prefix=/install '.[labs]' 'jupyterhub>=5.2,<6'

FROM python:${PYTHON}-slim
COPY --from=build /install /usr/local
COPY --chmod=755 docker/jupyterhub/seed_cache.sh /usr/local/bin/seed_cache.sh
RUN useradd --create-home --uid 1000 learner \
    && install -d -o learner -g learner /home/learner/work /home/learner/.cache /srv/minillama/lock
USER 1000
WORKDIR /home/learner/work
ENV MINILLAMA_LAB_MODELS=/srv/minillama/models \
    MINILLAMA_CACHE_SEED=/srv/minillama/cache \
    MINILLAMA_LOCK_FILE=/srv/minillama/lock/measuring.lock
ENTRYPOINT ["seed_cache.sh"]
CMD ["jupyterhub-singleuser"]
