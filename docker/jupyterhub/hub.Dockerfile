# The hub: JupyterHub, and a spawner that starts a container for each learner.
#   docker build -t minillama-hub -f docker/jupyterhub/hub.Dockerfile .
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends nodejs npm \
    && npm install -g configurable-http-proxy@5 \
    && npm cache clean --force \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir 'jupyterhub>=5.2,<6' 'dockerspawner>=14,<15'
WORKDIR /srv/jupyterhub
COPY docker/jupyterhub/jupyterhub_config.py .
RUN mkdir data
CMD ["jupyterhub", "-f", "jupyterhub_config.py"]
