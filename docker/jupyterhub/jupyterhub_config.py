"""A hub for a class: one container a learner, with limits, shared models and one measurement at a time.

Fill /srv/minillama on the host once, as root, with the learners' image (see compose.yml):

    docker compose run --rm prepare
"""

import os

from dockerspawner import DockerSpawner

c = get_config()  # JupyterHub defines it

c.JupyterHub.spawner_class = DockerSpawner
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = "hub"  # the hub's name in the network of compose.yml
c.JupyterHub.bind_url = "http://:8000"
c.JupyterHub.db_url = "sqlite:///data/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "data/cookie_secret"

# Replace this by the login of your school (OAuthenticator, LTI); one password for all is for a closed room only.
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = os.environ["HUB_PASSWORD"]
c.Authenticator.allow_all = True

c.DockerSpawner.image = "minillama-learner"
c.DockerSpawner.network_name = os.environ.get("HUB_NETWORK", "minillama")
c.DockerSpawner.remove = True
c.DockerSpawner.notebook_dir = "/home/learner/work"
c.DockerSpawner.default_url = "/lab/tree/labs/00_install_and_doctor.ipynb"

# minillama reads the quota and starts as many threads. Fewer than two whole cores make every number noise.
c.DockerSpawner.cpu_limit = 2
c.DockerSpawner.mem_limit = "4G"

SHARED = "/srv/minillama"
c.DockerSpawner.volumes = {
    "minillama-{username}": "/home/learner/work",  # notebooks and results
    "minillama-cache-{username}": "/home/learner/.cache",  # compiled programs: they survive a restart
    f"{SHARED}/lock": {"bind": f"{SHARED}/lock", "mode": "rw"},  # all containers wait for one lock
}
c.DockerSpawner.read_only_volumes = {
    f"{SHARED}/models": f"{SHARED}/models",
    f"{SHARED}/cache": f"{SHARED}/cache",
}
